"""The same units on an axis twice, with other values each time."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models

X = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")


def with_relu(x):
    return layers.Concatenate()([x, layers.ReLU()(x)])


def with_both_signs(x):
    return layers.Concatenate()([layers.ReLU()(x), layers.ReLU()(-x)])


def with_two_poolings(x):
    pools = layers.GlobalAveragePooling1D(), layers.GlobalMaxPooling1D()
    return layers.Concatenate()([pool(x) for pool in pools])


def network(join, constant):
    inputs = keras.Input((6, 4))
    x = join(layers.Conv1D(8, 1, name="units")(inputs))
    if len(x.shape) > 2:
        x = layers.GlobalAveragePooling1D()(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    kernel, bias = map(models.numpy, model.get_layer("units").weights)
    kernel, bias = kernel.copy(), bias.copy()
    if constant:
        kernel[..., 2], bias[2] = 0, -1.5
    else:  # A sum of others, before what changes the values alone.
        kernel[..., 2] = 0.5 * kernel[..., 0] - 0.7 * kernel[..., 1]
    model.get_layer("units").set_weights([kernel, bias])
    return model


@pytest.mark.parametrize(
    "join", [with_relu, with_both_signs, with_two_poolings]
)
def test_a_constant_unit_goes_without_error(join):
    model = network(join, constant=True)
    plan = kr.plan(model, tau=0.999)
    assert plan.removed.sum() == 1
    models.assert_same_function(model, plan.apply(), X, tolerance=1e-5)


@pytest.mark.parametrize("join", [with_relu, with_two_poolings])
def test_values_of_both_places_count(join):
    model = network(join, constant=False)
    plan = kr.plan(model, correlation=0.999, data=X)
    small = plan.apply()
    wanted, found = (m.predict(X, verbose=0) for m in (model, small))
    error = np.square(found - wanted).mean(axis=0) / wanted.var(axis=0)
    assert error.max() < 0.01


@pytest.mark.parametrize(
    "embedding", [layers.Embedding, layers.ReversibleEmbedding]
)
def test_what_numbers_embeddings_stays(embedding):
    inputs = keras.Input((4,))
    x = ops.clip(3 * layers.Dense(8, name="units")(inputs) + 5, 0, 9)
    x = layers.Flatten()(embedding(10, 6)(ops.cast(x, "int32")))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    frozen = {d.space.name: d.reason for d in kr.plan(model, 0.9).decisions}
    assert "numbers of the vectors" in frozen["units"]


def test_a_bias_over_positions_and_units():
    inputs = keras.Input((5, 3))
    einsum = layers.EinsumDense("abc,cd->abd", (5, 8), bias_axes="bd")
    x = layers.Flatten()(layers.ReLU()(einsum(inputs)))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    models.plant(model)
    plan = kr.plan(model, tau=0.999)
    assert plan.removed.sum()
    data = X[:, :5, :3]
    models.assert_same_function(model, plan.apply(), data, tolerance=1e-4)


@pytest.mark.parametrize("take", [ops.take, ops.take_along_axis])
def test_arrays_that_are_taken_from(take):
    table = np.random.default_rng(0).normal(size=(10, 7)).astype("float32")
    inputs = keras.Input((7,), dtype="int32", batch_size=2)
    x = take(table, inputs, axis=0)
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(8)(x)))
    assert [s.size for s in kr.trace(model).prunable] == [8]


def test_noise_of_a_fixed_shape_stays_as_wide():
    inputs = keras.Input((4,))
    x = layers.Dense(8, name="units")(inputs)
    x = layers.AlphaDropout(0.5, noise_shape=(1, 8))(x)
    plan = kr.plan(keras.Model(inputs, layers.Dense(2)(x)), ratio=0.5)
    assert "noise_shape" in plan.decisions[0].reason
    plan.apply()(X[:, 0], training=True)


class Broadcast(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(1, shape[-1], 6))

    def call(self, x):
        return ops.matmul(x, self.kernel)


def test_a_kernel_that_is_broadcast_multiplies_everywhere():
    inputs = keras.Input((7, 5, 8))
    model = keras.Model(inputs, Broadcast()(inputs))
    assert kr.trace(model).multiply_adds() == 7 * 5 * 8 * 6


def test_constants_of_kernels_that_share_a_normalization():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    hidden = [
        layers.Dense(8, "relu", name=name)(x)
        for name, x in zip("ab", inputs, strict=True)
    ]
    norm = layers.BatchNormalization()
    both = [norm(layers.Dense(5, use_bias=False)(x)) for x in hidden]
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(both)))
    models.randomized(model)
    for name, value in (("a", 3.0), ("b", 7.0)):
        kernel, bias = (
            models.numpy(w).copy() for w in model.get_layer(name).weights
        )
        kernel[:, 0], bias[0] = 0, value
        model.get_layer(name).set_weights([kernel, bias])
    plan = kr.plan(model, tau=0.999)
    assert plan.removed.sum() == 2
    data = [X[:, 0], X[:, 1]]
    models.assert_same_function(model, plan.apply(), data, tolerance=1e-4)
