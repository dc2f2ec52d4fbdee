"""Sums, means and maxima over positions, and over channels."""

from keras_redundancy._keras import (
    math_operations,
    numpy_operations as ops,
)
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.channels.rules.registry import for_classes

OVER_CHANNELS = Reason(
    "over_channels", "{name} ({kind}) reduces over the channels"
)
ALONG_CHANNELS = Reason(
    "along_channels", "{name} ({kind}) works along the channels"
)
WHOLE_BATCH = Reason(
    "over_batch",
    "{name} ({kind}) reduces over the batch axis too: give it the axis= of "
    "positions",
)
NO_CHANNELS = Reason(
    "channels_reduced",
    "{name} ({kind}) reduces over the channels and leaves none",
)

HOMOGENEOUS = (ops.Max, ops.Mean, ops.Min, ops.Sum, ops.Amax, ops.Amin)
IDEMPOTENT = (ops.All, ops.Amax, ops.Amin, ops.Any, ops.Max, ops.Min)


@for_classes(ops.Cumprod, ops.Cumsum, ops.Sort)
def _along_an_axis(operation, call):
    """Every position depends on others, but every channel on itself alone."""
    x = call.inputs[0]
    if operation.axis is None:
        return call.opaque(WHOLE_BATCH)
    if operation.axis % len(x.shape) == x.axis:
        return call.opaque(ALONG_CHANNELS)
    return Channels(call.tied(x.ids), x.axis)


@for_classes(
    math_operations.Logsumexp,
    ops.All,
    ops.Amax,
    ops.Amin,
    ops.Any,
    ops.CountNonzero,
    ops.Max,
    ops.Mean,
    ops.Median,
    ops.Min,
    ops.Prod,
    ops.Std,
    ops.Sum,
    ops.Var,
)
def _reduction(operation, call):
    x = call.inputs[0]
    if operation.axis is None:
        return call.opaque(WHOLE_BATCH)
    axes = operation.axis
    axes = [axes] if isinstance(axes, int) else axes
    axes = {a % len(x.shape) for a in axes}
    if 0 in axes:
        return call.opaque(WHOLE_BATCH)
    keepdims = getattr(operation, "keepdims", False)
    if x.axis in axes:
        return _over_channels(operation, call, x, keepdims)
    ids = x.ids
    starts = getattr(operation, "initial", None) is not None
    if starts or not isinstance(operation, HOMOGENEOUS):
        ids = call.tied(ids)
    removed = 0 if keepdims else sum(a < x.axis for a in axes)
    return Channels(ids, x.axis - removed)


def _over_channels(operation, call, x, keepdims):
    """A maximum does not change when one of two equal channels goes."""
    if isinstance(operation, IDEMPOTENT):
        call.mixes(x.ids)
    else:
        call.inexact(OVER_CHANNELS, x.ids)
    if keepdims:
        return Channels(call.new(1), x.axis)
    return call.frozen(call.outputs[0], NO_CHANNELS)
