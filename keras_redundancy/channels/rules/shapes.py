"""Operations that move axes: reshape, flatten, transpose, stretch."""

import math

import keras
import numpy as np
from keras import layers

from keras_redundancy._keras_internals import (
    numpy_operations as ops,
)
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.rules.registry import for_classes, rule

MOVES_CHANNELS = (
    "{name} ({kind}) of {before} to {after} does not keep channels apart"
)
OPEN_SIZES = "{name} ({kind}) flattens positions of an open size"
ALL_AXES = "{name} ({kind}) flattens the batch axis too"
PADDED = "it pads the channels ({name})"
PADDED_MODE = "{name} ({kind}) pads the channels with mode {mode!r}"
SHIFTED = "{name} ({kind}) shifts the channels by a fixed number"
REPEATED = "{name} ({kind}) repeats channels unevenly"
SQUEEZED = "{name} ({kind}) removes the channel axis, which holds one channel"


# --- reshape ----------------------------------------------------------------


@rule.register(layers.Flatten)
def _flatten(layer, call):
    x = call.inputs[0]
    if None in x.shape[1:]:
        return call.opaque(OPEN_SIZES)
    if layer.data_format == "channels_first" and len(x.shape) > 2:
        x = _moved(x, [0, *range(2, len(x.shape)), 1])
    return _reshaped(call, x, call.outputs[0].shape)


def _moved(x, order):
    shape = tuple(x.shape[i] for i in order)
    return Channels(x.ids, list(order).index(x.axis), shape)


@rule.register(layers.Reshape)
def _reshape(layer, call):
    after = call.outputs[0].shape
    out = _reshaped(call, call.inputs[0], after)
    if isinstance(out, Channels) and layer.target_shape[out.axis - 1] != -1:
        call.counted_in("target_shape", out.axis - 1, ids=out.ids)
    return out


@rule.register(ops.Reshape)
def _reshape_operation(operation, call):
    after = call.outputs[0].shape
    out = _reshaped(call, call.inputs[0], after)
    if isinstance(out, Channels) and operation.newshape[out.axis] != -1:
        call.counted_in("newshape", out.axis, ids=out.ids)
    return out


@rule.register(ops.Ravel)
def _ravel(operation, call):
    return call.opaque(ALL_AXES)


def _reshaped(call, x, after):
    """Labels behind a reshape of `x` to the shape `after`.

    Counted in elements from the end of the shape, the channel axis covers
    the strides from `inner` to `outer`. The axes that cover them afterwards
    are one axis, which can hold positions as well (flattened), or several
    axes (channels that were positions and channels all along).
    """
    inner = _product(x.shape[x.axis + 1 :])
    words = {"before": x.shape, "after": after}
    if inner is None:
        return call.opaque(MOVES_CHANNELS, **words)
    n = len(x.ids)
    covering = []
    for axis in range(len(after) - 1, 0, -1):
        stride, size = _product(after[axis + 1 :]), after[axis]
        if stride is None or stride >= inner * max(n, 2):
            break
        if size is not None and stride * size <= inner and size != 1:
            continue
        covering.append((axis, stride, size))
    whole = [c for c in covering if c[1:] == (inner, n)]
    if whole:
        return Channels(x.ids, whole[0][0])
    covering = [c for c in covering if c[2] != 1]
    if len(covering) == 1:
        out = _flattened(call, x, inner, *covering[0])
    else:
        out = _split(call, x, inner, covering)
    return out or call.opaque(MOVES_CHANNELS, **words)


def _product(sizes):
    return None if None in sizes else math.prod(sizes)


def _flattened(call, x, inner, axis, stride, size):
    """One axis holds the channels and `outer * inside` positions of them."""
    n = len(x.ids)
    if size is None or inner % stride or (stride * size) % (inner * n):
        return None
    inside, outer = inner // stride, stride * size // (inner * n)
    if outer > 1 and not _divides(x.shape[1 : x.axis], outer):
        return None
    ids = call.copied(x.ids, outer * inside)
    ids = ids.reshape(outer, inside, n).swapaxes(1, 2)
    return Channels(ids.reshape(-1), axis)


def _divides(sizes, outer):
    """Whether whole axes before the channels make up `outer` positions.

    Without that, positions of two samples could share an entry.
    """
    total = _product(sizes)
    return total is not None and total % outer == 0


def _split(call, x, inner, covering):
    """Several axes hold the channels: (7, 7, 64) where 3,136 were before.

    One of them stays the channel axis, by Keras' convention the last (the
    first with channels_first). A channel is then its entry together with all
    entries of the others, which go together.
    """
    covering = covering[::-1]
    sizes = [size for _, _, size in covering]
    n = len(x.ids)
    if not covering or None in sizes or math.prod(sizes) != n:
        return None
    if covering[-1][1] != inner:
        return None
    first = keras.config.image_data_format() == "channels_first"
    number = 0 if first and len(call.outputs[0].shape) > 3 else -1
    axis, _, size = covering[number]
    ids = np.moveaxis(x.ids.reshape(sizes), number, -1).reshape(-1, size)
    return Channels(call.tied(*ids), axis)


