"""Normalisation: exact per channel, and never exact over channels."""

import numpy as np
from keras import layers

from keras_redundancy._keras import LayerScale, nn_operations as nn
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.rules.pointwise import NORMALIZES, bent
from keras_redundancy.channels.rules.registry import (
    axes_of,
    for_classes,
    rule,
    with_batch_axis,
)

FIXED_STATISTICS = of_call(
    "fixed_statistics",
    "has statistics of a fixed width from adapt() or its constructor",
)
NOT_ALIGNED = of_call(
    "normalized_by_others",
    "normalises with arrays, or with weights that have no entry for each "
    "channel",
)
# Arguments of operations that are weights where a layer calls them.
WEIGHTS = ("gamma", "beta", "scale", "offset", "mean", "variance")


@rule.register(layers.BatchNormalization)
def _batch_normalization(layer, call):
    x = call.inputs[0]
    if layer.axis % len(x.shape) != x.axis:
        # The same for all channels: it normalises another axis.
        call.reads_whole(*layer.weights)
        return bent(layer, call)
    for variable in layer.weights:
        call.carried_by(variable, 0, x.ids)
    if call.argument("training"):
        # Normalised by the batch: the moving variance says nothing of it.
        return bent(layer, call)
    ids = call.normalized(
        x.ids,
        layer.gamma if layer.scale else None,
        layer.moving_variance,
        layer.epsilon,
        layer.beta if layer.center else None,
        layer.moving_mean,
    )
    return Channels(ids, x.axis)


@for_classes(layers.LayerNormalization, layers.RMSNormalization)
@with_batch_axis
def _layer_normalization(layer, call):
    x = call.inputs[0]
    axes = axes_of(layer.axis, x)
    if x.axis not in axes:
        call.reads_whole(*layer.weights)
        return bent(layer, call)
    call.inexact(NORMALIZES, x.ids, what="its mean and variance")
    ids = call.tied(x.ids)
    for variable in layer.weights:
        is_shift = variable is getattr(layer, "beta", None)
        acts = "adds" if is_shift else "multiplies"
        call.carried_by(variable, axes.index(x.axis), ids, acts=acts)
    return Channels(ids, x.axis)


@for_classes(nn.BatchNorm, nn.LayerNorm, nn.RMSNorm)
def _normalized_by_code(operation, call):
    """The code of a layer normalises, with weights of its own."""
    given = [call.argument(name) for name in ("x", *WEIGHTS)]
    numbers = [call.index_of(x) for x in given if x is not None]
    if None in numbers:
        return call.opaque(NOT_ALIGNED)
    x, *weights = (call.inputs[number] for number in numbers)
    axes = axes_of(operation.axis, x)
    if x.axis not in axes:
        return call.opaque(NOT_ALIGNED) if weights else bent(operation, call)
    place = axes.index(x.axis), len(x.ids)
    if any((y.axis, len(y.ids)) != place for y in weights):
        return call.opaque(NOT_ALIGNED)
    if not isinstance(operation, nn.BatchNorm):
        call.inexact(NORMALIZES, x.ids, what="its mean and variance")
    return Channels(call.tied(x.ids, *(y.ids for y in weights)), x.axis)


@rule.register(layers.UnitNormalization)
@rule.register(nn.Normalize)
@with_batch_axis
def _unit_normalization(operation, call):
    x = call.inputs[0]
    if x.axis in axes_of(operation.axis, x):
        call.inexact(NORMALIZES, x.ids, what="their norm")
    return bent(operation, call)


@rule.register(layers.GroupNormalization)
def _group_normalization(layer, call):
    """With a group for every channel it is exact: instance normalisation."""
    x = call.inputs[0]
    ids = call.labels_on(layer.axis)
    if layer.groups == len(ids):
        call.counted_in("groups", ids=ids)
    else:
        call.inexact(NORMALIZES, ids, what="mean and variance of a group")
        call.tie(*ids.reshape(layer.groups, -1))
    ids = call.tied(ids)
    call.carried_by(layer.gamma, 0, ids, acts="multiplies")
    call.carried_by(layer.beta, 0, ids, acts="adds")
    return Channels(ids, layer.axis % len(x.shape))


@rule.register(LayerScale)
def _layer_scale(layer, call):
    x = call.inputs[0]
    ids = call.summed(call.labels_on(-1))
    call.carried_by(layer.gamma, 0, ids, acts="multiplies")
    call.counted_in("projection_dim", ids=ids)
    return Channels(ids, len(x.shape) - 1)


@rule.register(layers.Rescaling)
def _rescaling(layer, call):
    if any(np.ndim(value) for value in (layer.scale, layer.offset)):
        call.freeze(FIXED_STATISTICS)
    return bent(layer, call)


@rule.register(layers.Normalization)
def _normalization(layer, call):
    call.freeze(FIXED_STATISTICS)
    return bent(layer, call)
