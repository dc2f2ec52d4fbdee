"""Recurrent layers: a unit is tied over all its gates, and over time."""

import functools
import inspect

import keras
import numpy as np
from keras import layers, ops

from keras_redundancy import _keras
from keras_redundancy.channels.activations import activation_name
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import Reason, of_call
from keras_redundancy.channels.rules.kernels import taps_of
from keras_redundancy.channels.rules.pointwise import NOT_ALONE
from keras_redundancy.channels.rules.registry import (
    for_classes,
    positions,
    rule,
)

CELLS = {
    layers.LSTMCell,
    layers.GRUCell,
    layers.SimpleRNNCell,
    _keras.ConvLSTMCell,
}

STATEFUL = of_call(
    "stateful",
    "is stateful: it keeps the states of its units from batch to batch",
)
UNKNOWN_CELL = of_call(
    "unknown_cell",
    "runs a cell of its own ({what}); only LSTM, GRU, SimpleRNN and ConvLSTM "
    "layers are followed",
)
UNKNOWN_STATE = Reason(
    "unknown_state",
    "the initial state of {name} ({kind}) is not a tensor of the model with "
    "one channel per unit",
)


@rule.register(layers.RNN)
def _any_cell(layer, call):
    return call.opaque(UNKNOWN_CELL, what=type(layer.cell).__name__)


@for_classes(layers.LSTM, layers.GRU, layers.SimpleRNN)
def _recurrent(layer, call):
    return _followed(layer, call, "units", 1)