# --- axes -------------------------------------------------------------------


def _transposed(call, order):
    x = call.inputs[0]
    return Channels(x.ids, list(order).index(x.axis))


@rule.register(layers.Permute)
def _permute(layer, call):
    return _transposed(call, [0, *layer.dims])


@rule.register(ops.Transpose)
def _transpose(operation, call):
    rank = len(call.inputs[0].shape)
    axes = operation.axes or range(rank)[::-1]
    return _transposed(call, [a % rank for a in axes])


@rule.register(ops.Swapaxes)
def _swapaxes(operation, call):
    order = list(range(len(call.inputs[0].shape)))
    a, b = operation.axis1, operation.axis2
    order[a], order[b] = order[b], order[a]
    return _transposed(call, order)


@rule.register(ops.Moveaxis)
def _moveaxis(operation, call):
    rank = len(call.inputs[0].shape)
    order = np.moveaxis(
        np.empty(range(1, rank + 1)), operation.source, operation.destination
    ).shape
    return _transposed(call, [size - 1 for size in order])


@rule.register(ops.ExpandDims)
def _expand_dims(operation, call):
    x = call.inputs[0]
    axes = operation.axis
    axes = [axes] if isinstance(axes, int) else axes
    added = {a % (len(x.shape) + len(axes)) for a in axes}
    kept = [a for a in range(len(x.shape) + len(axes)) if a not in added]
    return Channels(x.ids, kept[x.axis])


@rule.register(ops.Squeeze)
def _squeeze(operation, call):
    x = call.inputs[0]
    axes = operation.axis
    if axes is None:
        axes = [a for a, size in enumerate(x.shape) if size == 1]
    axes = [axes] if isinstance(axes, int) else axes
    removed = {a % len(x.shape) for a in axes}
    if x.axis in removed:
        return call.opaque(SQUEEZED)
    return Channels(x.ids, x.axis - sum(a < x.axis for a in removed))


# --- more of the same -------------------------------------------------------


@rule.register(layers.RepeatVector)
def _repeat_vector(layer, call):
    return Channels(call.inputs[0].ids, 2)


@rule.register(ops.Repeat)
def _repeat(operation, call):
    x = call.inputs[0]
    if operation.axis is None:
        return call.opaque(ALL_AXES)
    if operation.axis % len(x.shape) != x.axis:
        return x
    if np.size(operation.repeats) > 1:
        return call.opaque(REPEATED)
    times = int(np.reshape(operation.repeats, ()))
    ids = call.copied(x.ids, times).reshape(times, -1)
    return Channels(ids.T.reshape(-1), x.axis)


@rule.register(ops.Tile)
def _tile(operation, call):
    x = call.inputs[0]
    repeats = np.atleast_1d(operation.repeats)
    added = max(len(repeats) - len(x.shape), 0)
    place = x.axis - len(x.shape) + len(repeats)
    times = int(repeats[place]) if place >= 0 else 1
    ids = call.copied(x.ids, times) if times > 1 else x.ids
    return Channels(ids, x.axis + added)


@rule.register(ops.BroadcastTo)
def _broadcast_to(operation, call):
    x, after = call.inputs[0], call.outputs[0].shape
    axis = x.axis + len(after) - len(x.shape)
    if after[axis] != len(x.ids):
        return call.opaque(MOVES_CHANNELS, before=x.shape, after=after)
    call.counted_in("shape", axis, ids=x.ids)
    return Channels(x.ids, axis)


@rule.register(ops.Pad)
def _pad(operation, call):
    """Channels of padding are new, and have to stay."""
    x = call.inputs[0]
    widths = operation.pad_width
    before, after = widths[x.axis if len(widths) > 1 else 0]
    if before == after == 0:
        return x
    if operation.mode != "constant":
        return call.opaque(PADDED_MODE, mode=operation.mode)
    front, back = (call.new_frozen(size, PADDED) for size in (before, after))
    return Channels(np.concatenate([front, x.ids, back]), x.axis)


@for_classes(ops.Flip)
def _flip(operation, call):
    x = call.inputs[0]
    axes = operation.axis
    axes = [axes] if isinstance(axes, int) else axes
    if axes is None or x.axis in [a % len(x.shape) for a in axes]:
        return Channels(call.copied(x.ids)[::-1], x.axis)
    return x


@rule.register(ops.Roll)
def _roll(operation, call):
    x = call.inputs[0]
    axes = operation.axis
    if axes is None:
        return call.opaque(ALL_AXES)
    axes = [axes] if isinstance(axes, int) else axes
    if x.axis in [a % len(x.shape) for a in axes]:
        return call.opaque(SHIFTED)
    return x
