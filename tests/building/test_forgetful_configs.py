"""Layers whose `get_config` leaves out an argument of their constructor."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


@keras.saving.register_keras_serializable(__name__)
class Times(layers.Layer):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * np.array(self.factor, "float32").sum()

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable(__name__)
class TimesWeight(Times):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale")

    def call(self, x):
        return super().call(x) * self.scale


@keras.saving.register_keras_serializable(__name__)
class TimesDense(layers.Dense):
    def __init__(self, units, factor=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.factor = factor

    def call(self, x):
        return super().call(x) * self.factor


def around(layer):
    inputs = keras.Input((5,))
    x = layers.Dense(9, activation="relu")(inputs)
    x = layer(layers.Dense(6)(x))
    return models.randomized(keras.Model(inputs, layers.Dense(2)(x)))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Times(3.0),
        lambda: Times((1.0, 2.0)),
        lambda: TimesWeight(np.float32(3.0)),
        lambda: TimesDense(6, 3.0),
    ],
)
def test_the_new_layer_has_what_its_config_leaves_out(layer, tmp_path):
    model = around(layer())
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    assert small.count_params() < model.count_params()
    models.assert_same_function(model, small)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)


def test_a_layer_with_a_rule_is_refused():
    class Known(Times):
        pass

    kr.register_rule(Known, lambda layer, call: call.inputs[0])
    with pytest.raises(ValueError, match="leaves out factor"):
        kr.prune(around(Known(3.0)), ratio=0.5)
    kr.prune(around(Known()), ratio=0.5)
