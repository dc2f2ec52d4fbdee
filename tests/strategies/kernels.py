"""Steps with a kernel: convolutions, Dense, nested models."""

import keras
import numpy as np
from keras import layers, ops

from tests.strategies.tensors import (
    JAX,
    array,
    convolution,
    even,
    halves_in_turn,
    like,
    mean_of,
    of_rank,
)


def _dense(builder, x, y, width):
    return layers.Dense(width, activation="gelu")(x)


def _convolution(builder, x, y, width):
    return convolution(x, width, activation="relu")


def _dilated(builder, x, y, width):
    return convolution(x, width, dilation_rate=2, activation="tanh")


def _normalized(builder, x, y, width):
    x = convolution(x, width, use_bias=False)
    return layers.ReLU()(layers.BatchNormalization()(x))


def _grouped(builder, x, y, width):
    return convolution(even(x), 2 * width, groups=2, activation="relu")


def _grouped_and_shuffled(builder, x, y, width):
    x = convolution(even(x), 4 * (width // 2), groups=2)
    return convolution(halves_in_turn(x), 2 * width, groups=2)


def _separable(builder, x, y, width):
    kind = of_rank(x, "SeparableConv{}D")
    return kind(width, 3, padding="same", depth_multiplier=2)(x)


def _depthwise(builder, x, y, width):
    multiplier = 2 if x.shape[-1] < 10 else 1
    kind = of_rank(x, "DepthwiseConv{}D")
    x = kind(3, padding="same", depth_multiplier=multiplier)(x)
    return layers.LeakyReLU()(x)


def _one_group_per_channel(builder, x, y, width):
    return convolution(x, x.shape[-1], groups=x.shape[-1])


def _transposed_kernel(builder, x, y, width):
    kind = of_rank(x, "Conv{}DTranspose")
    return kind(width, 3, padding="same", activation="relu")(x)


def _upsampled(builder, x, y, width):
    """Each output of a strided kernel reads a part of it."""
    kind = of_rank(x, "Conv{}DTranspose")
    x = kind(width, 4, strides=2, padding="same")(x)
    return of_rank(x, "AveragePooling{}D")(2)(x)


def _two_output_axes(builder, x, y, width):
    shape = x.shape[1:-1]
    letters = "ab"[: len(shape)]
    x = layers.EinsumDense(
        f"x{letters}c,cde->x{letters}de", output_shape=(*shape, 2, width)
    )(x)
    return layers.Reshape((*shape, 2 * width))(x)


def _shared(builder, x, y, width):
    key = "shared", x.shape[-1]
    layer = builder.shared(key, lambda: layers.Dense(width, "relu"))
    return layer(x)


def _units_to_positions(builder, x, y, width):
    """A Dense layer whose units become channels at all positions."""
    shape = x.shape[1:-1]
    x = layers.Dense(int(np.prod(shape)) * width, "tanh")(mean_of(x))
    return layers.Reshape((*shape, width))(x)


def _inner(shape, width):
    inputs = keras.Input(shape)
    x = layers.LeakyReLU()(convolution(inputs, width)) * array(width)
    y = ops.split(even(x), 2, axis=-1)[0]
    return keras.Model(inputs, layers.Concatenate()([x, y]))


def _nested(builder, x, y, width):
    return _inner(x.shape[1:], width)(x)


def _nested_and_shared(builder, x, y, width):
    key = "inner", x.shape[-1]
    inner = builder.shared(key, lambda: _inner(x.shape[1:], width))
    x, y = inner(x), inner(like(x, y))
    return convolution(x, width) + convolution(y, width)


def _nested_in_nested(builder, x, y, width):
    inputs = keras.Input(x.shape[1:])
    inner = keras.Sequential(
        [
            keras.Input((*x.shape[1:-1], None)),
            layers.Activation("tanh"),
            layers.Dropout(0.2),
        ]
    )
    middle = keras.Model(inputs, _nested(builder, inner(inputs), y, width))
    return inner(middle(x))


def _channels_first(builder, x, y, width):
    """On JAX alone with convolutions: TensorFlow has none on a CPU."""
    first = {"data_format": "channels_first"}
    x = ops.moveaxis(x, -1, 1)
    if JAX:
        kind = of_rank(x, "Conv{}D")
        x = kind(width, 3, padding="same", activation="tanh", **first)(x)
    x = layers.BatchNormalization(axis=1)(x)
    shape = (x.shape[1], *[1] * (len(x.shape) - 2))
    return ops.moveaxis(x * array(*shape), 1, -1)


KERNELS = [
    _dense,
    _convolution,
    _dilated,
    _normalized,
    _grouped,
    _grouped_and_shuffled,
    _separable,
    _depthwise,
    _one_group_per_channel,
    _transposed_kernel,
    _upsampled,
    _two_output_axes,
    _shared,
    _units_to_positions,
    _nested,
    _nested_and_shared,
    _nested_in_nested,
    _channels_first,
]


# Of these, f with f(s x) = s f(x) for s > 0, and kernels.
HOMOGENEOUS = [
    _convolution,
    _normalized,
    _grouped,
    _depthwise,
    _upsampled,
    _two_output_axes,
]
