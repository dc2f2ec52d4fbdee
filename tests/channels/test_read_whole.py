"""Layers whose weights some calls read across positions, not channels."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.mend.calls import paired_calls
from tests import models


def called_twice(layer, positions):
    """A layer that reads 8 channels, and 8 positions of `positions` ones."""
    first, second = keras.Input((6, 3)), keras.Input((8, 3))
    over_channels = layer(layers.Conv1D(8, 1, name="a")(first))
    x = layers.Conv1D(positions, 1, name="p")(second)
    over_positions = layer(layers.Permute((2, 1))(x))
    ends = [
        layers.Dense(2)(layers.GlobalAveragePooling1D()(over_channels)),
        layers.Dense(3)(ops.mean(over_positions, axis=2)),
    ]
    return models.randomized(keras.Model([first, second], ends))


SHARED = {
    "dense": lambda: layers.Dense(9, name="e"),
    "einsum": lambda: layers.EinsumDense(
        "abc,cd->abd", (6, 9), bias_axes="d", name="e"
    ),
    "batch": lambda: layers.BatchNormalization(name="e"),
    "layer": lambda: layers.LayerNormalization(name="e"),
    "rms": lambda: layers.RMSNormalization(name="e"),
}


@pytest.mark.parametrize("name", SHARED)
def test_weights_of_both_kinds_of_calls_stay(name):
    model = called_twice(SHARED[name](), 6)
    graph = kr.trace(model)
    reasons = {space.name: space.frozen for space in graph.spaces}
    assert "another call of the layer" in reasons["a"]
    models.plant(model)
    plan = kr.plan(model, tau=0.999)
    models.assert_same_function(model, plan.apply())


@pytest.mark.parametrize("name", SHARED)
def test_layers_over_positions_alone_stay_as_they_are(name):
    inputs = keras.Input((8, 3))
    x = layers.Conv1D(6, 1, name="p")(inputs)
    x = layers.Permute((2, 1))(x)
    x = layers.Permute((2, 1))(SHARED[name]()(x))
    x = layers.GlobalAveragePooling1D()(layers.ReLU()(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    if name == "einsum":  # Its output_shape counts the channels.
        assert models.plant(model)
    else:
        assert models.plant(model)["p"]
    plan = kr.plan(model, tau=0.999)
    assert plan.removed.sum()
    models.assert_same_function(model, plan.apply(), tolerance=1e-4)


# --- biases that Keras adds along another axis ------------------------------


def channels_first(filters, layer=layers.Conv2D):
    inputs = keras.Input((3, 6, 5))
    x = layer(filters, 1, data_format="channels_first", name="u")(inputs)
    x = layers.Permute((2, 3, 1))(layers.ReLU()(x))
    return models.randomized(keras.Model(inputs, layers.Conv2D(4, 1)(x)))


def einsum(units):
    inputs = keras.Input((5, 3))
    shape = (units, 5)
    x = layers.EinsumDense("abc,cd->adb", shape, bias_axes="d", name="u")(
        inputs
    )
    x = layers.Flatten()(layers.ReLU()(x))
    return models.randomized(keras.Model(inputs, layers.Dense(2)(x)))


@pytest.mark.parametrize("make", [channels_first, einsum])
def test_as_many_units_as_positions(make):
    model = make(8)
    models.plant(model, share=0.4)
    plan = kr.plan(model, tau=0.999)
    assert models.widths(plan)["u"] == (5, 3)
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match=r"'u' .* would return an axis of"):
            plan.apply()
        found = {s.name: s.frozen for s in kr.trace(make(5)).spaces}
        assert "as many units as" in found["u"]
    else:
        models.assert_same_function(model, plan.apply())


def test_as_many_filters_of_a_transposed_convolution():
    model = channels_first(8, layers.Conv2DTranspose)
    models.plant(model, share=0.25)
    small = kr.prune(model, tau=0.999)
    assert small.get_layer("u").filters == 6
    models.assert_same_function(model, small)


class Positions(layers.Layer):
    """Adds a number to each position."""

    def build(self, shape):
        self.numbers = self.add_weight(shape=(shape[1], 1), name="numbers")

    def call(self, x):
        return x + self.numbers


def test_weights_that_keras_would_add_as_a_bias():
    inputs = keras.Input((5, 3))
    x = layers.Conv1D(8, 1, activation="relu", name="u")(inputs)
    x = layers.Flatten()(Positions()(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    models.plant(model, share=0.4)
    small = kr.prune(model, tau=0.999)
    assert small.get_layer("u").filters == 5
    data = np.random.default_rng(0).normal(size=(16, 5, 3)).astype("float32")
    models.assert_same_function(model, small, data)


def plus_one_channel(join, batch=None):
    """Units, and one channel for each of six positions, added to all."""
    inputs = keras.Input(batch_shape=(batch, 6, 5))
    x = layers.Dense(9, activation="relu", name="u")(inputs)
    x = layers.Flatten()(join(x, layers.Dense(1, name="one")(inputs)))
    return models.randomized(keras.Model(inputs, layers.Dense(2)(x)))


JOINS = {
    "+": lambda x, y: x + y,
    "Add": lambda x, y: layers.Add()([x, y]),
    "Average": lambda x, y: layers.Average()([x, y]),
    "Add of three": lambda x, y: layers.Add()([x, x, y]),
}


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("name", JOINS)
def test_what_keras_would_add_as_a_bias_to_one_sample(name, batch):
    model = plus_one_channel(JOINS[name], batch)
    models.plant(model, share=0.34)
    small = kr.prune(model, tau=0.999)
    assert small.get_layer("u").units == 6
    for x in np.random.default_rng(0).normal(size=(2, 1, 6, 5)):
        x = x.astype("float32")
        wanted, found = models.numpy(model(x)), models.numpy(small(x))
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("units", [5, 6])
@pytest.mark.parametrize("name", JOINS)
def test_kernels_behind_operands_that_changed_places_are_fitted(name, units):
    model = plus_one_channel(JOINS[name])
    data = np.random.default_rng(0).normal(size=(200, 6, 5)).astype("float32")
    cut = {"ratio": {"u": 1 - units / 9}, "data": data}
    wanted = model.predict(data, verbose=0)
    small, fitted = (
        kr.prune(model, **cut | more) for more in ({"mend": False}, {})
    )
    assert fitted.get_layer("u").units == units
    errors = [
        np.square(x.predict(data, verbose=0) - wanted).mean()
        for x in (small, fitted)
    ]
    assert errors[1] < errors[0]


def test_a_shared_layer_behind_both_operands_that_changed_places():
    """The calls are paired by what they read, not by their order."""
    inputs = keras.Input((6, 5)), keras.Input((6, 5))
    shared = layers.Dense(9, activation="relu", name="u")
    x, y = map(shared, inputs)
    x = layers.Flatten()(x + ops.max(y, axis=-1, keepdims=True))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    small = kr.prune(model, ratio={"u": 0.34})
    assert small.get_layer("u").units == 6
    calls = paired_calls(model, small, [None, None])
    ((one, other),) = [[x for x in calls if x.layer.name == "u"]]
    assert one.reads == one.new_reads == (0,)
    assert other.reads == other.new_reads == (1,)


@keras.saving.register_keras_serializable("tests")
class ByPosition(Positions):
    def build(self, shape):
        shape = 1, shape[1], 1
        self.numbers = self.add_weight(shape=shape, name="numbers")


@pytest.mark.parametrize("units", [5, 6])
def test_layers_of_ones_own_that_are_opened_in_one_model_only(units):
    inputs = keras.Input((6, 5))
    x = layers.Dense(9, activation="relu", name="u")(inputs)
    x = layers.Flatten()(ByPosition()(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    data = np.random.default_rng(0).normal(size=(200, 6, 5)).astype("float32")
    small = kr.prune(model, ratio={"u": 1 - units / 9}, data=data)
    assert small.get_layer("u").units == units
    wanted, found = (x.predict(data, verbose=0) for x in (model, small))
    assert np.square(found - wanted).mean() < 0.2 * wanted.var()
