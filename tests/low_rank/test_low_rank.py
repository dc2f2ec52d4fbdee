"""Training for low rank: what is drawn together, joined and made smaller."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.low_rank.fusion import parallel_columns
from tests import models
from tests.low_rank_models import compiled, data, factorized_layers, mlp, tied

# --- which are parallel -----------------------------------------------------


def turned(vector, one_minus_cos, rng):
    """A unit vector at an angle to another one."""
    unit = vector / np.linalg.norm(vector)
    other = rng.normal(size=len(vector))
    other -= (other @ unit) * unit
    other /= np.linalg.norm(other)
    cos = 1 - one_minus_cos
    return cos * unit + np.sqrt(1 - cos**2) * other


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    numbers=st.sampled_from([5, 33, 200]),
    tau=st.sampled_from([1e-2, 1e-4, 1e-6]),
    sign=st.sampled_from([-1, 1]),
)
def test_pairs_below_the_angle_are_found_and_no_others(
    seed, numbers, tau, sign
):
    rng = np.random.default_rng(seed)
    matrix = np.linalg.qr(rng.normal(size=(numbers, 5)))[0]
    near, far = turned(matrix[:, 0], 0.9 * tau, rng), rng.normal(size=numbers)
    far = turned(matrix[:, 1], 1.2 * tau, rng)
    matrix = np.column_stack([matrix, sign * near, far])
    found = parallel_columns(matrix, np.arange(7), tau, np.inf)
    assert [{fusion.kept, fusion.gone} for fusion in found] == [{0, 5}]
    assert np.sign(found[0].ratio) == sign


def test_one_vector_may_take_several():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    matrix = np.column_stack([a, 3 * a, b, -a, np.zeros(50), 2 * b])
    used = np.arange(6)
    fusions = parallel_columns(matrix, used, 1e-6, np.inf)
    left = matrix
    for fusion in fusions:
        left = fusion.joined(left, 1)
    assert len(fusions) == 4
    assert np.count_nonzero(np.linalg.norm(left, axis=0)) == 2
    assert not parallel_columns(matrix, np.array([0, 2]), 1e-6, np.inf)


def test_the_distance_counts_in_units_of_the_usual_size():
    rng = np.random.default_rng(0)
    matrix = np.linalg.qr(rng.normal(size=(40, 4)))[0]
    near = turned(matrix[:, 0], 1e-3, rng)
    distance = np.sqrt(2e-3)
    for size, scale in ((1, 1), (1, 100), (5, 1)):
        vectors = scale * np.column_stack([matrix, size * near])
        vectors[:, 0] *= size
        usual = np.sqrt(np.mean(np.sum(vectors**2, axis=0)))
        relative = size * scale * distance / usual
        for tau, count in ((1.01 * relative, 1), (0.99 * relative, 0)):
            found = parallel_columns(vectors, np.arange(5), 1e-2, tau)
            assert len(found) == count


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_what_has_no_direction_anywhere_is_left(value):
    matrix = np.full((40, 4), value)
    assert not parallel_columns(matrix, np.arange(4), 1e-4, 0.1)


# --- layers -----------------------------------------------------------------


def test_rows_and_columns_are_joined_towards_a_square():
    model = keras.Sequential([keras.Input((6,)), kr.FactorizedDense(8)])
    (layer,) = model.layers
    tied(layer, "unit", [(1, 0, 2.0), (2, 0, -1.0), (3, 0, 1.0), (4, 0, 0.5)])
    tied(layer, "input", [(1, 0, 2.0)])
    data = models.random_inputs(model)
    before = model.predict(data, verbose=0)
    sides = [side for side, _ in layer.fuse_parallel()]
    assert sides == ["unit", "unit", "input", "unit"]
    assert layer.sizes == (5, 5)
    layer.fuse_parallel(to_square=False)
    assert layer.sizes == (5, 4)
    after = model.predict(data, verbose=0)
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("strides", [1, 2])
def test_convolutions_share_filters_and_channels(strides, tmp_path):
    layer = kr.FactorizedConv2D(
        6, 3, strides=strides, padding="same", activation="relu"
    )
    model = keras.Sequential([keras.Input((8, 8, 4)), layer])
    stock = kr.to_dense(model)
    assert type(stock.layers[0]) is layers.Conv2D
    models.assert_same_function(model, stock, tolerance=1e-5)
    tied(layer, "unit", [(3, 1, -2.0)])
    tied(layer, "input", [(0, 2, 0.5)])
    before = kr.to_dense(model)
    layer.fuse_parallel(to_square=False)
    assert layer.sizes == (3, 5)
    models.assert_same_function(before, model, tolerance=1e-5)
    models.assert_same_function(model, kr.strip(model), tolerance=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    models.assert_same_function(model, loaded, tolerance=1e-6)
    small = kr.compact(keras.Sequential([keras.Input((8, 8, 4)), layer]))
    models.assert_same_function(model, small, tolerance=1e-5)


def test_a_norm_is_that_of_what_is_shared():
    """P W Q, of fewer numbers in W, is not as large as W."""
    layer = kr.FrobeniusNormalization(kr.FactorizedDense(9, rows=4, columns=6))
    model = keras.Sequential([keras.Input((7,)), layer])
    layer.gain.assign(1.7)
    stock = kr.to_dense(model)
    assert type(stock.layers[0].layer) is layers.Dense
    for other in (stock, kr.compact(model), kr.strip(model)):
        models.assert_same_function(model, other, tolerance=1e-6)


def test_layers_that_keep_pairs_are_regularized_as_others_are():
    """The penalty is that of the pairs found at the end of a step before."""
    rare = kr.RaReRegularizer(2.0, also="l2")
    layer = kr.FactorizedDense(40, kernel_regularizer=rare, refresh=3)
    x = keras.random.normal((4, 50), seed=1)

    def penalty(seed, training=True):
        layer.kernel.assign(keras.random.normal((50, 40), seed=seed))
        layer(x, training=training)
        return float(sum(layer.losses)), models.numpy(layer.pairs)

    layer(x)
    assert (models.numpy(layer.pairs) == 0).all()
    _, first = penalty(0)
    for _ in range(2):
        found, pairs = penalty(0)
        np.testing.assert_allclose(
            found, float(rare(layer.kernel.value)), rtol=1e-5
        )
        np.testing.assert_array_equal(pairs, first)
    found, pairs = penalty(1, training=False)
    np.testing.assert_array_equal(pairs, first)
    assert found > float(rare(layer.kernel.value))
    _, pairs = penalty(1)
    assert (pairs != first).any()
    found, again = penalty(1)
    np.testing.assert_array_equal(again, pairs)
    np.testing.assert_allclose(
        found, float(rare(layer.kernel.value)), rtol=1e-5
    )
    layer.share.assign(0.5)
    layer(x)
    l2 = float(rare.also(layer.kernel.value))
    half = (found - l2) / 2 + l2
    np.testing.assert_allclose(float(sum(layer.losses)), half, rtol=1e-5)


@pytest.mark.parametrize("measure", ["squared_sine", "squared_distance"])
def test_pairs_that_are_parallel_make_way_for_the_next(measure):
    rare = kr.RaReRegularizer(2.0, measure, vectors="units", tau_cos=1e-2)
    layer = kr.FactorizedDense(
        20, kernel_regularizer=rare, vectors="units", refresh=1000
    )
    x = keras.random.normal((4, 50), seed=1)
    layer(x, training=True)
    first = models.numpy(layer.pairs)[0]
    assert len(np.unique(first, axis=0)) == len(first) == 8
    a, b = first[0]
    for one_minus_cos, is_kept in ((0.02, True), (0.009, False)):
        kernel = models.numpy(layer.kernel).copy()
        rng = np.random.default_rng(0)
        kernel[:, b] = turned(kernel[:, a], one_minus_cos, rng)
        layer.kernel.assign(kernel)
        layer(x, training=True)
        now = models.numpy(layer.pairs)[0]
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


def test_factors_of_other_sizes_and_sides():
    layer = kr.FactorizedDense(6, rows=3, columns=2)
    layer(np.ones((2, 7), "float32"))
    assert layer.kernel.shape == (3, 2)
    assert layer.P.shape == (7, 3)
    assert layer.Q.shape == (2, 6)
    units = kr.FactorizedDense(6, vectors="units")
    units(np.ones((2, 7), "float32"))
    assert units.sizes == (7, 6)
    with pytest.raises(ValueError, match="side"):
        units.fuse("input", 0, 1)
    with pytest.raises(ValueError, match="rows is"):
        kr.FactorizedDense(6, rows=3, vectors="units")
    with pytest.raises(ValueError, match="vectors"):
        kr.FactorizedDense(6, vectors="columns")
    with pytest.raises(ValueError, match="refresh"):
        kr.FactorizedDense(6, refresh=0)
    with pytest.raises(ValueError, match="groups=2"):
        kr.FactorizedConv2D(6, 3, groups=2)


# --- models -----------------------------------------------------------------


def test_features_that_are_multiples_become_one():
    model = kr.factorize(mlp())
    one = model.get_layer("one")
    tied(one, "unit", [(3, 1, 2.0), (5, 1, -1.0)])
    one.bias.assign(np.linspace(-1, 1, 12))
    bias = models.numpy(one.bias).copy()
    bias[3] = 2 * bias[1]  # So a ReLU passes both alike; unit 5 is opposite.
    one.bias.assign(bias)
    for layer in factorized_layers(model):
        layer.fuse_parallel()
    assert one.sizes == (8, 10)
    small = kr.compact(model)
    models.assert_same_function(model, small, tolerance=1e-5)
    assert small.get_layer("one").units == 11
    assert type(small.get_layer("two")) is layers.Dense
    assert small.get_layer("one").kernel.shape == (8, 10)


def test_compact_knows_layers_of_one_name_apart():
    def part(factorized):
        kind = kr.FactorizedDense if factorized else layers.Dense
        return keras.Sequential([keras.Input((9,)), kind(9, name="same")])

    parts = [part(False), part(True), part(False)]
    model = keras.Sequential([keras.Input((9,)), *parts])
    for each in parts:
        tied(each.layers[0], "unit", [(i, 0, -1.0 * i) for i in range(1, 9)])
    kinds = [type(x.layers[0]).__name__ for x in kr.compact(model).layers]
    assert kinds == ["Dense", "FactorizedDense", "Dense"]
    models.assert_same_function(model, kr.compact(model), tolerance=1e-4)


def test_nothing_to_compact():
    model = mlp()
    models.assert_same_function(model, kr.compact(model), tolerance=0)


def test_a_compacted_model_is_saved_and_trained(tmp_path):
    model = kr.factorize(mlp())
    tied(model.get_layer("two"), "unit", [(i, 0, -1.0) for i in range(1, 7)])
    tied(model.get_layer("two"), "input", [(i, 0, 2.0) for i in range(1, 7)])
    small = kr.compact(model)
    assert small.get_layer("two").kernel.shape == (6, 6)
    models.assert_same_function(model, small, tolerance=1e-5)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, loaded, tolerance=1e-6)
    x, y = data()
    first = compiled(loaded).evaluate(x, y, verbose=0)
    loaded.fit(x, y, epochs=3, verbose=0)
    assert loaded.evaluate(x, y, verbose=0) < first
    models.assert_same_function(loaded, kr.strip(loaded), tolerance=1e-5)


# --- bad input --------------------------------------------------------------


def test_nothing_to_join_is_an_error():
    with pytest.raises(ValueError, match="no factorized layer"):
        compiled(mlp()).fit(
            *data(), verbose=0, callbacks=[kr.callbacks.DynamicLowRank()]
        )
    single = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    for function in (kr.factorize, kr.apply_rare):
        with pytest.raises(ValueError, match="has no Dense layer"):
            function(single)


@pytest.mark.parametrize("strength", [-1.0, np.nan, np.inf])
def test_strengths_out_of_range(strength):
    with pytest.raises(ValueError, match="strength"):
        kr.apply_rare(mlp(), strength)


def test_kernels_that_are_not_finite_are_left_alone():
    model = kr.factorize(mlp())
    layer = model.get_layer("two")
    layer.kernel.assign(np.full((12, 12), np.nan))
    assert layer.fuse_parallel() == []
