"""Functions of every number alone: activations, dropout, casts."""

import keras
import numpy as np
from keras import layers

from keras_redundancy._keras import (
    ReLUOperation,
    core_operations as core,
    math_operations,
    nn_operations as nn,
    numpy_operations as ops,
)
from keras_redundancy._shared.named import named
from keras_redundancy.channels.activations import activation_name
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import Reason, of_call
from keras_redundancy.channels.rules.registry import (
    axes_of,
    for_classes,
    rule,
    with_batch_axis,
    with_numbers,
)

NORMALIZES = of_call(
    "normalized_over_channels", "normalises over the channels ({what})"
)
NOT_ALONE = Reason(
    "unknown_activation",
    "the activation {what} of {name} ({kind}) is not known to act on every "
    "channel alone: {found}",
)
NOISE_SHAPE = of_call("fixed_noise_shape", "has a fixed noise_shape")
CLIPS = of_call(
    "array_of_bounds",
    "has an array of bounds: use keras.ops.minimum and maximum, which can be "
    "followed",
)


def behaviour(call, activation, axis):
    """The `Behaviour` of an activation function on what a call returns."""
    shape = call.outputs[0].shape
    return call.recorder.behaviours.of(activation, shape, axis)


def activated(call, ids, activation, axis):
    """Labels after an activation function, frozen if it mixes channels."""
    found = behaviour(call, activation, axis)
    if found.kind.is_homogeneous:
        return ids
    what = activation_name(activation)
    if found.kind.is_normalizing:
        call.inexact(NORMALIZES, ids, what=what)
    elif not found.kind.is_channelwise:
        call.freeze(NOT_ALONE, ids, what=what, found=found.reason)
        return ids
    return call.tied(ids)


@rule.register(layers.Activation)
@with_batch_axis
def _activation(layer, call):
    x, activation = call.inputs[0], layer.activation
    found = behaviour(call, activation, x.axis)
    if found.kind.is_channelwise or found.kind.is_normalizing:
        return Channels(activated(call, x.ids, activation, x.axis), x.axis)
    what = activation_name(activation)
    return call.opaque(NOT_ALONE, what=what, found=found.reason)


@rule.register(nn.Glu)
def _glu(operation, call):
    """The halves of an axis are multiplied, channel by channel."""
    x = call.inputs[0]
    axis = operation.axis % len(x.shape)
    halves = np.split(x.ids, 2) if axis == x.axis else [x.ids]
    return Channels(call.tied(*halves), x.axis)


@for_classes(layers.Softmax, nn.Softmax, nn.LogSoftmax, nn.Sparsemax)
@with_batch_axis
def _softmax(operation, call):
    x = call.inputs[0]
    if x.axis in axes_of(getattr(operation, "axis", -1), x):
        call.inexact(NORMALIZES, x.ids, what="softmax")
    return Channels(call.tied(x.ids), x.axis)


@for_classes(layers.ReLU, ReLUOperation)
@with_batch_axis
@with_numbers
def _relu(operation, call):
    """The layer, and what `keras.activations.relu` calls."""
    homogeneous = operation.max_value is None and not operation.threshold
    return unchanged(operation, call) if homogeneous else bent(operation, call)


@rule.register(layers.PReLU)
def _prelu(layer, call):
    x = call.inputs[0]
    if x.axis and layer.alpha.shape[x.axis - 1] == len(x.ids):
        call.carried_by(layer.alpha, x.axis - 1, x.ids, acts="bends")
    return x


@rule.register(ops.Clip)
@with_batch_axis
def _clip(operation, call):
    if np.ndim(operation.x_min) or np.ndim(operation.x_max):
        return call.opaque(CLIPS)
    return bent(operation, call)


@rule.register(core.Cast)
@rule.register(core.ConvertToTensor)
@with_batch_axis
@with_numbers
def _cast(operation, call):
    """Not homogeneous to integers: int(3 x) is not always 3 int(x)."""
    dtype = operation.dtype or call.outputs[0].dtype
    floating = keras.backend.is_float_dtype(dtype)
    return unchanged(operation, call) if floating else bent(operation, call)


@for_classes(layers.AlphaDropout, layers.Dropout)
@with_batch_axis
def _dropout(layer, call):
    x = call.inputs[0]
    if layer.noise_shape and layer.noise_shape[x.axis] not in (None, 1):
        return call.opaque(NOISE_SHAPE)
    return x


@for_classes(
    layers.ELU,
    *named(math_operations, "Erf Erfc Erfinv Rsqrt"),
    *named(
        nn,
        """
        Celu Elu Gelu HardShrink HardSigmoid HardSilu HardTanh LogSigmoid Relu6
        Selu Sigmoid Silu SoftShrink Softplus Softsign SparsePlus SparseSigmoid
        Squareplus TanhShrink Threshold
        """,
    ),
    *named(
        ops,
        """
        Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cbrt Ceil Cos Cosh Exp Exp2
        Expm1 Floor Isfinite Isinf Isnan Log Log10 Log1p Log2 LogicalNot
        NanToNum OnesLike Reciprocal Round Sign Sin Sinc Sinh Sqrt Square Tan
        Tanh Trunc ZerosLike
        """,
    ),
)
@with_batch_axis
@with_numbers
def bent(operation, call):
    """Every channel on its own, but f(s x) is not s f(x)."""
    x = call.inputs[0]
    return Channels(call.tied(x.ids), x.axis)


@for_classes(
    core.StopGradient,
    *named(layers, "ActivityRegularization GaussianDropout GaussianNoise"),
    *named(layers, "Identity LeakyReLU"),
    *named(nn, "LeakyRelu Relu"),
    *named(ops, "Absolute Copy Negative"),
)
@with_batch_axis
@with_numbers
def unchanged(operation, call):
    """Every channel on its own; at inference f(s x) = s f(x) for s > 0."""
    return call.inputs[0]
