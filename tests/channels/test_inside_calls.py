"""How layers made of layers, and nested models beside them, are called."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models, subclassed
from tests.rule_checks import assert_copies_go


@keras.saving.register_keras_serializable("tests")
class Mixer(layers.Layer):
    """Hides eight units, reads one tensor or two, and scales what it reads."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.wide = layers.Dense(8, "relu")
        self.other = layers.Dense(8, "relu")
        self.narrow = layers.Dense(5)

    def call(self, x, y, scales=1.0):
        return self.narrow(self.wide(x * scales) + self.other(y))


def summed(*tensors):
    """A model of one input that all `tensors` depend on."""
    inputs = keras.Input((6,))
    x, y = layers.Dense(9, "relu")(inputs), layers.Dense(9, "tanh")(inputs)
    made = [layers.Dense(3)(make(x, y)) for make in tensors]
    return models.randomized(keras.Model(inputs, layers.Add()(made)))


def two_inputs():
    """A model with inputs of two widths, not in the order of their names."""
    a, b = keras.Input((9,), name="b"), keras.Input((5,), name="a")
    x = layers.Dense(7, "relu")(a) + layers.Dense(7, "relu")(b)
    return keras.Model([a, b], x)


def same_twice():
    a, b = keras.Input((9,)), keras.Input((9,))
    x = layers.Dense(7, "relu")(a) + layers.Dense(7, "relu")(b)
    return keras.Model([a, b], x)


NESTED = {
    "one tensor for two inputs": lambda x, y, z: same_twice()([x, x]),
    "tensors by name": lambda x, y, z: two_inputs()({"a": z, "b": y}),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_nested_model_beside_a_block(name):
    mixer = Mixer()

    def both(x, y):
        z = mixer(x, y)
        return layers.Concatenate()([NESTED[name](x, y, z), z])

    assert_copies_go(summed(both))


def other_scales():
    """Too many for `repr` to show that they differ."""
    scales = np.ones((2, 1, 1200), "float32")
    scales[1, 0, 600] = 5.0
    return scales


SCALES = other_scales()
WAYS = {
    "one tensor, then two": (
        lambda mixer, x, y: mixer(x, x),
        lambda mixer, x, y: mixer(x, y),
    ),
    "two tensors, then one": (
        lambda mixer, x, y: mixer(x, y),
        lambda mixer, x, y: mixer(x, x),
    ),
    "other numbers": tuple(
        lambda mixer, x, y, scales=scales: mixer(
            layers.Dense(1200)(x), y, scales=scales
        )
        for scales in SCALES
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_block_that_is_called_in_several_ways_stays(name):
    mixer = Mixer()
    model = summed(
        *(lambda x, y, way=way: way(mixer, x, y) for way in WAYS[name])
    )
    plan = kr.plan(model, ratio=0.3)
    assert "it is called in several ways" in str(plan)
    models.assert_same_function(model, kr.plan(model, tau=1.0).apply())


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_block_that_reads_a_masked_tensor():
    """Keras hands the mask over as one more tensor."""
    words = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, 7, mask_zero=True)(words)
    x = layers.LSTM(6)(subclassed.FeedForward(12, name="block")(x))
    model = models.randomized(keras.Model(words, layers.Dense(2)(x)))
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("block").width < 12
    data = np.array([[1, 5, 3, 8], [7, 2, 0, 0], [4, 0, 6, 1]])
    models.assert_same_function(model, small, data)
