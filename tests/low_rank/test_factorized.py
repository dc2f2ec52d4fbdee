"""Layers with the kernel P W Q, by themselves and in models."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.layers import FactorizedDense
from tests import models
from tests.low_rank_models import mlp, tied


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
    with pytest.raises(ValueError, match="rows=3"):
        kr.FactorizedDense(6, rows=3, vectors="units")
    with pytest.raises(ValueError, match="vectors"):
        kr.FactorizedDense(6, vectors="columns")
    with pytest.raises(ValueError, match="refresh"):
        kr.FactorizedDense(6, refresh=0)
    with pytest.raises(ValueError, match="groups=2"):
        kr.FactorizedConv2D(6, 3, groups=2)


def test_kernels_that_are_not_finite_are_left_alone():
    model = kr.factorize(mlp())
    layer = model.get_layer("two")
    layer.kernel.assign(np.full((12, 12), np.nan))
    assert layer.fuse_parallel() == []
