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

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_redundancy.calibration.moments import HELD_OUT
from keras_redundancy.calibration.observer import GOLDEN, positions_for
from keras_redundancy.mend.kernels import KernelProduct
from keras_redundancy.mend.linked import fit_to_link
from keras_redundancy.numbers import regression
from keras_redundancy.numbers.grouped_regression import grouped_ridge

# The share of a variance that rounding to these may be: ten squared steps.
ROUNDING = {"bfloat16": 10 * 2.0**-14, "float16": 10 * 2.0**-20}
# Positions of a sample that are looked at, where samples abound.
POSITIONS = 16
# So many numbers the rows of a kernel and of its outputs hold at most.
NUMBERS = 2**25


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

    @property
    def sides(self) -> list[NDArray[np.intp]]:
        """Numbers of the rows to fit to, and of those held out."""
        return [
            np.flatnonzero(x) for x in (~self.is_held_out, self.is_held_out)
        ]


def reconstruct(fit: KernelFit, pieces: list, samples: int) -> None:
    """Fit the kernel of the smaller model, in place.

    Args:
        fit: what to fit.
        pieces: for all calls and batches (number of the first sample,
            samples, what the old layer reads, what the new one does).
        samples: how many samples there are.
    """
    rows = _rows(fit, pieces, samples)
    layer, bias = fit.new.layer, fit.new.bias
    has_shift = bias is not None or fit.is_centered
    matrices = fit.new.matrices
    shifts = np.zeros(matrices.shape[::2])
    rounding = ROUNDING.get(layer.compute_dtype, regression.ROUNDING)
    solutions = _least_squares(rows, matrices, has_shift, rounding)
    for group, found in enumerate(solutions):
        if fit.link != "linear" and not fit.new.is_depthwise:
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


def _least_squares(rows, starts, has_shift, rounding):
    """Matrix and shift of each group, from the rows or from their moments."""
    numbers = starts.shape[1]
    if len(rows.sides[0]) < numbers:
        for group, start in enumerate(starts):
            arrays = [
                ops.convert_to_numpy(x[:, group])
                for x in (rows.read, rows.wanted)
            ]
            yield regression.ridge_from_rows(
                *arrays, rows.is_held_out, start, has_shift, rounding
            )
        return
    fitted, held_out = (_moments(rows, side) for side in rows.sides)
    whole = _of_both(fitted, held_out)
    # Without a shift the mean has to be predicted like the rest.
    nowhere = np.zeros_like(whole.mean)
    center = fitted.mean if has_shift else nowhere
    about = [
        whole.about(whole.mean if has_shift else nowhere),
        *(side.about(center) for side in (fitted, held_out)),
    ]
    if len(starts) > 1:
        found = grouped_ridge(*about, starts, rounding)
    else:
        each = np.split(np.arange(whole.mean.shape[1]), [numbers])
        about = [moments[0] for moments in about]
        found = regression.ridge_from_moments(
            *about, *each, starts[0], rounding
        )[None]
    inputs, outputs = np.split(whole.mean, [numbers], axis=1)
    for matrix, read, wanted in zip(found, inputs, outputs, strict=True):
        yield matrix, wanted - read @ matrix


@dataclasses.dataclass(frozen=True, eq=False)
class _Moments:
    """Of the rows of all groups: their count, means and scatter matrices.

    Attributes:
        count: how many rows each group has.
        mean: shape (groups, n).
        scatter: sums of the outer products of rows minus their mean, shape
            (groups, n, n).
    """

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    def about(self, center) -> NDArray[np.float64]:
        """The mean outer products of rows minus `center`, (groups, n, n)."""
        if not self.count:
            return np.zeros_like(self.scatter)
        step = self.mean - center
        return self.scatter / self.count + step[:, :, None] * step[:, None]


def _moments(rows, chosen):
    """Those of what is read and then what is wanted, for each group."""
    read, wanted = rows.read, rows.wanted
    count, groups = len(chosen), read.shape[1]
    if not count:
        size = read.shape[2] + wanted.shape[2]
        nothing = np.zeros((groups, size)), np.zeros((groups, size, size))
        return _Moments(0, *nothing)
    x = ops.concatenate([read, wanted], axis=2)
    x = ops.moveaxis(ops.take(x, chosen, axis=0), 1, 0)
    mean = ops.mean(x, axis=1, keepdims=True)
    x = x - mean
    scatter = ops.matmul(ops.swapaxes(x, 1, 2), x)
    arrays = (
        ops.convert_to_numpy(x).astype(np.float64)
        for x in (mean[:, 0], scatter)
    )
    return _Moments(count, *arrays)


def _of_both(one, other):
    count = one.count + other.count
    step = other.mean - one.mean
    mean = one.mean + step * (other.count / count)
    scatter = one.scatter + other.scatter
    between = step[:, :, None] * step[:, None]
    between *= one.count * other.count / count
    return _Moments(count, mean, scatter + between)


def _rows(fit, pieces, samples):
    groups, numbers, _ = fit.new.shape
    units = len(fit.kept) // groups
    most_rows = max(NUMBERS // (groups * (numbers + units)), 1)
    calls = max(sum(size for _, size, *_ in pieces) // max(samples, 1), 1)
    most_rows //= calls
    most = positions_for(numbers, samples * calls, POSITIONS)
    most = min(most, max(most_rows // max(samples, 1), 1))
    # Where even one row of each sample is too much.
    step = max(-(-samples // max(most_rows, 1)), 1)
    matrices = fit.old.matrices
    read, wanted, sample, position = [], [], [], []
    for number, (first, size, old, new) in enumerate(pieces):
        old, new = fit.old.read(old[::step]), fit.new.read(new[::step])
        count = fit.new.positions(new)
        chosen = _spread(count, number, most)
        rows = fit.new.rows(new, chosen)
        targets = _outputs(fit, matrices, fit.old.rows(old, chosen))
        shape = len(rows) * len(chosen), groups
        read.append(ops.reshape(rows, (*shape, numbers)))
        wanted.append(ops.reshape(targets, (*shape, units)))
        own = first + np.arange(len(rows)) * size // max(len(rows), 1)
        sample.append(np.repeat(own, len(chosen)))
        position.append(np.tile(chosen, len(rows)))
    sample, position = np.concatenate(sample), np.concatenate(position)
    few = len(np.unique(sample)) < HELD_OUT
    order = np.arange(len(sample)) if few else sample // step
    is_held_out = order % HELD_OUT == HELD_OUT - 1
    return Rows(ops.concatenate(read), ops.concatenate(wanted), is_held_out)


def _outputs(fit, matrices, rows):
    """What the old kernel returns for rows, of the units that are kept."""
    matrices = ops.convert_to_tensor(matrices.astype(fit.old.kernel.dtype))
    shape = *rows.shape[:2], -1
    y = ops.einsum("spgn,gnu->spgu", rows, matrices)
    y = ops.reshape(y, shape)
    if fit.old.bias is not None:
        y = y + ops.reshape(fit.old.bias, (-1,))
    return ops.take(y, fit.kept, axis=-1)


def _spread(count, number, most):
    """Up to `most` of the positions, other ones for each batch."""
    if count <= most:
        return np.arange(count)
    spread = np.random.default_rng(0).permutation(most) / most
    return (((spread + number * GOLDEN) % 1) * count).astype(int)
