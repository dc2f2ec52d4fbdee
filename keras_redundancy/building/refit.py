"""Consumers that read removed units as predicted from the kept ones.

Calibration data says how each removed unit is predicted best from the kept
units that the same consumer reads: removed ~ kept @ matrix + shift. The matrix
goes into the consumer's kernel, the shift into its bias. Consumers inside of
layers, whose inputs the calibration does not see, are merged.

Heads of an attention layer are vectors: the matrix then predicts all numbers
of the removed heads from all numbers of the kept ones.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from keras_redundancy._shared.threads import one_thread
from keras_redundancy.building.absorb import MergeAbsorber
from keras_redundancy.building.changes import is_consumer, merge
from keras_redundancy.channels.filters import read
from keras_redundancy.channels.shifts import homes_of_shifts, shift_of


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """The prediction of removed units from kept ones, on one axis.

    Attributes:
        kept, removed: positions of shape (k, m) and (r, m). Where the axis
            has each unit m times, as behind a `Flatten`, each column has all
            units once.
        matrix: shape (k, r): removed ~ kept @ matrix + shift.
        shift: shape (r,).
        each: how many numbers each unit has, as in `View`. Above 1, read
            k * each and r * each for k and r in the shapes of `matrix` and
            `shift`.
    """

    kept: np.ndarray
    removed: np.ndarray
    matrix: np.ndarray
    shift: np.ndarray
    each: int = 1

    @property
    def columns(self) -> list[tuple]:
        """(kept positions, removed positions) that `matrix` predicts."""
        if self.each > 1:
            return [(self.kept, self.removed)]
        return list(zip(self.kept.T, self.removed.T, strict=True))

    def more(self, kernel, kept, removed) -> np.ndarray:
        """What the rows `kept` of a kernel get more, for the rows `removed`.

        Args:
            kernel: with the units on its first axis.
            kept, removed: one of `columns`.
        """
        rows = kernel[removed].reshape(len(self.shift), -1)
        found = self.matrix.astype(kernel.dtype) @ rows
        return found.reshape(*kept.shape, *kernel.shape[1:])

    def shift_of(self, on, removed, home) -> np.ndarray:
        """What the outputs of the kernel get more, in the shape of its bias."""
        if self.each == 1:
            return shift_of(on, self.shift, removed, home)
        kernel = np.moveaxis(read(on.variable), on.axis, 0)
        return self.shift @ kernel[removed].reshape(len(self.shift), -1)


class RefitAbsorber(MergeAbsorber):
    """Consumers read removed units as calibration data predicts them."""

    def __init__(
        self,
        statistics,
        solve: Callable,
        constants: Mapping | None = None,
        folded: bool = False,
    ):
        """Args:
        statistics: the `Statistics` of the calibration data.
        solve: a function (covariance, kept, removed, fitted, held_out) that
            returns the matrix of a `Fit`, such as `regression.least_squares`.
        constants, folded: as for `MergeAbsorber`.
        """
        super().__init__(constants, folded)
        self._statistics, self._solve = statistics, solve

    def _shifts(self, change):
        views = self._statistics.views.get(id(change.on), ())
        return super()._shifts(change) or any(
            np.isin(view.positions[:, 0], change.source).any() for view in views
        )

    def _prepare(self, graph, changes, start):
        homes = homes_of_shifts(graph)
        with one_thread():
            self._fits = {
                change: self._fits_of(change, homes.get(id(change.on.variable)))
                for change in filter(is_consumer, changes)
            }
        super()._prepare(graph, changes, start)

    def _shift(self, change, home):
        shifts = [super()._shift(change, home)]
        for fit in self._fits[change]:
            shifts += [
                fit.shift_of(change.on, removed, home)
                for _, removed in fit.columns
            ]
        known = [shift for shift in shifts if shift is not None]
        return sum(known) if known else None

    def _fits_of(self, change, home):
        gone, idle = np.zeros((2, len(change.on.group)), bool)
        gone[change.source] = True
        idle[self._idle(change)[0]] = True
        fits = []
        for view in self._statistics.views.get(id(change.on), ()):
            is_removed = gone[view.positions[:, 0]]
            known = idle[view.positions].all(axis=1)
            kept, removed = map(
                np.flatnonzero, (~is_removed, is_removed & ~known)
            )
            if len(removed):
                fits.append(self._fit(view, kept, removed, home))
        return fits

    def _fit(self, view, kept, removed, home):
        divided, moments = view.divided, view.moments
        # Without a bias for the shift, the means are predicted as well.
        has_shift = home is not None
        inputs, outputs = view.entries(kept), view.entries(removed)
        matrix = self._solve(
            moments.about(moments.mean * has_shift),
            inputs,
            outputs,
            divided.fitted.about(divided.fitted.mean * has_shift),
            divided.held_out.about(divided.fitted.mean * has_shift),
        )
        shift = moments.mean[outputs] - moments.mean[inputs] @ matrix
        kept, removed = view.positions[kept], view.positions[removed]
        return Fit(kept, removed, matrix, shift, view.each)

    def absorb(self, change, value):
        fits = self._fits[change]
        if not fits:
            return super().absorb(change, value)
        fitted = np.concatenate([fit.removed.reshape(-1) for fit in fits])
        is_fitted = np.isin(change.source, fitted)
        if is_fitted.all():
            result = np.take(value, change.kept, change.on.axis)
        else:
            rest = change.only(~is_fitted)
            result = merge(rest, value, self._scales[change][~is_fitted])
        row = np.empty(len(change.on.group), int)
        row[change.kept] = np.arange(len(change.kept))
        before = np.moveaxis(value, change.on.axis, 0)
        after = np.moveaxis(result, change.on.axis, 0)
        for fit in fits:
            for kept, removed in fit.columns:
                after[row[kept]] += fit.more(before, kept, removed)
        return result
