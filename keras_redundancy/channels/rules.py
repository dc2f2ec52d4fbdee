"""One rule per layer family: what a layer does with its channels.

A rule takes the operation and its `CallTrace`, and returns the labels of what
comes out. Rules are looked up by class, so subclasses inherit them, unless
they override what the class computes: the rule was written for that.
"""

import functools
import math

import numpy as np
from keras import activations, layers

from keras_redundancy import _keras_internals as internals
from keras_redundancy.channels.labels import Channels

ELEMENTWISE = {
    activations.celu,
    activations.elu,
    activations.exponential,
    activations.gelu,
    activations.hard_shrink,
    activations.hard_sigmoid,
    activations.hard_silu,
    activations.hard_tanh,
    activations.leaky_relu,
    activations.linear,
    activations.log_sigmoid,
    activations.mish,
    activations.relu,
    activations.relu6,
    activations.selu,
    activations.sigmoid,
    activations.silu,
    activations.soft_shrink,
    activations.softplus,
    activations.softsign,
    activations.sparse_plus,
    activations.sparse_sigmoid,
    activations.squareplus,
    activations.tanh,
    activations.tanh_shrink,
    activations.threshold,
}
HOMOGENEOUS = {activations.linear, activations.relu, activations.leaky_relu}
ACROSS_CHANNELS = {
    activations.softmax,
    activations.log_softmax,
    activations.sparsemax,
    activations.glu,
}

# What a subclass may redefine and still compute the same.
HARMLESS = {
    "build",
    "build_from_config",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_build_config",
    "get_config",
}

NO_RULE = "there is no rule for {name} ({kind})"
OVERRIDES = (
    "{name} ({kind}) overrides {what} of {known}, for which the rule was "
    "written"
)
OPEN_CHANNELS = "{name} ({kind}) reads a tensor with an open channel size"
MIXES = "{name} ({kind}) mixes the channels ({what})"
UNKNOWN_ACTIVATION = (
    "the activation {what} of {name} ({kind}) is not known to act on every "
    "channel alone"
)
GROUPED = "{name} ({kind}) is a grouped convolution"
BROADCASTS = "{name} ({kind}) combines tensors whose channels do not line up"
CONSTANT = "{name} ({kind}) has a constant array operand of a fixed width"
MOVES_CHANNELS = "{name} ({kind}) does not keep the channel axis"
OTHER_NORMALIZED_AXIS = "{name} ({kind}) normalises another axis"
NOISE_SHAPE = "{name} ({kind}) has a fixed noise_shape"


@functools.singledispatch
def rule(operation, call):
    """What `operation` does with channels: the default says it is unknown."""
    return _opaque(call, NO_RULE)


def apply_rule(operation, call):
    """Labels of what a call returns, by the rule for the operation's class."""
    kind = type(operation)
    known = next(cls for cls in kind.__mro__ if cls in rule.registry)
    what = _overridden(kind, known)
    if what and known is not object:
        return _opaque(call, OVERRIDES, what=what, known=known.__name__)
    for x, tensor in zip(call.inputs, call.tensors, strict=True):
        if len(tensor.shape) < 2 or tensor.shape[x.axis] is None:
            return _opaque(call, OPEN_CHANNELS)
    return rule.dispatch(kind)(operation, call)


def _overridden(kind, known):
    """Names that a subclass redefines and that can change what is computed."""
    between = kind.__mro__[: kind.__mro__.index(known)]
    names = {name for cls in between for name in vars(cls)}
    return ", ".join(
        sorted(
            name
            for name in names - HARMLESS
            if hasattr(known, name) and not name.startswith(("__", "_api"))
        )
    )


def _opaque(call, reason, **words):
    return call.opaque(_say(call, reason, **words))


def _say(call, reason, **words):
    return reason.format(name=call.operation.name, kind=call.kind, **words)


def _positions(shape):
    """How many positions a tensor of these open-or-known sizes has."""
    return None if None in shape else math.prod(shape)


# --- layers with a kernel ---------------------------------------------------


