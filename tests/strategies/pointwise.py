"""Steps on one tensor, channel by channel."""

import keras
from keras import layers, ops

from tests.strategies.tensors import array, positions_of


@keras.saving.register_keras_serializable(__name__)
class Shuffled(keras.layers.Layer):
    """A layer that no rule knows: it turns the channels round."""

    def call(self, x):
        return ops.flip(x, axis=-1)


def _bent(builder, x, y, width):
    activation = ["tanh", "sigmoid", "softplus", "selu"][width % 4]
    return layers.Activation(activation)(x)


def _prelu(builder, x, y, width):
    return layers.PReLU(shared_axes=[1])(x)


def _normalized_behind(builder, x, y, width):
    return layers.BatchNormalization()(layers.ReLU()(x))


def _normalized_twice(builder, x, y, width):
    """Two BatchNormalizations read the same sums."""
    a, b = (layers.BatchNormalization()(x) for _ in range(2))
    return layers.Concatenate()([layers.ReLU()(a), ops.tanh(b)])


def _per_channel(builder, x, y, width):
    letters = "ab"[: len(x.shape) - 2]
    return layers.EinsumDense(
        f"x{letters}c,c->x{letters}c",
        output_shape=x.shape[1:],
        bias_axes="c",
        activation="relu",
    )(x)


def _factors(builder, x, y, width):
    """Constants per channel, on the left and on the right."""
    shift, factor = array(x.shape[-1]), 1.5 + abs(array(x.shape[-1]))
    return ops.add(shift, x * factor) / factor


def _scaled(builder, x, y, width):
    return ops.add(0.5 * x, 0.25)


def _arrays(builder, x, y, width):
    x = ops.maximum(array(x.shape[-1]), x) - array(*x.shape[1:-1], 1)
    return ops.where(array(x.shape[-1]) > 0, ops.tanh(x), x)


def _instance_normalized(builder, x, y, width):
    return layers.GroupNormalization(groups=-1)(x)


def _unknown(builder, x, y, width):
    return Shuffled()(x)


def _softmax_over_positions(builder, x, y, width):
    return ops.softmax(x, axis=1) * x


def _standardised(builder, x, y, width):
    mean = ops.mean(x, axis=positions_of(x), keepdims=True)
    return (x - mean) / (ops.std(x, axis=1, keepdims=True) + 1)


POINTWISE = [
    _bent,
    _prelu,
    _normalized_behind,
    _normalized_twice,
    _per_channel,
    _factors,
    _scaled,
    _arrays,
    _instance_normalized,
    _unknown,
    _softmax_over_positions,
    _standardised,
]


# Of these, f with f(s x) = s f(x) for s > 0, and kernels.
HOMOGENEOUS = [
    _normalized_behind,
    _prelu,
    _per_channel,
    _factors,
]
