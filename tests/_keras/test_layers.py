"""Layers and operations: what is in them, and copies of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_redundancy import _keras
from tests import models


def test_a_copied_operation_leaves_the_original_graph_alone():
    x = keras.Input((4,))
    operation = _keras.origin(keras.ops.leaky_relu(x, 0.3))
    before = len(operation._inbound_nodes)
    clone = _keras.copy_operation(operation)
    clone(keras.Input((7,)))
    assert len(operation._inbound_nodes) == before
    assert clone.negative_slope == 0.3


def test_an_operation_that_cannot_be_saved_is_copied():
    x = keras.Input((4, 5))
    operation = _keras.origin(ops.reshape(x, (-1, np.int64(20))))
    clone = _keras.copy_operation(operation)
    assert clone(keras.Input((4, 5))).shape == (None, 20)
    assert clone.name == operation.name


def test_a_copied_layer_has_its_own_place_for_layers():
    layer = layers.TimeDistributed(layers.Dense(3))
    clone = _keras.copy_operation(layer)
    clone.layer = clone.other = layers.Dense(4)
    assert _keras.attributes_of(layer)["layer"].units == 3
    assert _keras.attributes_of(clone)["layer"].units == 4
    assert "other" not in _keras.attributes_of(layer)


def test_layers_come_outer_first():
    model = models.nested()
    names = [layer.name for layer in _keras.flat_layers(model)]
    assert names[0] == "outer"
    assert names.index("inner") < names.index("innermost")


def test_layers_right_inside_of_a_layer():
    model = models.nested()
    right = _keras.flat_layers(model, recursive=False)
    assert right[0] is model
    assert "inner" in [layer.name for layer in right]
    assert "innermost" not in [layer.name for layer in right]


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_a_recurrent_layer_that_returns_every_step(kind):
    layer = kind(4, return_state=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    last, *_ = layer(x)
    every = _keras.returning_sequences(layer)(x)
    assert every.shape == (2, 5, 4)
    every, last = map(models.numpy, (every, last))
    np.testing.assert_allclose(every[:, -1], last, atol=1e-6)
    assert len(layer(x)) > 1  # The layer itself is what it was.
