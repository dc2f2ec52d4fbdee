"""Several inputs: sums, products, concatenations; arrays among them."""

import itertools

import keras
import numpy as np
from keras import layers

from keras_redundancy._keras import (
    CustomScaleLayer,
    as_array,
    is_added_as_bias,
    numpy_operations as ops,
)
from keras_redundancy._shared.named import named
from keras_redundancy.channels.calls import CallTrace
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.rules.registry import (
    for_classes,
    rule,
    with_batch_axis,
    with_numbers,
)

BROADCASTS = of_call(
    "channels_not_aligned", "combines tensors whose channels do not line up"
)
POSITIONS = of_call(
    "joined_with_positions",
    "combines channels with the positions of another tensor",
)
CONSTANT = of_call(
    "constant_too_large",
    "has an array operand with more entries than the channels",
)
JOINS_CONSTANT = of_call(
    "joined_with_constant", "joins channels with a constant array"
)
ADDED_AS_BIAS = of_call(
    "added_as_bias",
    "adds an array that Keras's TensorFlow backend adds along the channels, "
    "since they are as many as its entries: write array + tensor",
)
INDICES = of_call(
    "finds_indices", "is given a condition alone, and so returns indices"
)


# With f(s x, s y) = s f(x, y) for s > 0, and with f(s x, t y) = s t f(x, y).
SUMMING_LAYERS = (
    CustomScaleLayer,
    *named(layers, "Add Average Maximum Minimum Subtract"),
)
SUMS = (*SUMMING_LAYERS, *named(ops, "Add Maximum Minimum Subtract"))
PRODUCTS = (layers.Multiply, ops.Multiply)
# What a number, or an array with one for each channel, does on the right of it.
ACTS = {
    ops.Add: "adds",
    ops.Divide: "divides",
    ops.Multiply: "multiplies",
    ops.Subtract: "adds",
    ops.TrueDivide: "divides",
}


@for_classes(*SUMMING_LAYERS, layers.Multiply)
@with_batch_axis
def _merged(layer, call):
    if is_added_as_bias(layer, *call.arguments):
        return call.opaque(ADDED_AS_BIAS)
    return _combined(call, _join(layer)) or call.opaque(BROADCASTS)


def _join(operation, acts=None):
    """The method of a `CallTrace` that says what an operation does.

    `acts` is what an array operand does, if there is one.
    """
    if isinstance(operation, PRODUCTS):
        return CallTrace.multiplied
    if isinstance(operation, SUMS) or acts is not None:
        return CallTrace.summed
    return CallTrace.tied


@for_classes(
    *named(
        ops,
        """
        Add Arctan2 Divide DivideNoNan Equal FloorDivide Greater GreaterEqual
        Hypot Less LessEqual Logaddexp LogicalAnd LogicalOr LogicalXor Maximum
        Minimum Mod Multiply NotEqual Power Subtract TrueDivide Where
        """,
    )
)
@with_batch_axis
@with_numbers
def _operands(operation, call):
    """`x + y` and keras.ops, where an operand can be a number or an array."""
    if is_added_as_bias(operation, *call.arguments):
        return call.opaque(ADDED_AS_BIAS)
    others = [
        (path, operand)
        for path, operand in _listed(call.arguments)
        if not isinstance(operand, keras.KerasTensor)
    ]
    if any(operand is None for _, operand in others):
        return call.opaque(INDICES)
    arrays = [(path, as_array(x)) for path, x in others if np.ndim(x)]
    acts = _acts_of(operation, call, others)
    if acts in ("multiplies", "divides") and not arrays:
        return call.inputs[0]  # All channels are scaled by the same number.
    join = CallTrace.tied
    if len(arrays) == len(others) and (acts or not arrays):
        join = _join(operation, acts)
    out = _combined(call, join)
    if out is None:
        widened = arrays and len(call.inputs) == 1
        return call.opaque(CONSTANT if widened else BROADCASTS)
    axes = [out.axis, *_widened(call, arrays)]
    axis = call.choose(axes)
    if axis != out.axis:
        call.freeze(POSITIONS, *(x.ids for x in call.inputs))
        out = Channels(call.new(call.outputs[0].shape[axis]), axis)
    _cut_arrays(call, out, arrays, acts)
    return out


def _widened(call, arrays):
    """The axes along which arrays repeat a tensor.

    A number for each head that is multiplied with positions is an example.
    """
    rank = len(call.outputs[0].shape)
    if len(call.inputs) > 1:
        return []
    shape = (1,) * (rank - len(call.inputs[0].shape)) + call.inputs[0].shape
    return sorted(
        axis
        for _, array in arrays
        for axis, size in enumerate(array.shape, rank - array.ndim)
        if axis and size > 1 and shape[axis] == 1
    )


