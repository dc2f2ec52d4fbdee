"""RaRe of factorized layers, whose closest pairs are kept."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_redundancy as kr
from tests import models
from tests.low_rank_models import turned


def test_layers_that_keep_pairs_are_regularized_as_others_are():
    """The penalty is that of the pairs found at the end of a step before."""
    rare = kr.RaReRegularizer(2.0, also="l2")
    layer = kr.FactorizedDense(40, kernel_regularizer=rare, refresh=3)
    x = keras.random.normal((4, 50), seed=1)

    def penalty(seed, training=True):
        layer.kernel.assign(keras.random.normal((50, 40), seed=seed))
        layer(x, training=training)
        return models.number(sum(layer.losses)), models.numpy(
            layer.kept_pairs.pairs
        )

    layer(x)
    assert (models.numpy(layer.kept_pairs.pairs) == 0).all()
    _, first = penalty(0)
    for _ in range(2):
        found, pairs = penalty(0)
        np.testing.assert_allclose(
            found, models.number(rare(layer.kernel.value)), rtol=1e-5
        )
        np.testing.assert_array_equal(pairs, first)
    found, pairs = penalty(1, training=False)
    np.testing.assert_array_equal(pairs, first)
    assert found > models.number(rare(layer.kernel.value))
    _, pairs = penalty(1)
    assert (pairs != first).any()
    found, again = penalty(1)
    np.testing.assert_array_equal(again, pairs)
    np.testing.assert_allclose(
        found, models.number(rare(layer.kernel.value)), rtol=1e-5
    )
    layer.kept_pairs.share.assign(0.5)
    layer(x)
    l2 = models.number(rare.also(layer.kernel.value))
    half = (found - l2) / 2 + l2
    np.testing.assert_allclose(
        models.number(sum(layer.losses)), half, rtol=1e-5
    )


@pytest.mark.parametrize("measure", ["squared_sine", "squared_distance"])
def test_pairs_that_are_parallel_make_way_for_the_next(measure):
    rare = kr.RaReRegularizer(2.0, measure, vectors="units", tau_cos=1e-2)
    layer = kr.FactorizedDense(
        20, kernel_regularizer=rare, vectors="units", refresh=1000
    )
    x = keras.random.normal((4, 50), seed=1)
    layer(x, training=True)
    first = models.numpy(layer.kept_pairs.pairs)[0]
    assert len(np.unique(first, axis=0)) == len(first) == 8
    a, b = first[0]
    for one_minus_cos, is_kept in ((0.02, True), (0.009, False)):
        kernel = models.numpy(layer.kernel).copy()
        rng = np.random.default_rng(0)
        kernel[:, b] = turned(kernel[:, a], one_minus_cos, rng)
        layer.kernel.assign(kernel)
        layer(x, training=True)
        now = models.numpy(layer.kept_pairs.pairs)[0]
        expected = first if is_kept else np.roll(first, -1, axis=0)
        np.testing.assert_array_equal(now, expected)
        # Those that look anew do the same.
        found = models.numpy(rare.closest(ops.convert_to_tensor(kernel)))
        assert ({*found[0].tolist()} == {int(a), int(b)}) == is_kept


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("measure", ["squared_sine", "squared_distance"])
def test_gradients_of_the_pair_and_of_the_rest(measure, axis):
    rare = kr.RaReRegularizer(1.0, measure)
    kernel = models.numpy(keras.random.normal((6, 5), seed=3))
    pair = ops.array([1, 3], "int32")

    def total(x):
        return rare.distance(x, pair, axis) + ops.sum(x**3)

    def expected(x):
        a, b = np.moveaxis(np.take(x, [1, 3], axis=axis), axis, 0)
        cosine = np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))
        if measure == "squared_distance":
            return (1 - cosine) ** 2 + np.sum(x**3)
        return 1 - cosine**2 + np.sum(x**3)

    slopes = np.zeros_like(kernel)
    for place in np.ndindex(kernel.shape):
        step = np.zeros(kernel.shape)
        step[place] = 1e-5
        wide = kernel.astype("float64")
        slopes[place] = (expected(wide + step) - expected(wide - step)) / 2e-5
    found = models.gradient(total, kernel)
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-4)


def test_a_layer_that_is_called_twice_counts_once():
    """As the regularizer of any other layer does, in each pass."""
    rare = kr.RaReRegularizer(2.0)
    layer = kr.FactorizedDense(8, kernel_regularizer=rare, refresh=9)
    inputs = keras.Input((8,))
    once = keras.Model(inputs, layer(inputs))
    twice = keras.Model(inputs, layer(layer(inputs)))
    x = keras.random.normal((4, 8), seed=1)
    once(x, training=True)
    for _ in range(2):
        losses = []
        for model in (once, twice):
            model(x)
            losses.append(models.number(sum(model.losses)))
        assert losses[0] == losses[1] > 0
    twice(x, training=True)
    assert models.number(layer.kept_pairs.age) == 2
    zeros = np.zeros((4, 8), "float32")
    found = []
    for model in (once, twice):
        model.compile("sgd", "mse")
        found.append(model.evaluate(zeros, zeros, verbose=0))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
