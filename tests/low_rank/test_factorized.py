"""Dense layers with the kernel P W Q."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.layers import FactorizedDense
from keras_redundancy.low_rank.fusion import Fusion
from tests import models


def built(inputs=6, units=5, seed=0, **options):
    layer = FactorizedDense(units, **options)
    model = keras.Sequential([keras.Input((inputs,)), layer])
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def parallel(layer, side, numbers, ratios):
    """Make columns (or rows) of W multiples of one of them."""
    kernel = models.numpy(layer.kernel).copy()
    vectors = kernel.T if side == "unit" else kernel
    for number, ratio in zip(numbers[1:], ratios, strict=True):
        vectors[number] = ratio * vectors[numbers[0]]
    layer.kernel.assign(kernel)


# --- the algebra ------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    ratio=st.floats(0.01, 100) | st.floats(-100, -0.01),
    axis=st.sampled_from([0, 1]),
)
def test_shares_of_the_joined_column_are_the_two_columns(seed, ratio, axis):
    matrix = np.random.default_rng(seed).normal(size=(4, 4))
    columns = np.moveaxis(matrix, axis, -1)
    columns[:, 2] = ratio * columns[:, 0]
    before = columns[:, [2, 0]].copy()
    fusion = Fusion.of(columns, kept=0, gone=2)
    joined = np.moveaxis(fusion.joined(matrix, axis), axis, -1)
    np.testing.assert_allclose(fusion.ratio, ratio)
    np.testing.assert_allclose(
        np.outer(joined[:, 0], fusion.shares), before, rtol=1e-9
    )
    np.testing.assert_array_equal(joined[:, 2], 0)
    np.testing.assert_array_equal(joined[:, [1, 3]], columns[:, [1, 3]])


def test_what_is_joined_is_nearest_to_both():
    """Of all multiples, with these shares: the least squares solution."""
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    matrix = np.column_stack([a, b])
    fusion = Fusion.of(matrix, kept=1, gone=0)
    shares = np.array(fusion.shares)
    expected = np.linalg.lstsq(shares[:, None], matrix.T, rcond=None)[0]
    np.testing.assert_allclose(fusion.joined(matrix, 1)[:, 1], expected[0])


def test_zeros_are_fused_into_others_but_not_kept():
    matrix = np.array([[0.0, 1.0], [0.0, 2.0]])
    fusion = Fusion.of(matrix, kept=1, gone=0)
    assert fusion.shares == (0, 1)
    with pytest.raises(ValueError, match="is 0"):
        Fusion.of(matrix, kept=0, gone=1)
    with pytest.raises(ValueError, match="the same"):
        Fusion.of(matrix, kept=1, gone=1)


# --- the layer --------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
def test_it_is_a_dense_layer_at_first(shape):
    x = keras.random.normal((7, *shape))
    layer = FactorizedDense(5, activation="relu")
    found = models.numpy(layer(x))
    dense = layers.Dense(5, activation="relu")
    dense.build(x.shape)
    dense.set_weights([models.numpy(v) for v in layer.trainable_variables])
    np.testing.assert_allclose(found, models.numpy(dense(x)), atol=1e-6)
    assert layer.sizes == (6, 5)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    side=st.sampled_from(["input", "unit"]),
    data=st.data(),
)
def test_fusing_parallel_vectors_changes_nothing(seed, side, data):
    """In any order, on either side, also what was fused before."""
    (layer,) = built(6, 6, seed).layers
    numbers = data.draw(st.permutations(range(6)))[:4]
    sizes = st.floats(0.1, 10) | st.floats(-10, -0.1)
    parallel(layer, side, numbers, [data.draw(sizes) for _ in range(3)])
    before = layer.effective_kernel()
    x = keras.random.normal((3, 6), seed=seed)
    outputs = models.numpy(layer(x))
    order = data.draw(st.permutations(numbers))
    left = list(order)
    while len(left) > 1:
        gone = left.pop(data.draw(st.integers(0, len(left) - 1)))
        layer.fuse(side, kept=left[0], gone=gone)
    np.testing.assert_allclose(layer.effective_kernel(), before, atol=1e-5)
    np.testing.assert_allclose(models.numpy(layer(x)), outputs, atol=1e-4)
    assert layer.sizes == ((3, 6) if side == "input" else (6, 3))


def test_the_kernel_is_that_of_the_factors():
    (layer,) = built().layers
    parallel(layer, "unit", [1, 3], [-2.0])
    parallel(layer, "input", [0, 5], [0.5])
    layer.fuse("unit", 1, 3)
    layer.fuse("input", 5, 0)
    kernel = layer.P @ models.numpy(layer.kernel) @ layer.Q
    np.testing.assert_allclose(layer.effective_kernel(), kernel, atol=1e-6)
    assert (np.count_nonzero(layer.P, axis=1) == 1).all()
    assert (np.count_nonzero(layer.Q, axis=0) == 1).all()


def test_what_is_fused_stays_fused_in_training():
    model = built(6, 5, activation="tanh")
    (layer,) = model.layers
    parallel(layer, "unit", [0, 2], [3.0])
    layer.fuse("unit", 0, 2)
    data = models.random_inputs(model, batch=64)
    model.compile("adam", "mse")
    before = layer.effective_kernel()
    model.fit(data, np.ones((64, 5)), epochs=2, verbose=0)
    kernel = layer.effective_kernel()
    assert np.abs(kernel - before).max() > 1e-4
    np.testing.assert_allclose(kernel[:, 2], 3 * kernel[:, 0], rtol=1e-4)


def test_saved_and_loaded(tmp_path):
    model = built(activation="relu")
    (layer,) = model.layers
    parallel(layer, "unit", [0, 2], [3.0])
    layer.fuse("unit", 0, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].sizes == (6, 4)
    models.assert_same_function(model, loaded, tolerance=1e-6)


def test_what_cannot_be_fused():
    (layer,) = built().layers
    layer.fuse("unit", 0, 2)
    with pytest.raises(ValueError, match="uses number 2"):
        layer.fuse("unit", 2, 3)
    with pytest.raises(ValueError, match="uses number 9"):
        layer.fuse("unit", 0, 9)
    with pytest.raises(ValueError, match="side"):
        layer.fuse("columns", 0, 1)


# --- models -----------------------------------------------------------------


def test_factorized_models_compute_the_same():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    inner = keras.Sequential([keras.Input((6, 4)), layers.Dense(7, "relu")])
    x = layers.TimeDistributed(inner)(x)
    x = kr.FrobeniusNormalization(layers.Dense(6))(layers.Flatten()(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    model.compile("adam", "mse")
    found = kr.factorize(model)
    models.assert_same_function(model, found, tolerance=1e-5)
    kinds = [type(x).__name__ for x in _keras.flat_layers(found)]
    assert kinds.count("FactorizedDense") == 3
    assert kinds.count("FrobeniusNormalization") == 1
    assert found.compiled
    stock = kr.strip(found)
    assert "keras_redundancy" not in stock.to_json()
    models.assert_same_function(model, stock, tolerance=1e-5)


def test_fused_layers_become_dense_ones():
    model = built(activation="relu")
    (layer,) = model.layers
    parallel(layer, "unit", [0, 2], [3.0])
    layer.fuse("unit", 0, 2)
    wrapped = keras.Sequential(
        [keras.Input((6,)), kr.FrobeniusNormalization(layer)]
    )
    wrapped.layers[0].gain.assign(1.5)
    for each in (model, wrapped):
        stock = kr.strip(each)
        assert type(stock.layers[0]) is layers.Dense
        models.assert_same_function(each, stock, tolerance=1e-5)


def test_some_layers_are_factorized():
    model = models.randomized(models.mlp())
    found = kr.factorize(model, layers="dense")
    kinds = [isinstance(x, FactorizedDense) for x in found.layers]
    assert kinds == [True, False, False]


def test_nothing_to_factorize():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3)])
    with pytest.raises(ValueError, match="no Dense layer"):
        kr.factorize(model)
