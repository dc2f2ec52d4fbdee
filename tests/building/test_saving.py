"""Layers of one's own in smaller models: whether what is saved opens again."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.rule_checks import between


class Live(layers.Layer):
    """Its config holds a layer in place of the number it is made with."""

    def __init__(self, rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self._rate = rate

    def build(self, shape):
        self.dropout = layers.Dropout(self._rate)
        self.wide = layers.Dense(16, activation="relu", name="wide")
        self.out = layers.Dense(8, name="out")
        self.wide.build(shape)
        self.out.build((*shape[:-1], 16))

    def call(self, x):
        return self.out(self.dropout(self.wide(x)))

    def get_config(self):
        return {**super().get_config(), "rate": self.dropout}


class LiveAndClosed(Live):
    """It cannot be looked into: its call takes no symbols."""

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("no symbols")
        return super().call(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], 8), x.dtype)


class Numbers(layers.Layer):
    """Its constructor takes nothing of what every layer's does."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


def opened_again(model, path, *classes):
    model.save(path / "small.keras")
    custom = {cls.__name__: cls for cls in classes}
    again = keras.models.load_model(path / "small.keras", custom)
    models.assert_same_function(model, again)
    return again


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"ratio": {"top": 0.5}}])
def test_a_layer_that_does_not_open_again_goes_inline(options, tmp_path):
    model = models.randomized(between(Live(name="block")))
    small = kr.plan(model, **options).apply()
    assert not any(isinstance(x, Live) for x in small.layers)
    opened_again(small, tmp_path)


def test_a_layer_that_is_not_looked_into_is_warned_of():
    inputs = keras.Input((4,))
    x = layers.Dense(8, name="first")(inputs)
    x = LiveAndClosed(name="block")(x)
    x = layers.Dense(6, activation="relu", name="last")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    with pytest.warns(UserWarning, match=r"'block' \(LiveAndClosed\)"):
        small = kr.prune(model, ratio={"last": 0.5})
    x = np.ones((2, 4), "float32")
    assert small(x).shape == model(x).shape
    assert small.get_layer("last").units == 3


def test_a_constructor_that_takes_no_names(tmp_path):
    model = models.randomized(between(Numbers(3.0)))
    small = kr.plan(model, ratio=0).apply()
    again = opened_again(small, tmp_path, Numbers)
    assert any(isinstance(x, Numbers) for x in again.layers)
