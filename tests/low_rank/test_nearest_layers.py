"""Which layers read a model's inputs or make its outputs.

Of these `factorize` and `apply_rare` leave inputs or units as they are.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests.low_rank_models import factorized_layers


def test_ends_of_a_graph():
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(2.0)(inputs)
    x = a = layers.Conv2D(4, 3, padding="same", name="first")(x)
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(4, 1, name="inner")]
    )
    x = layers.Add()([inner(x), a])
    x = layers.GlobalAveragePooling2D()(x)
    outputs = [layers.Dense(2, name=name)(x) for name in ("left", "right")]
    extra = layers.Dense(2, name="around")(layers.Flatten()(inputs))
    outputs.append(layers.Softmax()(extra))
    model = kr.factorize(keras.Model(inputs, outputs))
    found = {x.name: x.vectors for x in factorized_layers(model)}
    assert found == {
        "first": "units",
        "inner": "both",
        "left": "inputs",
        "right": "inputs",
    }
    assert type(model.get_layer("around")) is layers.Dense


def vectors_of(model):
    return {x.name: x.vectors for x in factorized_layers(kr.factorize(model))}


def dense(name, units=6):
    return layers.Dense(units, activation="relu", name=name)


def test_what_is_nearest_is_found_through_models():
    """Call by call, where these have no kernels of their own."""
    inputs = keras.Input((5, 6))
    noise = [keras.Input((5, 6)), layers.GaussianNoise(0.1)]
    x = keras.Sequential([keras.Sequential(noise), layers.ReLU()])(inputs)
    x = layers.TimeDistributed(keras.Sequential([dense("a"), dense("b")]))(x)
    inner = keras.Sequential([keras.Input((5, 6)), dense("c"), dense("d")])
    x = inner(inner(x))
    end = [keras.Input((5, 4)), layers.Dropout(0.1), layers.Softmax()]
    x = keras.Sequential(end)(dense("e", 4)(x))
    assert vectors_of(keras.Model(inputs, x)) == {
        "a": "units",
        "b": "both",
        "c": "both",
        "d": "both",
        "e": "inputs",
    }
    x = layers.Dense(4, name="e")(inner(inner(inputs)))
    assert vectors_of(keras.Model(inputs, x)) == {
        "c": "units",
        "d": "both",
        "e": "inputs",
    }


def test_what_is_nearest_to_each_of_several_inputs():
    """Models with several inputs hand each to the layers that read it."""
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    parts = {"a": dense("of_a")(a), "b": dense("of_b")(b)}
    inner = keras.Model({"a": a, "b": b}, parts)
    left, right = keras.Input((6,)), keras.Input((6,))
    parts = inner({"b": dense("hidden")(right), "a": left})
    x = dense("mixed")(layers.Concatenate()([parts["a"], parts["b"]]))
    outputs = [x, dense("top")(x)]
    found = vectors_of(keras.Model([left, right], outputs))
    assert found == {
        "hidden": "units",
        "of_a": "units",
        "of_b": "both",
        "mixed": "inputs",
        "top": "inputs",
    }


def test_scales_and_noise_outputs_make_no_units():
    """They have variables of several axes, but of one channel each."""
    inputs = keras.Input((4, 4, 3))
    normalized = layers.Normalization(axis=(1, 2, 3))
    normalized.adapt(np.random.default_rng(0).random((9, 4, 4, 3)))
    x = layers.Conv2D(4, 3, name="first")(normalized(inputs))
    x = layers.Conv2D(4, 1, name="second")(layers.PReLU()(x))
    x = layers.LayerNormalization(axis=(1, 2, 3))(x)
    x = kr.NoiseOutputs(3)(dense("last")(layers.Flatten()(x)))
    expected = {"first": "units", "second": "both", "last": "inputs"}
    assert vectors_of(keras.Model(inputs, x)) == expected


def test_an_embedding_makes_what_is_read_behind_it():
    inputs = keras.Input((5,))
    x = layers.Flatten()(layers.Embedding(9, 4)(inputs))
    model = keras.Model(inputs, dense("last")(dense("first")(x)))
    assert vectors_of(model) == {"first": "both", "last": "inputs"}


@keras.saving.register_keras_serializable(__name__)
class Block(layers.Layer):
    """Makes a layer of its own, which is not made anew by itself."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, layers.Dense(units, name="inside")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_layers_inside_of_others_take_no_share():
    blocks = [dense("a"), Block(6), dense("b"), dense("c")]
    model = keras.Sequential([keras.Input((6,)), *blocks])
    assert list(vectors_of(model)) == ["a", "b", "c"]
    found = kr.apply_rare(model, 30.0).layers
    strengths = [found[i].kernel_regularizer.strength for i in (0, 2, 3)]
    np.testing.assert_allclose(strengths, 10)
    with pytest.raises(ValueError, match="matches no layer"):
        kr.factorize(model, layers="inside")
