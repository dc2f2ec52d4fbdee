"""Reconstruct: what kernels read changed, so they are fitted to it anew.

`refit` makes up for what goes from the inputs of each consumer, as if all else
stayed. But behind a layer that was cut, inputs are not quite what they were.
So each kernel is fitted, by least squares over its whole window, to give what
the original one gives. Samples that are held out say how far to go from what
there was, and that no fit is kept that is worse on them.

Where a ReLU or probabilities stand behind a kernel, it is then fitted with
these in mind: see `fit_to_link`.

Source: He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural
Networks (2017), with the inputs of the pruned network.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_redundancy import _keras
from keras_redundancy.calibration.moments import HELD_OUT
from keras_redundancy.calibration.rows import GOLDEN, spread_of
from keras_redundancy.mend.kernels import KernelProduct
from keras_redundancy.mend.linked import fit_to_link
from keras_redundancy.mend.sums import Sums
from keras_redundancy.numbers import regression
from keras_redundancy.numbers.grouped_regression import grouped_ridge

# The share of a variance that rounding to these may be: ten squared steps.
ROUNDING = {"bfloat16": 10 * 2.0**-14, "float16": 10 * 2.0**-20}
# Positions of a sample that are looked at, where samples abound.
POSITIONS = 16
# Rows for each number of a row that are enough for a kernel, and to fit it
# with what becomes of its outputs in mind.
ROWS = 20
ROWS_OF_LINK = 10
# So many numbers the rows of a kernel and of its outputs hold at most.
NUMBERS = 2**25
# Bytes for each of them: four bytes, and the copies made while they are summed.
BYTES = 16
# So many are held before their products are summed.
HELD = 2**22


@dataclasses.dataclass(frozen=True, eq=False)
class KernelFit:
    """A kernel that is to return what the original one does.

    Attributes:
        old, new: the product of the original model and of the smaller one.
        kept: units of the old one that the new one has, shape (units,).
        link: what becomes of what they return, as `Surroundings.link` says.
        is_centered: whether a BatchNormalization behind takes its mean away.
    """

    old: KernelProduct
    new: KernelProduct
    kept: NDArray[np.intp]
    link: str
    is_centered: bool

    @property
    def layer(self):
        """The layer of the original model."""
        return self.old.layer

    @property
    def is_bare(self) -> bool:
        """Whether the original layer returns just what its kernel does."""
        layer = self.old.layer
        return (
            self.old.given is None
            and layer.activation is keras.activations.linear
            and layer.compute_dtype == layer.variable_dtype
        )

    def mend(self, step, frontier) -> list[keras.Variable]:
        """Fit the kernel to what all calls of a step read, in place.

        Returns:
            The variables that were fitted: none where what a call reads
            depends on the kernel.
        """
        if not step.is_whole:
            return []
        pieces = [x for call in step.calls for x in self._read(call, frontier)]
        reconstruct(
            self, pieces, frontier.samples, frontier.room, frontier.counting
        )
        fitted = self.new.kernel, self.new.bias
        return [variable for variable in fitted if variable is not None]

    def _read(self, call, frontier):
        if self.is_bare:
            return frontier.across(call)
        if self.old.given is None:
            return frontier.at(call.reads[0])
        return [
            (*numbers, self.old.given(*old), self.new.given(*new))
            for *numbers, old, new in frontier.arguments(call)
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """What a kernel reads, and what it is to return.

    Attributes:
        read: tensor of shape (rows, groups, numbers).
        wanted: tensor of shape (rows, groups, units).
        is_held_out: which rows say how good a fit is, shape (rows,).
    """

    read: object
    wanted: object
    is_held_out: NDArray[np.bool_]

    def at(self, numbers: NDArray[np.intp]) -> "Rows":
        """Some of the rows."""
        read, wanted = (
            ops.take(x, numbers, 0) for x in (self.read, self.wanted)
        )
        return Rows(read, wanted, self.is_held_out[numbers])

    @property
    def sides(self) -> list[NDArray[np.intp]]:
        """Numbers of the rows to fit to, and of those held out."""
        return [
            np.flatnonzero(x) for x in (~self.is_held_out, self.is_held_out)
        ]


def reconstruct(
    fit: KernelFit, pieces: list, samples: int, room: int, counting: Callable
) -> None:
    """Fit the kernel of the smaller model, in place.

    Args:
        fit: what to fit.
        pieces: for all calls and batches (number of the first sample,
            samples, what the old layer reads, what the new one does). Of a
            bare kernel, what the old layer returns in place of what it reads.
        samples: how many samples there are.
        room: bytes that rows may take.
        counting: as `Frontier.counting`: padded positions give no rows, nor
            do those that a mask of Keras leaves out.
    """
    layer, bias = fit.new.layer, fit.new.bias
    has_shift = bias is not None or fit.is_centered
    matrices = fit.new.matrices
    shifts = np.zeros(matrices.shape[::2])
    rounding = ROUNDING.get(layer.compute_dtype, regression.ROUNDING)
    most = min(NUMBERS, room // BYTES)
    rows = _rows(fit, pieces, samples, ROWS, most, counting)
    solutions = least_squares(rows, matrices, has_shift, rounding, most)
    bends = fit.link != "linear" and not fit.new.is_depthwise
    if bends:
        solutions = list(solutions)
        rows = _rows(fit, pieces, samples, ROWS_OF_LINK, most, counting)
        rows = joined(rows)
    for group, found in enumerate(solutions):
        if bends:
            found = fit_to_link(
                rows.read[:, group],
                rows.wanted[:, group],
                rows.sides,
                *found,
                fit.link,
                bias is not None,
            )
        matrices[group], shifts[group] = found
    fit.new.assign(matrices)
    if bias is not None:
        bias.assign(shifts.reshape(bias.shape))


def least_squares(rows, starts, has_shift, rounding, most=HELD):
    """Matrix and shift of each group, from the rows or from their moments.

    Args:
        rows: `Rows`, one batch after the other. Where there are more of them
            than numbers in a row, they are held until they are `HELD`
            numbers, and then the sums of their products are.
        starts: the matrices before, shape (groups, numbers, units).
        has_shift: whether a shift is fitted too.
        rounding: as for `ridge_from_moments`.
        most: how many numbers are held at most.
    """
    numbers = starts.shape[1]
    held, sums, count = [], None, 0
    for part in rows:
        held.append(part)
        count += len(part.sides[0])
        size = sum(x.read.shape[0] for x in held) * starts[..., 0].size
        if count >= numbers and size >= min(HELD, most):
            sums, held = _summed(joined(held), sums), []
    if count < numbers:
        yield from _from_rows(joined(held), starts, has_shift, rounding)
        return
    if held:
        sums = _summed(joined(held), sums)
    fitted, held_out = sums
    whole = fitted + held_out
    # Without a shift the mean has to be predicted like the rest.
    center = fitted.mean if has_shift else np.zeros_like(fitted.mean)
    about = [
        whole.about(whole.mean if has_shift else center),
        *(side.about(center) for side in (fitted, held_out)),
    ]
    if len(starts) > 1:
        found = grouped_ridge(*about, starts, rounding)
    else:
        about = [
            regression.Equations(x.known[0], x.shared[0], x.size[0])
            for x in about
        ]
        found = regression.ridge_from_moments(*about, starts[0], rounding)
        found = found[None]
    inputs, outputs = np.split(whole.mean, [numbers], axis=1)
    for matrix, read, wanted in zip(found, inputs, outputs, strict=True):
        yield matrix, wanted - read @ matrix


def _from_rows(rows, starts, has_shift, rounding):
    read, wanted = map(ops.convert_to_numpy, (rows.read, rows.wanted))
    for group, start in enumerate(starts):
        yield regression.ridge_from_rows(
            read[:, group],
            wanted[:, group],
            rows.is_held_out,
            start,
            has_shift,
            rounding,
        )


def _summed(rows, sums):
    """The sums of both sides, with those before, if there are any."""
    x, y = rows.read, rows.wanted
    origin = (
        sums[0].origin
        if sums
        else tuple(ops.mean(z, axis=0, keepdims=True) for z in (x, y))
    )
    x, y = x - origin[0], y - origin[1]
    found = [
        Sums.of(*(_of_groups(z, side) for z in (x, y)), origin)
        for side in rows.sides
    ]
    if sums:
        found = [a + b for a, b in zip(sums, found, strict=True)]
    return found


def _of_groups(x, side):
    """Some of the rows of each group, shape (groups, rows, numbers)."""
    x = ops.take(x, side, axis=0)
    if x.shape[1] == 1:
        return ops.reshape(x, (1, len(side), x.shape[2]))
    return ops.swapaxes(x, 0, 1)


def joined(rows) -> Rows:
    """All rows as one."""
    parts = list(rows)
    return Rows(
        ops.concatenate([part.read for part in parts]),
        ops.concatenate([part.wanted for part in parts]),
        np.concatenate([part.is_held_out for part in parts]),
    )


def _rows(fit, pieces, samples, each, room, counting):
    """Yields `Rows`, batch by batch.

    Args:
        fit, pieces, samples, counting: as for `reconstruct`.
        each: so many rows for each number of a row are enough.
        room: how many numbers the rows may be, with those wanted of them.
    """
    groups, numbers, _ = fit.new.shape
    units = len(fit.kept) // groups
    most_rows = max(room // (groups * (numbers + units)), 1)
    calls = max(sum(size for _, size, *_ in pieces) // max(samples, 1), 1)
    most_rows //= calls
    most = max(-(-each * numbers // max(samples * calls, 1)), POSITIONS)
    most = min(most, max(most_rows // max(samples, 1), 1))
    # Where even one row of each sample is too much.
    step = max(-(-samples // max(most_rows, 1)), 1)
    taken = {
        first // step + i
        for first, size, *_ in pieces
        for i in range(-(-size // step))
    }
    matrices, before = fit.old.tensor, 0
    for number, (first, size, old, new) in enumerate(pieces):
        mask = _keras.mask_of(old)
        old, new = old[::step], fit.new.read(new[::step])
        count = fit.new.positions(new)
        chosen = spread(count, number, most)
        read = fit.new.rows(new, chosen)
        wanted = _wanted(fit, matrices, old, chosen)
        shape = len(read) * len(chosen), groups
        own = np.arange(len(read)) * size // max(len(read), 1)
        order = np.repeat((first + own) // step, len(chosen))
        if len(taken) < HELD_OUT:
            order = before + np.arange(len(order))
        before += len(order)
        rows = Rows(
            ops.reshape(read, (*shape, numbers)),
            ops.reshape(wanted, (*shape, units)),
            order % HELD_OUT == HELD_OUT - 1,
        )
        counts = None
        if len(new.shape) == 3:
            counts = _unmasked(mask, count, counting(first, count))
        if counts is not None and (counts := counts[::step, chosen]).any():
            rows = rows.at(np.flatnonzero(counts))
        yield rows


def _unmasked(mask, positions, counts):
    """`counts`, where a mask of Keras, if there is one, lets positions in."""
    if mask is None or tuple(mask.shape[1:]) != (positions,):
        return counts
    mask = np.asarray(ops.convert_to_numpy(mask), bool)
    return mask if counts is None else mask & counts


def _wanted(fit, matrices, old, chosen):
    """What the old kernel returns, of the units that are kept.

    Args:
        fit: as for `reconstruct`.
        matrices: the `tensor` of the old product.
        old: what the old layer reads; of a bare kernel, what it returns.
        chosen: numbers of the positions.

    Returns:
        Shape (samples * positions, units).
    """
    if fit.is_bare:
        y = ops.moveaxis(old, 1, -1) if fit.old.first else old
        y = ops.reshape(y, (old.shape[0], -1, y.shape[-1]))
        if not np.array_equal(chosen, np.arange(y.shape[1])):
            y = ops.take(y, chosen, axis=1)
        y = ops.reshape(y, (-1, y.shape[-1]))
    else:
        rows = fit.old.rows(fit.old.read(old), chosen)
        groups, numbers = rows.shape[2:]
        rows = ops.reshape(rows, (-1, groups, numbers))
        if groups == 1:
            y = ops.matmul(rows[:, 0], matrices[0])
        else:
            y = ops.einsum("rgn,gnu->rgu", rows, matrices)
            y = ops.reshape(y, (rows.shape[0], -1))
        if fit.old.bias is not None:
            y = y + ops.reshape(fit.old.bias, (-1,))
    return ops.take(y, fit.kept, axis=-1)


def spread(count: int, number: int, most: int) -> NDArray[np.intp]:
    """Up to `most` of `count` positions, other ones for each batch."""
    if count <= most:
        return np.arange(count)
    shares = spread_of(most)
    return (((shares + number * GOLDEN) % 1) * count).astype(int)
