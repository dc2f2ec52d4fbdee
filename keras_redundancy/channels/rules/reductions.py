"""Sums, means and maxima over positions, and over channels."""

from keras_redundancy._keras import (
    linalg_operations,
    math_operations,
    nn_operations,
    numpy_operations as ops,
)
from keras_redundancy._shared.named import named
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.rules.registry import (
    axes_of,
    for_classes,
    rule,
    with_batch_axis,
)

OVER_CHANNELS = of_call("over_channels", "reduces over the channels")
ALONG_CHANNELS = of_call("along_channels", "works along the channels")
WHOLE_BATCH = of_call(
    "over_batch",
    "reduces over the batch axis too: give it the axis= of positions",
)
NO_CHANNELS = of_call(
    "channels_reduced", "reduces over the channels and leaves none"
)

HOMOGENEOUS = (ops.Max, ops.Mean, ops.Min, ops.Sum, ops.Amax, ops.Amin)
IDEMPOTENT = (ops.All, ops.Amax, ops.Amin, ops.Any, ops.Max, ops.Min)


@for_classes(ops.Cumprod, ops.Cumsum, ops.Sort)
@with_batch_axis
def _along_an_axis(operation, call):
    """Every position depends on others, but every channel on itself alone."""
    x = call.inputs[0]
    if operation.axis is None:
        return call.opaque(WHOLE_BATCH)
    if operation.axis % len(x.shape) == x.axis:
        return call.opaque(ALONG_CHANNELS)
    return Channels(call.tied(x.ids), x.axis)


@for_classes(
    linalg_operations.Norm,
    math_operations.Logsumexp,
    *named(ops, "All Amax Amin Any CountNonzero Max Mean Median Min Prod Std"),
    *named(ops, "Sum Var"),
)
@with_batch_axis
def _reduction(operation, call):
    x = call.inputs[0]
    axes = axes_of(operation.axis, x)
    if 0 in axes:
        return call.opaque(WHOLE_BATCH)
    keepdims = getattr(operation, "keepdims", False)
    if x.axis in axes:
        return _over_channels(operation, call, x, keepdims)
    ids = x.ids
    starts = getattr(operation, "initial", None) is not None
    if starts or not isinstance(operation, HOMOGENEOUS):
        ids = call.tied(ids)
    return Channels(ids, _axis_after(x, axes, keepdims))


def _axis_after(x, axes, keepdims):
    """The channel axis of `x` where other axes are reduced."""
    return x.axis - (0 if keepdims else sum(a < x.axis for a in axes))


@rule.register(nn_operations.Moments)
@with_batch_axis
def _moments(operation, call):
    """Mean and variance."""
    x, keepdims = call.inputs[0], operation.keepdims
    axes = axes_of(operation.axes, x)
    if 0 in axes:
        return call.opaque(WHOLE_BATCH)
    if x.axis in axes:
        found = _over_channels(operation, call, x, keepdims)
        return [found, _over_channels(operation, call, x, keepdims)]
    axis = _axis_after(x, axes, keepdims)
    return [Channels(call.tied(x.ids), axis) for _ in call.outputs]


def _over_channels(operation, call, x, keepdims):
    """A maximum does not change when one of two equal channels goes."""
    if isinstance(operation, IDEMPOTENT):
        call.mixes(x.ids)
    else:
        call.inexact(OVER_CHANNELS, x.ids)
    if keepdims:
        return Channels(call.new(1), x.axis)
    return call.frozen(call.outputs[0], NO_CHANNELS)
