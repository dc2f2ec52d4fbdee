"""Slices and splits of the channels; their bounds are counted anew."""

import keras
import numpy as np

from keras_redundancy._keras import (
    core_operations as core,
    numpy_operations as ops,
)
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.rules.registry import (
    BATCH_AXIS,
    rule,
    with_batch_axis,
)

STRIDED = of_call(
    "strided_slice",
    "takes channels {start}:{stop}:{step} of {size}: only steps that divide "
    "all channels evenly are followed",
)
ONE_CHANNEL = of_call("single_channel", "takes the single channel {number}")
EACH_CHANNEL = of_call("channels_unstacked", "makes a tensor of every channel")
INDEXED = of_call(
    "array_of_indices",
    "takes channels by an array of indices: use a slice, which can be followed",
)
ALL_AXES = of_call(
    "flattened_indices", "takes elements of the flattened tensor"
)
UNEVEN = of_call(
    "uneven_split",
    "makes {parts} uneven parts of {size} channels: use keras.ops.split with "
    "indices, which can be followed",
)


@rule.register(ops.GetItem)
@with_batch_axis
def _get_item(operation, call):
    """`x[..., :k]`: the bounds k are counted again among those that stay."""
    x = call.inputs[0]
    path, key = _key(call)
    entries = [(path, key)]
    if isinstance(key, (tuple, list)):
        entries = [((*path, i), entry) for i, entry in enumerate(key)]
    places = _places(entries, len(x.shape))
    if any(not isinstance(entry, (int, slice)) for _, entry, _ in places):
        return call.opaque(INDEXED)
    path, entry, axis = places[x.axis]
    if x.batch and entry != slice(None):
        return call.opaque(BATCH_AXIS)
    if isinstance(entry, int):
        return _single(call, x.ids, path, entry)
    ids = _sliced(call, x.ids, path, entry)
    if ids is None:
        start, stop, step = entry.indices(len(x.ids))
        words = {"start": start, "stop": stop, "step": step}
        return call.opaque(STRIDED, size=len(x.ids), **words)
    return Channels(ids, axis)


def _key(call):
    args, kwargs = call.arguments
    if "key" in kwargs:
        return ("kwargs", "key"), kwargs["key"]
    return ("args", 1), args[1]


def _places(entries, rank):
    """(path, entry, output axis) for each input axis, of (path, entry)."""
    named = [e for _, e in entries if e is not None and e is not Ellipsis]
    rest = [((), slice(None))] * (rank - len(named))
    if not any(e is Ellipsis for _, e in entries):
        entries = [*entries, ((), Ellipsis)]
    places, axis = [], 0
    for path, entry in entries:
        for each in rest if entry is Ellipsis else [(path, entry)]:
            if entry is not None:
                places.append((*each, axis))
            axis += not isinstance(entry, int)
    return places


def _sliced(call, ids, path, entry):
    """Labels of a slice; None where its step cannot be followed."""
    start, stop, step = entry.indices(len(ids))
    if (start, stop, step) == (0, len(ids), 1):
        return ids
    if step == -1 and len(range(start, stop, step)) == len(ids):
        return call.copied(ids)[::-1]
    if step > 1 and _one_of_each(entry, len(ids)):
        # Of every `step` neighbours, all stay or none.
        call.tie(*ids.reshape(-1, step).T)
        return call.copied(ids[start::step])
    if step != 1:
        return None
    for end, bound in (("start", start), ("stop", stop)):
        from_the_end = (getattr(entry, end) or 0) < 0
        whole = ids if from_the_end else None
        call.counted_in_argument(*path, end, ids=ids[:bound], whole=whole)
    return call.copied(ids[start:stop])


def _one_of_each(entry, size):
    """Whether every `step` neighbours have exactly one channel in the slice."""
    start, stop, step = entry.indices(size)
    from_the_front = (entry.start or 0) >= 0
    even = start < step and stop == size and size % step == 0
    return even and from_the_front


def _single(call, ids, path, number):
    """One channel is picked, and has to stay; its number can change."""
    whole = ids if number < 0 else None
    number %= len(ids)
    call.freeze(ONE_CHANNEL, ids[number : number + 1], number=number)
    call.counted_in_argument(*path, ids=ids[:number], whole=whole)
    return call.frozen(call.outputs[0], ONE_CHANNEL, number=number)


@rule.register(ops.Split)
@with_batch_axis
def _split(operation, call):
    """Every part keeps what stays of it: sections become indices."""
    x = call.inputs[0]
    if operation.axis % len(x.shape) != x.axis:
        return [x for _ in call.outputs]
    if x.batch:
        return call.opaque(BATCH_AXIS)
    bounds, whole = operation.indices_or_sections, None
    if bounds == 1:
        return [x]
    if isinstance(bounds, int):
        size, whole = len(x.ids) // bounds, x.ids
        bounds = [size * i for i in range(1, bounds)]
    before = [x.ids[:i] for i in bounds]
    call.counted_in("indices_or_sections", ids=before, whole=whole)
    parts = np.split(x.ids, bounds)
    return [Channels(call.copied(part), x.axis) for part in parts]


@rule.register(ops.ArraySplit)
@with_batch_axis
def _array_split(operation, call):
    """Even parts stay even where they lose the same channels."""
    x = call.inputs[0]
    if operation.axis % len(x.shape) != x.axis:
        return [x for _ in call.outputs]
    if x.batch:
        return call.opaque(BATCH_AXIS)
    number, size = operation.indices_or_sections, len(x.ids)
    if size % number:
        return call.opaque(UNEVEN, parts=number, size=size)
    parts = x.ids.reshape(number, -1)
    call.tie(*parts)
    return [Channels(call.copied(part), x.axis) for part in parts]


@rule.register(core.Unstack)
@with_batch_axis
def _unstack(operation, call):
    x = call.inputs[0]
    axis = operation.axis % len(x.shape)
    if axis == x.axis:
        return call.opaque(EACH_CHANNEL)
    return [Channels(x.ids, x.axis - (axis < x.axis)) for _ in call.outputs]


@rule.register(ops.Take)
@with_batch_axis
def _take(operation, call):
    x = call.inputs[0]
    if operation.axis is None:
        return call.opaque(ALL_AXES)
    axis = operation.axis % len(x.shape)
    if axis == x.axis or len(call.inputs) > 1 or _is_of_an_array(call):
        return call.opaque(INDEXED)
    added = len(call.outputs[0].shape) - len(x.shape)
    return Channels(x.ids, x.axis + (added if axis < x.axis else 0))


def _is_of_an_array(call):
    """Whether a call takes from an array, and the tensor says which entries."""
    return not isinstance(call.argument("x"), keras.KerasTensor)


@rule.register(ops.TakeAlongAxis)
def _take_along_axis(operation, call):
    """An array takes positions, of each channel by itself."""
    x, (args, kwargs) = call.inputs[0], call.arguments
    along_channels = operation.axis in (None, x.axis, x.axis - len(x.shape))
    if along_channels or len(call.inputs) > 1 or _is_of_an_array(call):
        return call.opaque(INDEXED)
    path = ("kwargs", "indices") if "indices" in kwargs else ("args", 1)
    indices = call.constant(kwargs.get("indices", args[-1]), *path)
    ids = call.tied(x.ids)
    if indices.shape[x.axis] > 1:
        call.carried_by(indices, x.axis, ids)
    return Channels(ids, x.axis)
