"""Operations that move axes: reshape, flatten, transpose, stretch."""

import dataclasses
import math

import keras
import numpy as np
from keras import layers

from keras_redundancy._keras import numpy_operations as ops
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.rules.registry import (
    axes_of,
    for_classes,
    rule,
    with_batch_axis,
)

# Stands for the size of the batch where sizes are multiplied and divided: a
# prime number so large that no other size is a multiple of it.
BATCH = 2**61 - 1

MOVES_CHANNELS = of_call(
    "channels_mixed_by_reshape",
    "of {before} to {after} does not keep channels apart: only a transpose "
    "moves one axis past another",
)
OPEN_SIZES = of_call(
    "open_sizes",
    "flattens positions of an open size: give the model's Input fixed sizes",
)
ALL_AXES = of_call(
    "batch_flattened",
    "flattens the batch axis too: give it an axis=, or use Flatten",
)
PADDED = of_call(
    "channels_padded_alike", "pads all axes alike, also that of the channels"
)
PADDED_MODE = of_call("channels_padded", "pads the channels with mode {mode!r}")
SHIFTED = of_call("several_axes_shifted", "shifts several axes at a time")
BROADCAST = of_call("channel_broadcast", "makes {size} channels of one")
REPEATED = of_call("uneven_repeats", "repeats channels unevenly")
SQUEEZES_ALL = of_call(
    "all_axes_squeezed",
    "removes all axes of size 1: give it the axis= to remove",
)
POSITIONS = of_call(
    "repeated_in_the_batch",
    "repeats a tensor along the batch axis, where other channels are followed",
)
SQUEEZED = of_call(
    "channel_axis_squeezed", "removes the channel axis, which holds one channel"
)


# --- reshape ----------------------------------------------------------------


@rule.register(layers.Flatten)
@with_batch_axis
def _flatten(layer, call):
    x = call.inputs[0]
    if None in x.shape[1:]:
        return call.opaque(OPEN_SIZES)
    if layer.data_format == "channels_first" and len(x.shape) > 2:
        x = _moved(x, [0, *range(2, len(x.shape)), 1])
    return _reshaped(call, x)


def _moved(x, order):
    shape = tuple(x.shape[i] for i in order)
    axis = list(order).index(x.axis)
    return dataclasses.replace(x, axis=axis, shape=shape)


@rule.register(layers.Reshape)
@with_batch_axis
def _reshape(layer, call):
    x, after = call.inputs[0], call.outputs[0].shape
    front = x.shape[1 : x.axis + 1]
    if None not in front and front == tuple(after[1 : x.axis + 1]):
        # What comes behind the channels may be open.
        out = Channels(x.ids, x.axis)
    else:
        out = _reshaped(call, x)
    known = isinstance(out, Channels) and out.axis > 0
    if known and layer.target_shape[out.axis - 1] != -1:
        call.counted_in("target_shape", out.axis - 1, ids=out.ids)
    return out


@rule.register(ops.Reshape)
@with_batch_axis
def _reshape_operation(operation, call):
    out = _reshaped(call, call.inputs[0])
    if isinstance(out, Channels) and operation.newshape[out.axis] != -1:
        call.counted_in("newshape", out.axis, ids=out.ids)
    return out


@rule.register(ops.Ravel)
def _ravel(operation, call):
    return call.opaque(ALL_AXES)


@dataclasses.dataclass(frozen=True)
class _Part:
    """What an axis of the new shape holds of the channels.

    Each of its entries is one of `outer` positions, one of the channels in
    `size` steps, and one of `inside` positions. `outer` is None where that is
    not known. Positions that are samples of the batch are multiples of
    `BATCH`.
    """

    axis: int
    outer: int | None
    size: int
    inside: int

    @property
    def batch(self) -> str | None:
        """The `batch` of channels on this axis."""
        if self.outer % BATCH == 0:
            return "outer"
        return "inner" if self.inside % BATCH == 0 else None

    @property
    def is_known(self) -> bool:
        """Whether labels can say which channel each entry belongs to."""
        if self.outer is None:
            return False
        return self.outer % BATCH > 0 or self.inside % BATCH > 0

    def labels(self, call, ids):
        """Labels of the axis, for channels `ids` in `size` steps."""
        outer, inside = (
            1 if count % BATCH == 0 else count
            for count in (self.outer, self.inside)
        )
        if outer * inside > 1:
            ids = call.copied(ids, outer * inside)
            ids = ids.reshape(outer, inside, self.size).swapaxes(1, 2)
        return Channels(ids.reshape(-1), self.axis, batch=self.batch)


