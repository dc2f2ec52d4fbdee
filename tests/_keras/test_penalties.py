"""Keras asks a regularizer for a penalty: of which layer's variable?"""

import keras
import numpy as np
from keras import layers, ops

from keras_redundancy import _keras


class Asked(keras.regularizers.Regularizer):
    """Notes whose penalty it is asked for."""

    def __init__(self):
        self.found = []

    def __call__(self, x):
        self.found.append(_keras.penalized())
        return 0.0 * ops.sum(x)


def test_layers_and_their_variables_are_found_while_a_model_is_fitted():
    """One regularizer of two layers, one of them in a model in a wrapper."""
    asked = Asked()
    first = layers.Dense(3, kernel_regularizer=asked)
    inner = layers.Dense(3, kernel_regularizer=asked, bias_regularizer=asked)
    nested = keras.Sequential([keras.Input((3,)), layers.ReLU(), inner])
    model = keras.Sequential(
        [keras.Input((4, 2)), first, layers.TimeDistributed(nested)]
    )
    model.compile("sgd", "mse")
    model.fit(np.zeros((2, 4, 2)), np.zeros((2, 4, 3)), verbose=0)
    asked_by_keras = [
        (first, first.kernel),
        (inner, inner.kernel),
        (inner, inner.bias),
    ]
    traced = [tuple(map(id, pair)) for pair in asked.found]
    expected = [tuple(map(id, pair)) for pair in asked_by_keras]
    assert traced == expected * (len(traced) // 3)
    asked.found.clear()
    assert len(nested.losses) == 2
    assert [pair[0] for pair in asked.found] == [inner, inner]


def test_a_kernel_belongs_to_the_layer_inside_of_a_wrapper_that_holds_it():
    asked = Asked()
    layer = layers.Dense(3, kernel_regularizer=asked)
    wrapper = layers.SpectralNormalization(layer)
    wrapper.build((None, 2))
    assert wrapper.kernel is layer.kernel
    assert len(wrapper.losses) == 1
    assert asked.found[0][0] is layer


def test_no_layer_is_found_for_a_call_by_hand():
    asked = Asked()
    layer = layers.Dense(3, kernel_regularizer=asked)
    layer.build((None, 2))
    layer.kernel_regularizer(layer.kernel)
    assert asked.found == [None]


def test_no_layer_is_found_where_keras_calls_in_another_way(monkeypatch):
    asked = Asked()
    layer = layers.Dense(3, kernel_regularizer=asked)
    layer.build((None, 2))

    def losses(self):
        return [x.regularizer(x) for x in self.weights if x.regularizer]

    monkeypatch.setattr(keras.Layer, "_get_regularization_losses", losses)
    assert len(layer.losses) == 1
    monkeypatch.delattr(keras.Layer, "_get_regularization_losses")
    layer.kernel_regularizer(layer.kernel)
    assert asked.found == [None, None]
