"""Layers of one's own that normalise by operations of Keras."""

import keras
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.rule_checks import assert_copies_go


def standardized(x, mean, variance):
    return (x - mean) / ops.sqrt(variance + 1e-3)


# Keras gives JAX a list of axes, which it does not take.
NORM = pytest.param(
    "norm",
    marks=pytest.mark.skipif(
        keras.backend.backend() == "jax", reason="Keras fails at it"
    ),
)
# Functions of a tensor (batch, positions, channels), a scale and a shift.
EXACT = {
    "batch": lambda x, scale, shift: ops.batch_normalization(
        x, shift, ops.square(scale), axis=-1, offset=shift, scale=scale
    ),
    "moments": lambda x, scale, shift: (
        scale * standardized(x, *ops.moments(x, axes=[1], keepdims=True))
        + shift
    ),
    "norm": lambda x, scale, shift: (
        x / (1 + ops.norm(x, axis=1, keepdims=True)) * scale + shift
    ),
}
OVER_CHANNELS = {
    "layer": lambda x, scale, shift: ops.layer_normalization(
        x, gamma=scale, beta=shift, epsilon=1e-3
    ),
    "rms": lambda x, scale, shift: (
        ops.rms_normalization(x, scale, epsilon=1e-3) + shift
    ),
    "moments": lambda x, scale, shift: (
        scale * standardized(x, *ops.moments(x, axes=[-1], keepdims=True))
        + shift
    ),
    "norm": lambda x, scale, shift: (
        x / (1 + ops.norm(x, axis=-1, keepdims=True)) * scale + shift
    ),
}
WAYS = {
    **EXACT,
    **{f"{way}, over channels": f for way, f in OVER_CHANNELS.items()},
    "layer, other weights": lambda x, scale, shift: ops.layer_normalization(
        x + shift, gamma=ops.ones(8), beta=None
    ),
}


@keras.saving.register_keras_serializable(__name__)
class Normalizes(layers.Layer):
    def __init__(self, way, **options):
        super().__init__(**options)
        self.way = way

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale")
        self.shift = self.add_weight(shape=shape[-1:], name="shift")

    def call(self, x):
        return WAYS[self.way](x, self.scale, self.shift)

    def get_config(self):
        return super().get_config() | {"way": self.way}


def normalized(layer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5))
    x = layer(layers.Dense(8, name="before")(inputs))
    outputs = layers.Dense(3, name="top")(layers.Flatten()(x))
    return models.randomized(keras.Model(inputs, outputs))


@pytest.mark.parametrize("way", ["batch", "moments", NORM])
def test_copies_go_where_each_channel_is_alone(way, tmp_path):
    graph = assert_copies_go(normalized(Normalizes(way)), tmp_path)
    assert [space.size for space in graph.prunable] == [8]


@pytest.mark.parametrize("way", ["layer", "rms", "moments", NORM])
def test_over_channels_they_stay_unless_inexact_is_allowed(way):
    model = normalized(Normalizes(f"{way}, over channels"))
    (reason,) = (
        space.frozen for space in kr.trace(model).spaces if space.size == 8
    )
    assert "allow_inexact=True" in reason
    small = kr.prune(model, ratio=0.5, allow_inexact=True)
    assert small.count_params() < model.count_params()


def test_what_goes_inexactly_is_what_goes_from_the_layer():
    stock = normalized(layers.LayerNormalization(epsilon=1e-3))
    own = normalized(Normalizes("layer, over channels"))
    own.set_weights(stock.get_weights())
    small = [
        kr.prune(x, kr.L1(), ratio=0.5, absorb="drop", allow_inexact=True)
        for x in (stock, own)
    ]
    assert small[0].count_params() == small[1].count_params()
    models.assert_same_function(*small)


def test_arrays_in_place_of_weights_freeze():
    model = normalized(Normalizes("layer, other weights"))
    graph = kr.trace(model)
    assert graph.prunable == []
    reasons = [space.frozen for space in graph.spaces]
    assert any("arrays, or with weights" in reason for reason in reasons)