@rule.register(layers.Dense)
def _dense(layer, call):
    call.read_by(layer.kernel, 0, call.labels_on(-1))
    units = call.written_by(layer.kernel, 1)
    call.counted_in("units", ids=units)
    call.carried_by(layer.bias, 0, units)
    shape = call.outputs[0].shape
    call.multiplies(layer.kernel, _positions(shape[1:-1]))
    units = _activated(call, units, layer.activation)
    return Channels(units, len(shape) - 1)


@rule.register(layers.Conv1D)
@rule.register(layers.Conv2D)
@rule.register(layers.Conv3D)
def _convolution(layer, call):
    rank = len(call.outputs[0].shape)
    axis = 1 if layer.data_format == "channels_first" else rank - 1
    sizes = [n for i, n in enumerate(call.outputs[0].shape) if i != axis]
    call.multiplies(layer.kernel, _positions(sizes[1:]))
    if layer.groups > 1:
        return _opaque(call, GROUPED)
    call.read_by(layer.kernel, -2, call.labels_on(axis))
    filters = call.written_by(layer.kernel, -1)
    call.counted_in("filters", ids=filters)
    call.carried_by(layer.bias, 0, filters)
    return Channels(_activated(call, filters, layer.activation), axis)


def _activated(call, ids, activation):
    """Labels behind an activation function; frozen where it mixes them."""
    if activation is None or activation in HOMOGENEOUS:
        return ids
    if activation in ELEMENTWISE:
        return call.tied(ids)
    what = getattr(activation, "__name__", repr(activation))
    mixes = activation in ACROSS_CHANNELS
    reason = _say(call, MIXES if mixes else UNKNOWN_ACTIVATION, what=what)
    call.freeze(reason, ids)
    return ids


# --- per channel, with weights ----------------------------------------------


@rule.register(layers.BatchNormalization)
def _batch_normalization(layer, call):
    x = call.inputs[0]
    rank = len(call.tensors[0].shape)
    if not isinstance(layer.axis, int) or layer.axis % rank != x.axis:
        return _opaque(call, OTHER_NORMALIZED_AXIS)
    for variable in layer.weights:
        call.carried_by(variable, 0, x.ids)
    if call.arguments[1].get("training"):
        # Normalised by the batch: the moving variance says nothing of it.
        return Channels(call.tied(x.ids), x.axis)
    ids = call.normalized(
        x.ids,
        layer.gamma if layer.scale else None,
        layer.moving_variance,
        layer.epsilon,
    )
    return Channels(ids, x.axis)


# --- per channel, without weights -------------------------------------------


@rule.register(layers.Activation)
def _activation(layer, call):
    activation = layer.activation
    if activation in ELEMENTWISE:
        x = call.inputs[0]
        return Channels(_activated(call, x.ids, activation), x.axis)
    what = getattr(activation, "__name__", repr(activation))
    mixes = activation in ACROSS_CHANNELS
    return _opaque(call, MIXES if mixes else UNKNOWN_ACTIVATION, what=what)


@rule.register(layers.Softmax)
def _softmax(layer, call):
    return _opaque(call, MIXES, what="softmax")


@rule.register(layers.ReLU)
def _relu(layer, call):
    homogeneous = layer.max_value is None and not layer.threshold
    return _unchanged(layer, call) if homogeneous else _bent(layer, call)


def _bent(operation, call):
    """Every channel on its own, but f(s x) is not s f(x)."""
    x = call.inputs[0]
    return Channels(call.tied(x.ids), x.axis)


def _unchanged(operation, call):
    """Every channel on its own; at inference f(s x) = s f(x) for s > 0."""
    return call.inputs[0]


for _class in (layers.ELU, *internals.ELEMENTWISE_OPERATIONS):
    rule.register(_class)(_bent)

for _class in (
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    *internals.HOMOGENEOUS_OPERATIONS,
):
    rule.register(_class)(_unchanged)


@rule.register(layers.Dropout)
def _dropout(layer, call):
    x = call.inputs[0]
    if layer.noise_shape and layer.noise_shape[x.axis] not in (None, 1):
        return _opaque(call, NOISE_SHAPE)
    return x