def _reshaped(call, x):
    """Labels behind a reshape of `x` to the shape that comes out.

    Where several axes hold the channels, such as (7, 7, 64) where there were
    3,136, one of them stays the channel axis: by Keras' convention the last
    (the first with channels_first), unless more can go where it is another
    one, as where attention makes heads. A channel is then its entry together
    with all entries of the others, which go together.
    """
    after = call.outputs[0].shape
    parts = _parts(x, after) or []
    numbers = _in_order(parts, len(after))
    if not numbers:
        return call.opaque(MOVES_CHANNELS, before=x.shape, after=after)
    ids, number = x.ids, numbers[0]
    if len(parts) > 1:
        number = call.choose(numbers)
        rows = ids.reshape([p.size for p in parts])
        rows = np.moveaxis(rows, number, -1).reshape(-1, parts[number].size)
        ids = call.summed(*rows)
    return parts[number].labels(call, ids)


def _in_order(parts, rank):
    """Numbers of the parts that can be the channel axis, the best one first.

    The batch axis comes last.
    """
    first = keras.config.image_data_format() == "channels_first" and rank > 3
    numbers = range(len(parts)) if first else reversed(range(len(parts)))
    known = [i for i in numbers if parts[i].is_known]
    return sorted(known, key=lambda i: parts[i].batch is not None)