@for_classes(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
def _convolutional(layer, call):
    first = layer.data_format == "channels_first"
    return _followed(layer, call, "filters", 1 if first else -1)


def _followed(layer, call, setting, axis):
    """Labels of the output, and of the states where they are returned.

    Args:
        setting: the entry of the config that counts the units.
        axis: the channel axis of a state. What goes in, and a sequence that
            comes out, have the axis of time before it.
    """
    read = call.index_of(call.argument("sequences"))
    axis %= len(call.tensors[read].shape) - 1
    reason, words = _obstacle(layer, call, axis)
    if reason:
        return call.opaque(reason, **words)
    states = initial_states(call, layer.cell.recurrent_kernel.shape[-2], axis)
    if states is None:
        return call.opaque(UNKNOWN_STATE)
    call.read_by(layer.cell.kernel, -2, call.labels_on(axis + 1, read))
    _count_products(layer, call, read, axis)
    units = _units(layer.cell, call, axis)
    call.counted_in(setting, ids=units)
    call.tie(units, *states)
    out = Channels(units, axis + layer.return_sequences)
    kept = [Channels(call.tied(units), axis) for _ in call.outputs[1:]]
    return [out, *kept]


def _obstacle(layer, call, axis):
    """A reason not to follow the layer, and the words in it."""
    cell = layer.cell
    if type(cell) not in CELLS:
        return UNKNOWN_CELL, {"what": type(cell).__name__}
    if layer.stateful:
        return STATEFUL, {}
    shape = _shape_of_state(layer, call)
    for setting in ("activation", "recurrent_activation"):
        function = getattr(cell, setting, None)
        found = call.recorder.behaviours.of(function, shape, axis)
        if not found.kind.is_elementwise:
            words = {"what": activation_name(function), "found": found.reason}
            return NOT_ALONE, words
    return None, {}


def _shape_of_state(layer, call):
    """That of what comes out, which may have an axis of time."""
    first, *others = call.outputs[0].shape
    return first, *others[1 if layer.return_sequences else 0 :]


def initial_states(call, units: int, axis: int) -> list | None:
    """Labels of the tensors that the call was given as its first states.

    None where one is no tensor of the model, or has no channel for each of
    the `units` units on its axis `axis`.
    """
    given = call.argument("initial_state")
    if given is None:
        return []
    numbers = [call.index_of(x) for x in keras.tree.flatten(given)]
    if None in numbers:
        return None
    states = [call.inputs[number] for number in numbers]
    if any(x.axis != axis or len(x.ids) != units for x in states):
        return None
    return [x.ids for x in states]


def _units(cell, call, axis):
    """New labels of the units, which both kernels write and one reads.

    Each kernel writes all gates of the units, one gate after the other.
    """
    recurrent = cell.recurrent_kernel
    size = recurrent.shape[-2]
    kernels = [call.written_by(k, -1) for k in (cell.kernel, recurrent)]
    taps = taps_of(cell) if isinstance(cell, _keras.ConvLSTMCell) else "all"
    call.gated_by(cell.bias, cell.kernel, kernels[0], taps)
    gates = np.concatenate(kernels).reshape(-1, size)
    units = call.tied(*gates)
    compute = functools.partial(_read_states, axis)
    call.read_by(recurrent, -2, units, compute)
    return units


def _read_states(axis, layer, args, kwargs):
    """What the recurrent kernel reads, channels last.

    Args:
        axis: the channel axis of a state.
        layer: the recurrent layer.
        args, kwargs: those of a call of it.

    Returns:
        The state that each step begins with, shape (samples, steps, ...,
        units), in the order in which the steps are taken. A GRU without
        `reset_after` multiplies it with its reset gate for the third gate:
        for such a layer the shape is (samples, steps, 2, units), with the
        products after the states.
    """
    before = states(layer, args, kwargs)[:, :-1]
    if getattr(layer.cell, "reset_after", True):
        return ops.moveaxis(before, axis + 1, -1)
    reset = reset_gate(layer.cell, steps_read(layer, args, kwargs)[0], before)
    return ops.stack([before, reset * before], axis=2)


def states(layer, args, kwargs):
    """The first state of a recurrent layer, and the one after each step.

    Args:
        layer: the layer.
        args, kwargs: those of a call of it.

    Returns:
        Shape (samples, 1 + steps, ...), in the order in which the steps are
        taken. A masked step leaves the state as it is.
    """
    every = _keras.run_for_inference(
        _keras.returning_sequences(layer), args, kwargs
    )
    given = keras.tree.flatten(arguments(layer, args, kwargs, "initial_state"))
    first = ops.zeros_like(every[:, :1])
    if given and given[0] is not None:
        first = ops.cast(given[0][:, None], every.dtype)
    return ops.concatenate([first, every], axis=1)


def steps_read(layer, args, kwargs):
    """What a recurrent layer reads, in the order in which it takes the steps.

    Returns:
        (tensor of shape (samples, steps, ...), its mask of shape (samples,
        steps) or None).
    """
    x = arguments(layer, args, kwargs, "sequences")
    mask = arguments(layer, args, kwargs, "mask")
    mask = _keras.mask_of(x) if mask is None else mask
    if layer.go_backwards:
        x = ops.flip(x, axis=1)
        mask = None if mask is None else ops.flip(mask, axis=1)
    return x, mask


def reset_gate(cell, x, h):
    """The reset gate of a `GRUCell` without `reset_after`.

    Args:
        cell: the cell.
        x: what it reads, shape (..., channels).
        h: the state that it begins with, shape (..., units).
    """
    own = slice(cell.units, 2 * cell.units)
    z = ops.matmul(x, ops.cast(cell.kernel[:, own], x.dtype))
    z = z + ops.matmul(h, ops.cast(cell.recurrent_kernel[:, own], h.dtype))
    if cell.bias is not None:
        z = z + ops.cast(cell.bias[own], z.dtype)
    return cell.recurrent_activation(z)


def arguments(layer, args, kwargs, name: str):
    """What a call of a layer was given for its argument `name`, or None."""
    bound = inspect.signature(layer.call).bind_partial(*args, **kwargs)
    return bound.arguments.get(name)


def _count_products(layer, call, read, axis):
    """Both kernels work at all positions of the state, at every step."""
    shape = list(_shape_of_state(layer, call)[1:])
    del shape[axis - 1]
    steps = call.tensors[read].shape[1]
    for kernel in (layer.cell.kernel, layer.cell.recurrent_kernel):
        call.multiplies(kernel, positions([steps, *shape]))
