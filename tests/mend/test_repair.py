"""Moving statistics of a smaller model, from what its data became."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.mend import normalization
from keras_redundancy.mend.repair import _centered
from tests import models

EPSILON = 1e-3


def repaired_channel(moving, old, new):
    """Mean and variance of one channel; each argument is such a pair."""
    moving, old, new = (np.float32(x).reshape(2, 1) for x in (moving, old, new))
    found = normalization.repaired(moving, old, new, np.array([0]), EPSILON)
    return tuple(float(models.numpy(x)[0]) for x in found)


def scale(variance):
    return 1 / np.sqrt(variance + EPSILON)


def test_the_data_comes_out_as_it_did():
    mean, variance = repaired_channel((1, 2), (1.5, 2), (0.5, 0.5))
    assert mean == pytest.approx(0)
    spread = np.sqrt(0.5) * scale(variance)
    assert spread == pytest.approx(np.sqrt(2) * scale(2), rel=0.03)


@pytest.mark.parametrize("variance", [0.0, 1e-9, 0.3])
def test_what_did_not_change_keeps_its_statistics(variance):
    found = repaired_channel((1, 0.7), (2, variance), (2, variance))
    assert found == (1, np.float32(0.7))


@pytest.mark.parametrize("old", [0.0, 1e-10, 1e-6])
@pytest.mark.parametrize("new", [0.0, 1e-9, 1e-5])
def test_what_hardly_varied_keeps_its_scale(old, new):
    mean, variance = repaired_channel((1, 0.7), (2, old), (2.5, new))
    assert mean == 1.5
    assert scale(variance) == pytest.approx(scale(0.7), rel=0.01)


def test_what_became_constant_keeps_its_variance():
    assert repaired_channel((1, 0.7), (2, 0.7), (3, 0)) == pytest.approx(
        (2, 0.7)
    )


@pytest.mark.parametrize("new", [1e-5, 1e-3, 1e3])
@pytest.mark.parametrize("moving", [1e-8, 1e-3, 1.0, 50.0])
def test_no_scale_changes_by_more_than_so_much(moving, new):
    """Nor does a variance fall below zero."""
    _, variance = repaired_channel((0, moving), (0, 1), (0, new))
    assert variance >= 0
    change = scale(variance) / scale(moving)
    assert 0.99 / normalization.MOST < change < 1.01 * normalization.MOST


def barely_firing(seed):
    """A unit whose ReLU lets one of the samples through, by a thousandth."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    hidden = layers.Dense(12, activation="relu", name="wide")(inputs)
    x = layers.Dense(4, activation="relu", name="rare")(hidden)
    x = layers.Dense(2)(layers.BatchNormalization()(x))
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(seed)
    for kernel in (v for v in model.weights if v.name == "kernel"):
        most = np.sqrt(6 / sum(kernel.shape))  # The same on all backends.
        kernel.assign(rng.uniform(-most, most, kernel.shape))
    data = models.random_inputs(model, seed=seed, batch=400)
    kernel, bias = (models.numpy(v) for v in model.get_layer("rare").weights)
    (before,) = models.outputs(keras.Model(inputs, hidden), data)
    bias[0] = 1e-3 - (before @ kernel)[:, 0].max()
    model.get_layer("rare").bias.assign(bias)
    return model, data


@pytest.mark.parametrize(
    ("mend", "bound"),
    [
        (kr.Mend(rounds=0), 1.3),
        (kr.Mend(), 1.0),
        (kr.Distill(epochs=10), 1.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("seed", range(3))
def test_a_unit_that_barely_fires_does_not_blow_up(seed, mend, bound):
    model, data = barely_firing(seed)
    options = {"ratio": {"wide": 0.3}, "data": data}
    mended = kr.prune(model, **options, mend=mend)
    bare = kr.prune(model, **options, mend=False)
    fresh = models.random_inputs(model, seed=9, batch=500)
    # Squares are what is fitted; far out, no error may be large.
    for x, power, most in ((fresh, 2, bound), (3 * fresh, 1, 1.3)):
        (wanted,) = models.outputs(model, x)
        errors = [
            (np.abs(models.outputs(small, x)[0] - wanted) ** power).mean()
            for small in (mended, bare)
        ]
        assert errors[0] < most * errors[1]


def test_means_over_channels_are_those_of_all_channels():
    """A copy goes, and the mean over the others is not what it was."""
    inputs = keras.Input((5, 4))
    x = layers.Dense(8, activation="relu", name="wide")(inputs)
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.Flatten()(layers.Dense(6, activation="relu")(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    models.plant(model)
    data = models.random_inputs(model, batch=64)
    small = kr.prune(model, correlation=1.0, data=data)
    assert small.get_layer("wide").units < 8
    models.assert_same_function(model, small)


def test_variances_beside_a_large_mean():
    layer = layers.BatchNormalization()
    layer.build((None, 3))
    x = np.random.default_rng(0).normal(3000, 0.1, (512, 3)).astype("float32")
    parts = [keras.ops.convert_to_tensor(part) for part in (x[:200], x[200:])]
    mean, variance = normalization._statistics(layer, parts)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(variance, x.var(axis=0, dtype=float), rtol=1e-2)


@pytest.mark.parametrize("shared", [True, False])
def test_means_that_a_normalization_of_several_layers_takes_away(shared):
    """It takes away what they have in common, not the mean of each."""
    inputs, norm = keras.Input((9, 9, 4)), layers.BatchNormalization()
    ends = []
    for _ in range(2):
        x = layers.DepthwiseConv2D(3, use_bias=False)(inputs)
        ends.append((norm if shared else layers.BatchNormalization())(x))
    outputs = layers.Conv2D(2, 1)(layers.Add()(ends))
    graph = kr.trace(keras.Model(inputs, outputs))
    assert len(_centered(graph)) == (0 if shared else 2)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has no float64 by default, and PyTorch computes parts without.",
)
def test_copies_go_exactly_in_float64():
    keras.config.set_dtype_policy("float64")
    try:
        hidden = [
            layers.Dense(16, activation="relu", name=name) for name in "ab"
        ]
        model = keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(3)])
    finally:
        keras.config.set_dtype_policy("float32")
    kernel, bias = models.randomized(model).get_layer("a").get_weights()
    kernel[:, 8:], bias[8:] = kernel[:, :8], bias[:8]
    model.get_layer("a").set_weights([kernel, bias])
    data = np.random.default_rng(0).normal(size=(400, 8))
    small = kr.prune(model, ratio={"a": 0.5}, data=data)
    assert small.get_layer("a").units == 8
    models.assert_same_function(model, small, data, tolerance=1e-13)
