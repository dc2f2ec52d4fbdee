"""Recurrent layers: their kernels are fitted to the gates of the original.

A recurrent layer computes at each step what goes into its gates,

    z = W^T x + U^T h + b,

from what it reads, x, and from the state h of the step before. The kernel W,
the recurrent kernel U and the bias b of the smaller layer are fitted together:
least squares, with the inputs (x, h), to the z of the units that it has in the
original model.

The states depend on the weights that are fitted. So first h is the state of
the original layer, of the units that stay. Then it is the state that the
smaller layer itself has with the weights found. Errors add up over time: after
each fit the smaller layer runs over the samples held out. They say how far to
go from the weights that there were, and that no fit is kept with which the
states that the layer returns are further from those of the original.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from keras_redundancy.calibration.moments import HELD_OUT
from keras_redundancy.calibration.rows import positions_for
from keras_redundancy.channels.filters import read
from keras_redundancy.channels.labels import Role
from keras_redundancy.channels.rules.recurrent import states, steps_read
from keras_redundancy.channels.rules.wrappers import BIDIRECTIONAL, given_to
from keras_redundancy.mend.gates import parts_of
from keras_redundancy.mend.reconstruct import (
    BYTES,
    NUMBERS,
    POSITIONS,
    ROUNDING,
    Rows,
    least_squares,
    spread,
)
from keras_redundancy.numbers import regression

# How often a layer is fitted: to the original's states, then to its own.
FITS = 2
# How far to go from the weights that there were to those of a fit.
SHARES = (1, 0.5, 0.25)


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """A recurrent layer that is to have the states of the original one.

    Attributes:
        old, new: the layer of the original model and that of the smaller one.
        kept: units of the old one that the new one has, shape (units,).
        given: a function of a `Bidirectional` layer around and of the (args,
            kwargs) of a call of it that returns those of the call of this
            one; None where there is none around.
    """

    old: layers.RNN
    new: layers.RNN
    kept: NDArray[np.intp]
    given: Callable | None = None

    @property
    def variables(self) -> list[keras.Variable]:
        cell = self.new.cell
        found = cell.kernel, cell.recurrent_kernel, cell.bias
        return [variable for variable in found if variable is not None]


@dataclasses.dataclass(frozen=True, eq=False)
class RecurrentFit:
    """The layers to fit of one call: one, or the two of a `Bidirectional`.

    Attributes:
        layer: the layer of the original model that the graph calls.
        directions: a `Direction` for each recurrent layer.
    """

    layer: keras.Layer
    directions: tuple[Direction, ...]
    is_bare = False

    @property
    def variables(self) -> list[keras.Variable]:
        """Those that are fitted."""
        return [v for each in self.directions for v in each.variables]

    def mend(self, step, frontier) -> list[keras.Variable]:
        """Fit the layers to all calls of a step, in place.

        Returns:
            The variables that were fitted: none where what a call reads
            depends on them.
        """
        if not step.is_whole:
            return []
        pieces = [x for call in step.calls for x in frontier.arguments(call)]
        samples, room = frontier.samples, frontier.room
        fit_recurrent(self, step.layers[1], pieces, samples, room)
        return self.variables


def recurrent_fits(graph, removed, both: list) -> dict:
    """{id(layer): its `RecurrentFit`} of all layers that can be fitted.

    Args:
        graph: the traced original model.
        removed: whether each group of channels is gone.
        both: (layer, its counterpart in the smaller model) of all layers.
    """
    kept = {
        id(axis.variable): np.flatnonzero(~removed[axis.group])
        for axis in graph.axes
        if axis.role is Role.CONSUMER
    }
    found = {}
    for old, new in both:
        directions = [
            Direction(
                a,
                b,
                kept.get(id(a.cell.recurrent_kernel), np.arange(a.cell.units)),
                given,
            )
            for a, b, given in _recurrent(old, new)
            if not {id(v) for v in a.cell.weights} & graph.tied
        ]
        if directions:
            found[id(old)] = RecurrentFit(old, tuple(directions))
    return found


def _recurrent(old, new):
    """(layer, its counterpart, how it is called) of what is known inside."""
    pairs = [(old, new, None)]
    if type(old) is layers.Bidirectional:
        pairs = [
            (getattr(old, name), getattr(new, name), given_to(name))
            for name in BIDIRECTIONAL
        ]
    return [pair for pair in pairs if _is_known(pair[0])]


def _is_known(layer):
    kinds = layers.RNN, layers.LSTM, layers.GRU, layers.SimpleRNN
    cells = layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell
    is_known = type(layer) in kinds and type(layer.cell) in cells
    return is_known and not layer.stateful


def fit_recurrent(
    fit: RecurrentFit, new, pieces: list, samples: int, room: int
) -> None:
    """Fit the recurrent layers of one call of the smaller model, in place.

    Args:
        fit: what to fit.
        new: the layer that the graph of the smaller model calls.
        pieces: for all calls and batches (number of the first sample,
            samples, (args, kwargs) of the old layer, those of the new one).
        samples: how many samples there are.
        room: bytes that the steps may take that a layer is fitted to. One step
            of each sample is looked at in any case.
    """
    for direction in fit.directions:
        own = pieces
        if direction.given is not None:
            own = [
                (
                    *numbers,
                    direction.given(fit.layer, *old),
                    direction.given(new, *less),
                )
                for *numbers, old, less in pieces
            ]
        _fit(direction, own, samples, room)


def _fit(direction, pieces, samples, room):
    """Fit one layer as long as the error over time becomes smaller."""
    batches, rows = _looked_at(direction, pieces, samples, room)
    if not len(rows.is_held_out):
        return  # All steps are masked.
    least, h = _run(direction, batches)[0], rows.states
    for _ in range(FITS):
        before = _values(direction)
        _fit_gates(direction, rows, h)
        after = _values(direction)
        for share in SHARES:
            _assign(direction, before, after, share)
            error, h = _run(direction, batches)
            if error < least:
                least = error
                break
        else:
            _assign(direction, before, after, 0)
            break


def _values(direction):
    # Copied: `read` may return the memory of the variable itself.
    return [read(variable).copy() for variable in direction.variables]


def _assign(direction, before, after, share):
    """Go a share of the way from the weights before to those after a fit."""
    for variable, old, new in zip(
        direction.variables, before, after, strict=True
    ):
        variable.assign(old + share * (new - old) if share else old)


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    """Samples that the smaller layer runs over after each fit.

    Attributes:
        call: the (args, kwargs) of its call.
        rows: which steps of which samples it is fitted to: their numbers
            among all steps of all samples, shape (rows,).
        tested: which samples tell the error over time, shape (tested,).
        wanted: the states that it is to return for these, a tensor of shape
            (tested, steps, units).
    """

    call: tuple
    rows: NDArray[np.intp]
    tested: NDArray[np.intp]
    wanted: object


@dataclasses.dataclass(frozen=True, eq=False)
class _Steps:
    """The steps that a layer is fitted to.

    Attributes:
        inputs: what the smaller layer reads, a tensor (rows, channels).
        states: the state that the original layer begins with, of the units
            that stay, a tensor (rows, units).
        gates: what is to go into the gates, a tensor (rows, columns) for each
            `Part`.
        is_held_out: which rows say how good a fit is, shape (rows,).
    """

    inputs: object
    states: object
    gates: list
    is_held_out: NDArray[np.bool_]


def _looked_at(direction, pieces, samples, room):
    """A `_Batch` for each piece, and the `_Steps` of all."""
    old, new, kept = direction.old, direction.new, direction.kept
    parts, batches, found = parts_of(old.cell), [], []
    most = _most_rows(new.cell, pieces, room)
    few = samples < HELD_OUT
    for number, (first, size, given, less) in enumerate(pieces):
        x, mask = steps_read(old, *given)
        h = states(old, *given)
        rows = _rows(number, x.shape[:2], mask, most)
        is_held_out = _is_held_out(first + np.arange(size))
        tested = np.arange(size) if few else np.flatnonzero(is_held_out)
        wanted = ops.take(_returned(old, h, tested), kept, axis=-1)
        batches.append(_Batch(less, rows, tested, wanted))
        out = _is_held_out(rows) if few else is_held_out[rows // x.shape[1]]
        x, h = _at(x, rows), _at(h[:, :-1], rows)
        gates = [
            part.made(old.cell, x, h, part.columns(old.cell, kept))
            for part in parts
        ]
        x = _at(steps_read(new, *less)[0], rows)
        found.append((x, ops.take(h, kept, axis=1), out, *gates))
    x, h, out, *gates = zip(*found, strict=True)
    return batches, _Steps(
        ops.concatenate(x),
        ops.concatenate(h),
        [ops.concatenate(each) for each in gates],
        np.concatenate(out),
    )


def _is_held_out(numbers):
    return numbers % HELD_OUT == HELD_OUT - 1


def _most_rows(cell, pieces, room):
    """How many steps of each sample to look at, at most."""
    calls = sum(size for _, size, *_ in pieces)
    numbers = cell.kernel.shape[0] + cell.units
    most = positions_for(numbers, calls, POSITIONS)
    # With what goes into the gates.
    rows = min(NUMBERS, room // BYTES) // (numbers + cell.kernel.shape[1])
    return min(most, max(rows // max(calls, 1), 1))


def _rows(number, shape, mask, most):
    """Numbers of the steps to look at, other ones for each batch."""
    size, steps = shape
    chosen = np.arange(size)[:, None] * steps + spread(steps, number, most)
    chosen = chosen.reshape(-1)
    if mask is None:
        return chosen
    return chosen[ops.convert_to_numpy(mask).reshape(-1)[chosen]]


def _at(x, rows):
    """Rows of a tensor of shape (samples, steps, numbers), as a matrix."""
    x = ops.cast(ops.reshape(x, (-1, x.shape[-1])), "float32")
    return ops.take(x, rows, axis=0)


def _returned(layer, h, samples):
    """The states that a layer returns for some samples."""
    h = ops.cast(ops.take(h, samples, axis=0), "float32")
    return h[:, 1:] if layer.return_sequences else h[:, -1:]


def _run(direction, batches):
    """(The error over time, the states before the steps looked at)."""
    error, before = 0.0, []
    for batch in batches:
        h = states(direction.new, *batch.call)
        found = _returned(direction.new, h, batch.tested)
        error += float(ops.sum(ops.square(found - batch.wanted)))
        before.append(_at(h[:, :-1], batch.rows))
    return error, ops.concatenate(before)


def _fit_gates(direction, rows, h):
    """Fit all gates to what is to go into them, given the states before."""
    layer = direction.new
    cell = layer.cell
    rounding = ROUNDING.get(layer.compute_dtype, regression.ROUNDING)
    for part, wanted in zip(parts_of(cell), rows.gates, strict=True):
        columns = part.columns(cell, np.arange(cell.units))
        given = part.read(cell, rows.inputs, h)
        ((matrix, shift),) = least_squares(
            [Rows(given[:, None], wanted[:, None], rows.is_held_out)],
            part.matrix(cell, columns)[None].astype(float),
            cell.bias is not None,
            rounding,
        )
        part.assign(cell, columns, matrix, shift)
