"""Several inputs: sums, products, concatenations; arrays among them."""

import keras
import numpy as np
from keras import layers

from keras_redundancy._keras_internals import (
    CustomScaleLayer,
    numpy_operations as ops,
)
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.rules.registry import for_classes

BROADCASTS = "{name} ({kind}) combines tensors whose channels do not line up"
CONSTANT = "{name} ({kind}) has a constant array operand of a fixed width"
VARIABLE = "{name} ({kind}) has a variable that is not in the model's weights"


@for_classes(
    CustomScaleLayer,
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
)
def _merged(layer, call):
    return _combined(call)


@for_classes(
    ops.Add,
    ops.Arctan2,
    ops.Divide,
    ops.DivideNoNan,
    ops.Equal,
    ops.FloorDivide,
    ops.Greater,
    ops.GreaterEqual,
    ops.Hypot,
    ops.Less,
    ops.LessEqual,
    ops.Logaddexp,
    ops.LogicalAnd,
    ops.LogicalOr,
    ops.LogicalXor,
    ops.Maximum,
    ops.Minimum,
    ops.Mod,
    ops.Multiply,
    ops.NotEqual,
    ops.Power,
    ops.Subtract,
    ops.TrueDivide,
    ops.Where,
)
def _operands(operation, call):
    """`x + y` and keras.ops, where an operand can be a number or an array."""
    numbers, arrays = 0, []
    for path, operand in _listed(call.arguments):
        if isinstance(operand, keras.KerasTensor) or operand is None:
            continue
        if isinstance(operand, keras.Variable):
            return call.opaque(VARIABLE)
        if np.ndim(operand):
            arrays.append((path, np.asarray(operand)))
        else:
            numbers += 1
    alone = numbers == 1 and len(call.inputs) == 1 and not arrays
    if alone and _scales(operation, call):
        return call.inputs[0]
    out = _combined(call)
    if isinstance(out, Channels) and arrays:
        return _with_arrays(call, out, arrays)
    return out


def _listed(arguments):
    args, kwargs = arguments
    for number, operand in enumerate(args):
        yield ("args", number), operand
    for name, operand in kwargs.items():
        yield ("kwargs", name), operand


def _scales(operation, call):
    """Whether every channel is multiplied by the same number."""
    if isinstance(operation, ops.Multiply):
        return True
    divided = isinstance(operation, (ops.Divide, ops.TrueDivide))
    args, _ = call.arguments
    return divided and bool(args) and isinstance(args[0], keras.KerasTensor)


def _combined(call):
    """Channel i of the result is made from the channels i of all inputs.

    Axes line up from the right. A tensor of one channel is combined with
    every channel of the others and stays out of their ties.
    """
    rank = len(call.outputs[0].shape)
    wide = [x for x in call.inputs if len(x.ids) != 1] or call.inputs
    axis = {x.axis + rank - len(x.shape) for x in wide}
    if len(axis) > 1 or len({len(x.ids) for x in wide}) > 1:
        return call.opaque(BROADCASTS)
    axis = axis.pop()
    for x in call.inputs:
        at = axis - (rank - len(x.shape))
        if at >= 0 and x.shape[at] not in (1, len(wide[0].ids)):
            return call.opaque(BROADCASTS)
        if at >= 0 and x.axis != at and x.shape[at] != 1:
            return call.opaque(BROADCASTS)
    return Channels(call.tied(*(x.ids for x in wide)), axis)


def _with_arrays(call, out, arrays):
    """Arrays with an entry per channel are cut along with the channels."""
    rank = len(call.outputs[0].shape)
    for path, array in arrays:
        axis = out.axis - (rank - array.ndim)
        if axis < 0 or array.shape[axis] == 1:
            continue
        if array.shape[axis] != len(out.ids):
            return call.opaque(CONSTANT)
        call.carried_by(call.constant(array, *path), axis, out.ids)
    return out


@for_classes(layers.Concatenate, ops.Concatenate)
def _concatenate(operation, call):
    x = call.inputs[0]
    args, kwargs = call.arguments
    joined = args[0] if args else next(iter(kwargs.values()))
    if len(call.inputs) < len(joined):
        return call.opaque(CONSTANT)
    if any(y.axis != x.axis for y in call.inputs):
        return call.opaque(BROADCASTS)
    if operation.axis % len(x.shape) == x.axis:
        return Channels(np.concatenate([y.ids for y in call.inputs]), x.axis)
    return Channels(call.tied(*(y.ids for y in call.inputs)), x.axis)


@for_classes(ops.Stack)
def _stack(operation, call):
    """A new axis beside the channels, which all inputs share."""
    x = call.inputs[0]
    args, kwargs = call.arguments
    joined = args[0] if args else next(iter(kwargs.values()))
    if len(call.inputs) < len(joined):
        return call.opaque(CONSTANT)
    if any(y.axis != x.axis for y in call.inputs):
        return call.opaque(BROADCASTS)
    axis = operation.axis % (len(x.shape) + 1)
    ids = call.tied(*(y.ids for y in call.inputs))
    return Channels(ids, x.axis + (axis <= x.axis))
