"""Kernels whose size is fixed, or trained apart from their direction."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models

WRAPPED = {
    "dense": (lambda: layers.Dense(6, "tanh", kernel_regularizer="l2"), (5,)),
    "no bias": (lambda: layers.Dense(6, use_bias=False), (5,)),
    "convolution": (lambda: layers.Conv2D(4, 3, padding="same"), (6, 6, 2)),
    "transposed": (lambda: layers.Conv1DTranspose(4, 3), (6, 2)),
    "einsum": (
        lambda: layers.EinsumDense("abc,cd->abd", (4, 6), bias_axes="d"),
        (4, 5),
    ),
}


def wrapped(name="dense"):
    make, shape = WRAPPED[name]
    inner = make()
    wrapper = kr.FrobeniusNormalization(inner)
    model = keras.Sequential(
        [keras.Input(shape), wrapper, layers.Flatten(), layers.Dense(3)]
    )
    return model, wrapper


def trained(model):
    data = models.random_inputs(model, batch=32)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(data, np.ones((32, 3)), epochs=3, verbose=0)
    return model


def norm(x):
    return np.linalg.norm(models.numpy(x))


@pytest.mark.parametrize("name", WRAPPED)
def test_function_is_the_same_until_it_is_trained(name):
    model, wrapper = wrapped(name)
    plain = keras.Sequential([wrapper.layer, *model.layers[1:]])
    plain.build((None, *model.input_shape[1:]))
    models.assert_same_function(plain, model, tolerance=1e-6)


@pytest.mark.parametrize("name", WRAPPED)
def test_size_and_direction_are_trained_apart(name):
    model, wrapper = wrapped(name)
    first = models.numpy(wrapper.layer.kernel)
    trained(model)
    gain = float(wrapper.gain)
    assert gain != 1
    np.testing.assert_allclose(float(wrapper.size), norm(first), rtol=1e-5)
    effective = models.numpy(wrapper.effective_kernel())
    np.testing.assert_allclose(norm(effective), norm(first) * gain, rtol=1e-5)
    own = models.numpy(wrapper.layer.kernel)
    assert np.abs(own - first).max() > 1e-4
    np.testing.assert_allclose(
        effective / norm(effective), own / norm(own), atol=1e-5
    )


def test_biases_and_penalties_are_trained_too():
    model, wrapper = wrapped()
    assert len(model.losses) == 1
    trained(model)
    assert np.abs(models.numpy(wrapper.layer.bias)).max() > 1e-4


def test_the_size_of_the_kernel_itself_says_nothing():
    model, wrapper = wrapped("no bias")
    x = models.random_inputs(model)
    (before,) = models.outputs(model, x)
    wrapper.layer.kernel.assign(3 * wrapper.layer.kernel)
    (after,) = models.outputs(model, x)
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_kernel_of_zeros():
    inner = layers.Dense(4, kernel_initializer="zeros")
    model = keras.Sequential(
        [keras.Input((5,)), kr.FrobeniusNormalization(inner), layers.Dense(3)]
    )
    trained(model)
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_saved_and_loaded(tmp_path):
    model, wrapper = wrapped()
    trained(model).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    models.assert_same_function(model, loaded, tolerance=1e-6)
    assert float(loaded.layers[0].size) == float(wrapper.size)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_low_precision(policy):
    inner = layers.Dense(6, dtype=policy)
    wrapper = kr.FrobeniusNormalization(inner, dtype=policy)
    model = keras.Sequential([keras.Input((5,)), wrapper])
    # Their squares are less than float16 can tell from 0.
    inner.kernel.assign(1e-4 * inner.kernel)
    wrapper.size.assign(1e-4 * wrapper.size)
    x = models.random_inputs(model)
    outputs = model(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == policy[6:]
    expected = models.numpy(inner(x)).astype(float)
    found = models.numpy(outputs).astype(float)
    np.testing.assert_allclose(
        found, expected, atol=0.02 * np.abs(expected).max()
    )
    assert keras.backend.standardize_dtype(inner.kernel.dtype) == "float32"


def test_a_layer_without_kernel_is_refused():
    with pytest.raises(ValueError, match="has none"):
        kr.FrobeniusNormalization(layers.ReLU()).build((None, 3))


# --- strip ------------------------------------------------------------------


def training_model():
    inputs = keras.Input((8, 8, 3))
    rare = kr.RaReRegularizer(1.0, also="l2")
    convolution = layers.Conv2D(8, 3, kernel_regularizer=rare)
    x = kr.FrobeniusNormalization(convolution)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    inner = keras.Sequential(
        [
            keras.Input((8,)),
            kr.FrobeniusNormalization(layers.Dense(12, activation="relu")),
        ]
    )
    model = keras.Model(inputs, layers.Dense(3)(inner(x)))
    return trained(model)


@pytest.mark.parametrize("name", [*WRAPPED, "several"])
def test_stripped_models_compute_the_same(name):
    model = training_model() if name == "several" else trained(wrapped(name)[0])
    before = model.get_weights()
    small = kr.strip(model)
    assert "keras_redundancy" in model.to_json()
    assert "keras_redundancy" not in small.to_json()
    models.assert_same_function(model, small, tolerance=1e-5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert small.optimizer.learning_rate == model.optimizer.learning_rate


def test_pruned_models_are_stripped():
    model = training_model()
    data = models.random_inputs(model, batch=64)
    for options in ({"tau": 1.0}, {"ratio": 0.5, "data": data}):
        plan = kr.plan(model, **options)
        small = plan.apply()
        assert "keras_redundancy" not in small.to_json()
    assert small.count_params() < kr.strip(model).count_params()


def test_a_plain_model_is_copied():
    model = models.randomized(models.mlp())
    small = kr.strip(model)
    assert small is not model
    models.assert_same_function(model, small, tolerance=0)


def test_strip_says_what_it_cannot_do():
    function = kr.strip
    with pytest.raises(TypeError, match="load_model"):
        function("model.keras")


def test_a_wrapper_that_is_traced_says_what_to_do():
    explanation = str(kr.trace(training_model()).explain())
    assert "strip(model)" in explanation


# --- the constraint ---------------------------------------------------------


def test_the_constraint_keeps_the_norm():
    constraint = kr.FrobeniusNorm(2.5)
    layer = layers.Dense(6, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((5,)), layer, layers.Dense(3)])
    trained(model)
    np.testing.assert_allclose(norm(layer.kernel), 2.5, rtol=1e-5)
    again = kr.FrobeniusNorm.from_config(constraint.get_config())
    assert again.norm == 2.5


def test_the_constraint_leaves_zeros():
    found = kr.FrobeniusNorm(2.0)(ops.zeros((3, 2)))
    np.testing.assert_array_equal(models.numpy(found), 0)


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (np.nan, ValueError), ("1", TypeError)],
)
def test_norms_that_are_none(value, error):
    with pytest.raises(error, match="norm"):
        kr.FrobeniusNorm(value)


@pytest.mark.parametrize("wrap", [lambda x: x, kr.FrobeniusNormalization])
def test_masks_go_on_where_the_layer_lets_them(wrap):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = wrap(keras.layers.Dense(5))(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
    ids = np.array([[1, 2, 0, 0, 0, 0]])
    alone = model.predict(ids[:, :2], verbose=0)
    np.testing.assert_allclose(model.predict(ids, verbose=0), alone, rtol=1e-5)