def _acts_of(operation, call, others):
    """What the one operand that is no tensor does to each channel, if known.

    The operand is a number, or an array with an entry for each channel and for
    nothing else.
    """
    if len(call.inputs) != 1 or len(others) != 1:
        return None
    (path, operand), x = others[0], call.inputs[0]
    array = as_array(operand)
    axis = x.axis - (len(x.shape) - array.ndim)
    per_channel = 0 <= axis < array.ndim and array.size == array.shape[
        axis
    ] == len(x.ids)
    turned = isinstance(operation, (ops.Divide, ops.Subtract, ops.TrueDivide))
    if turned and path in (("args", 0), ("kwargs", "x1")):
        return None
    known = per_channel or not array.ndim
    return ACTS.get(type(operation)) if known else None


def _listed(arguments):
    args, kwargs = arguments
    for number, operand in enumerate(args):
        yield ("args", number), operand
    for name, operand in kwargs.items():
        yield ("kwargs", name), operand


def _combined(call, join):
    """Channel i of the result is made from the channels i of all inputs.

    Axes line up from the right. A tensor with one entry on the channel axis
    is combined with every channel of the others and stays out of their ties;
    if it has channels on another axis, they meet positions there. None where
    no axis can be the result's channel axis. `join` is `CallTrace.tied`, or
    what says more of how they are combined.
    """
    after = call.outputs[0].shape
    given = [x for x in call.inputs if x.shape]
    if not given:  # Numbers alone.
        return Channels(call.new(0), 0)
    missing = [len(after) - len(x.shape) for x in given]
    placed = list(zip(given, missing, strict=True))
    for axis in sorted({x.axis + gap for x, gap in placed}, reverse=True):
        ones = [x for x, gap in placed if _size_at(x, axis - gap) == 1]
        wide = [
            x
            for x, gap in placed
            if x.axis + gap == axis and x.shape[x.axis] == after[axis]
        ]
        if len({len(x.ids) for x in wide}) != 1:
            continue
        if len({id(x) for x in [*ones, *wide]}) == len(placed):
            break
    else:
        for x, y in itertools.permutations(call.inputs, 2):
            call.rivals(x.ids, y.ids)
        return None
    for x, gap in placed:
        if x.axis + gap != axis and len(x.ids) > 1:
            call.freeze(POSITIONS, x.ids)
    if join is CallTrace.summed and len(wide) < len(call.inputs):
        join = CallTrace.tied  # One channel is added to all.
    return Channels(join(call, *(x.ids for x in wide)), axis)


def _size_at(x, axis):
    return x.shape[axis] if axis >= 0 else 1


def _cut_arrays(call, out, arrays, acts):
    """Arrays with an entry per channel are cut along with the channels."""
    rank = len(call.outputs[0].shape)
    for path, array in arrays:
        axis = out.axis - (rank - array.ndim)
        if axis >= 0 and array.shape[axis] > 1:
            constant = call.constant(array, *path)
            call.carried_by(constant, axis, out.ids, acts=acts or "tells")


@for_classes(layers.Concatenate, ops.Concatenate)
@with_batch_axis
def _concatenate(operation, call):
    at = operation.axis % len(call.inputs[0].shape)
    axis, values = _lined_up(call, at)
    if axis is None:
        return call.opaque(values)
    if axis == at:
        return Channels(np.concatenate(values), axis)
    return Channels(call.summed(*values), axis)


@rule.register(ops.Stack)
@with_batch_axis
def _stack(operation, call):
    """A new axis beside the channels, which all inputs share."""
    axis, values = _lined_up(call)
    if axis is None:
        return call.opaque(values)
    new = operation.axis % (len(call.inputs[0].shape) + 1)
    return Channels(call.summed(*values), axis + (new <= axis))


def _lined_up(call, preferred=None):
    """The channel axis of joined tensors, and the labels of each on it.

    That is `preferred`, where one of them has its channels there. None and a
    reason where they cannot be joined.
    """
    args, kwargs = call.arguments
    joined = args[0] if args else next(iter(kwargs.values()))
    if len(call.inputs) < len(joined):
        return None, JOINS_CONSTANT
    axes = [x.axis for x in call.inputs]
    axis = preferred if preferred in axes else axes[0]
    if any(x.shape[axis] is None for x in call.inputs):
        # Merged with the batch axis: the same channels of all can go together.
        widths = {len(x.ids) if x.axis == axis else 0 for x in call.inputs}
        if axis == preferred or len(widths) > 1:
            return None, BROADCASTS
    numbers = range(len(call.inputs))
    return axis, [call.labels_on(axis, number) for number in numbers]