def _spatial(layer, call):
    """Works on the spatial axes alone, those that its data_format leaves."""
    first = getattr(layer, "data_format", None) == "channels_first"
    axis = 1 if first else len(call.tensors[0].shape) - 1
    return Channels(call.labels_on(axis), axis)


for _class in (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
):
    rule.register(_class)(_spatial)


def _global_pooling(layer, call):
    rank = len(call.tensors[0].shape)
    axis = 1 if layer.data_format == "channels_first" else rank - 1
    return Channels(call.labels_on(axis), axis if layer.keepdims else 1)


for _class in (
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
):
    rule.register(_class)(_global_pooling)


# --- shapes -----------------------------------------------------------------


@rule.register(layers.Flatten)
def _flatten(layer, call):
    x, shape = call.inputs[0], list(call.tensors[0].shape[1:])
    axis = x.axis - 1
    if None in shape:
        return _opaque(call, OPEN_CHANNELS)
    if len(shape) == 1:
        return x
    places = math.prod(shape) // shape[axis]
    ids = np.stack([call.copied(x.ids) for _ in range(places)])
    others = shape[:axis] + shape[axis + 1 :]
    ids = np.moveaxis(ids.reshape(*others, shape[axis]), -1, axis)
    if layer.data_format == "channels_first" and len(shape) > 1:
        ids = np.moveaxis(ids, 0, -1)
    return Channels(ids.reshape(-1), 1)


@rule.register(layers.Reshape)
def _reshape(layer, call):
    """Kept where the last axis is the channels', before and after."""
    x, before = call.inputs[0], call.tensors[0].shape
    after = call.outputs[0].shape
    channels_last = x.axis == len(before) - 1
    if not channels_last or after[-1] != before[-1] or len(after) < 2:
        return _opaque(call, MOVES_CHANNELS)
    if layer.target_shape[-1] != -1:
        call.counted_in("target_shape", len(after) - 2, ids=x.ids)
    elif len(after) > 2 and None in before[1:-1]:
        return _opaque(call, MOVES_CHANNELS)
    return Channels(x.ids, len(after) - 1)


# --- several inputs ---------------------------------------------------------


@rule.register(layers.Add)
@rule.register(layers.Average)
@rule.register(layers.Maximum)
@rule.register(layers.Minimum)
@rule.register(layers.Multiply)
@rule.register(layers.Subtract)
def _combined(operation, call):
    """Channel i of the result is made from the channels i of all inputs."""
    x = call.inputs[0]
    rank = len(call.outputs[0].shape)
    same = all(
        y.axis == x.axis and len(y.ids) == len(x.ids) and len(t.shape) == rank
        for y, t in zip(call.inputs, call.tensors, strict=True)
    )
    if not same:
        return _opaque(call, BROADCASTS)
    return Channels(call.tied(*(y.ids for y in call.inputs)), x.axis)


def _combined_operands(operation, call):
    """The same for `x + y` and keras.ops, where an operand can be a number."""
    args, kwargs = call.arguments
    operands = [*args, *kwargs.values()]
    for operand in operands:
        if not hasattr(operand, "_keras_history") and np.size(operand) > 1:
            return _opaque(call, CONSTANT)
    return _combined(operation, call)


for _class in internals.ELEMENTWISE_COMBINATIONS:
    rule.register(_class)(_combined_operands)


@rule.register(layers.Concatenate)
@rule.register(internals.CONCATENATE)
def _concatenate(operation, call):
    x = call.inputs[0]
    rank = len(call.tensors[0].shape)
    args, kwargs = call.arguments
    joined = args[0] if args else next(iter(kwargs.values()))
    if len(call.inputs) < len(joined):
        return _opaque(call, CONSTANT)
    if any(y.axis != x.axis for y in call.inputs):
        return _opaque(call, BROADCASTS)
    if operation.axis % rank == x.axis:
        return Channels(np.concatenate([y.ids for y in call.inputs]), x.axis)
    return Channels(call.tied(*(y.ids for y in call.inputs)), x.axis)