def _parts(x, after):
    """The axes of the shape `after` that hold channels of `x`, outer first.

    Counted in elements from the end of the shape, `n` channels cover the
    strides from `low` to `end`. None where an entry of an axis would hold no
    whole number of channels or positions.
    """
    n = len(x.ids)
    if n == 1:
        return _one_channel(after)
    before, sizes = _with_batch(x, after)
    low = math.prod(before[x.axis + 1 :])
    if x.batch == "inner":
        low *= BATCH
    parts, end = [], low * n
    for axis in reversed(range(len(after))):
        size, behind = sizes[axis], sizes[axis + 1 :]
        if None in behind or (stride := math.prod(behind)) >= end:
            break
        if size == 1 or (size is not None and stride * size <= low):
            continue
        high = end if size is None else min(end, stride * size)
        rest = 0 if size is None else stride * size % high
        if low % stride or high % low or (rest and after[axis] is not None):
            return None
        outer = None if size is None or rest else stride * size // high
        parts.append(_Part(axis, outer, high // low, low // stride))
        low = high
    return parts[::-1] if low == end else None


def _with_batch(x, after):
    """The shapes of `x` and `after`, with multiples of `BATCH` for open sizes.

    The open size of `after` follows from all others. If there are several,
    they stay None.
    """
    before = [BATCH if size is None else size for size in x.shape]
    if x.batch:
        before[x.axis] *= len(x.ids)
    total = math.prod(before)
    known = math.prod(size for size in after if size is not None)
    if after.count(None) != 1 or not known or total % known:
        return before, list(after)
    return before, [total // known if n is None else n for n in after]


def _one_channel(after):
    """A single channel sits on an axis of size 1, or else on the last one."""
    for axis in range(len(after) - 1, 0, -1):
        if after[axis] == 1:
            return [_Part(axis, 1, 1, 1)]
    if len(after) < 2 or after[-1] is None:
        return None
    return [_Part(len(after) - 1, after[-1], 1, 1)]


# --- axes -------------------------------------------------------------------


@for_classes(
    layers.Permute,
    ops.ExpandDims,
    ops.Moveaxis,
    ops.Swapaxes,
    ops.Transpose,
)
@with_batch_axis
def _moved_axes(operation, call):
    """Where the channels go shows on a tensor whose sizes all differ."""
    x = call.inputs[0]
    sizes = tuple(range(2, len(x.shape) + 2))  # A new axis has the size 1.
    moved = operation.compute_output_spec(keras.KerasTensor(sizes)).shape
    return Channels(x.ids, moved.index(sizes[x.axis]))


@rule.register(ops.Squeeze)
@with_batch_axis
def _squeeze(operation, call):
    x = call.inputs[0]
    removed = set(axes_of(operation.axis, x))
    if operation.axis is None:
        # A cut to one channel would make their axis one of those.
        call.freeze(SQUEEZES_ALL)
        removed = {a for a in removed if x.shape[a] == 1}
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
    axis, times = operation.axis % len(x.shape), operation.repeats
    if axis != x.axis:
        part = _Part(axis, BATCH, times if isinstance(times, int) else 1, 1)
        return _for_each_head(call, x, part, "repeats") or x
    if np.size(times) > 1:
        return call.opaque(REPEATED)
    times = int(np.reshape(times, ()))
    ids = call.copied(x.ids, times).reshape(times, -1)
    return Channels(ids.T.reshape(-1), x.axis)


@rule.register(ops.Tile)
def _tile(operation, call):
    x = call.inputs[0]
    repeats = np.atleast_1d(operation.repeats)
    added = max(len(repeats) - len(x.shape), 0)
    place = x.axis - len(x.shape) + len(repeats)
    times = int(repeats[place]) if place >= 0 else 1
    if x.axis and len(repeats) == len(x.shape):
        part = _Part(0, 1, int(repeats[0]), BATCH)
        if out := _for_each_head(call, x, part, "repeats", 0):
            return out
    ids = call.copied(x.ids, times) if times > 1 else x.ids
    return Channels(ids, x.axis + added)


def _for_each_head(call, x, part, *setting):
    """Channels of what is repeated along the batch axis, one for each time.

    A mask that is given to each of the heads on that axis is an example. None
    where `x` keeps the channels that it has.
    """
    axes = [x.axis, part.axis]
    repeats = part.size > 1 and x.shape[part.axis] is None
    if not repeats or call.choose(axes) == x.axis:
        return None
    call.freeze(POSITIONS, x.ids)
    ids = call.new(part.size)
    call.counted_in(*setting, ids=ids)
    return part.labels(call, ids)


@rule.register(ops.BroadcastTo)
def _broadcast_to(operation, call):
    x, after = call.inputs[0], call.outputs[0].shape
    axis = x.axis + len(after) - len(x.shape)
    if after[axis] != len(x.ids):
        return call.opaque(BROADCAST, size=after[axis])
    call.counted_in("shape", axis, ids=x.ids)
    return Channels(x.ids, axis)


@rule.register(ops.Pad)
def _pad(operation, call):
    """Channels of padding can go as any others: the padding gets smaller."""
    x, widths = call.inputs[0], operation.pad_width
    before, after = widths[x.axis if len(widths) > 1 else 0]
    if before == after == 0:
        return _padded_with(x, call)
    if operation.mode != "constant":
        return call.opaque(PADDED_MODE, mode=operation.mode)
    front, back = call.new(before), call.new(after)
    if len(widths) > 1:
        call.counted_in("pad_width", x.axis, ids=[front, back])
    else:
        call.freeze(PADDED, front, back)
    ids = np.concatenate([front, _padded_with(x, call).ids, back])
    return Channels(ids, x.axis)


def _padded_with(x, call):
    """Positions of a fixed value, unless it is 0, do not scale with x."""
    value = call.argument("constant_values")
    return x if not value else Channels(call.tied(x.ids), x.axis)


@rule.register(ops.Flip)
def _flip(operation, call):
    x = call.inputs[0]
    if x.axis in axes_of(operation.axis, x):
        return Channels(call.copied(x.ids)[::-1], x.axis)
    return x


@rule.register(ops.Roll)
def _roll(operation, call):
    """The last `shift` channels come first: `shift` of those that stay."""
    x = call.inputs[0]
    if operation.axis is None:
        return call.opaque(ALL_AXES)
    axes = axes_of(operation.axis, x)
    if x.axis not in axes:
        return x
    if len(axes) > 1 or not isinstance(operation.shift, int):
        return call.opaque(SHIFTED)
    first = len(x.ids) - operation.shift % len(x.ids)
    call.counted_in("shift", ids=x.ids[first:], whole=x.ids)
    return Channels(np.roll(call.copied(x.ids), -first), x.axis)
