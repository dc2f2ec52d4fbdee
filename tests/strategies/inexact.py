"""Steps over all channels: where units go, the outputs change."""

from keras import layers, ops

from tests.strategies.tensors import even


def _layer_normalized(builder, x, y, width):
    return layers.LayerNormalization()(x)


def _group_normalized(builder, x, y, width):
    return layers.GroupNormalization(groups=2)(even(x))


def _softmax(builder, x, y, width):
    return ops.softmax(x)


def _centred(builder, x, y, width):
    return x - ops.mean(x, axis=-1, keepdims=True)


INEXACT = [_layer_normalized, _group_normalized, _softmax, _centred]
