"""Absorb by regression: what goes is predicted from what stays.

A removed unit's activation is, as the calibration data has it, a linear
function of those of kept units and a shift. Each consumer reads the kept units
accordingly, and the shift goes into its bias. Where a consumer reads what is
inside a layer, nothing is known of it, and it is merged.
"""

import collections
import dataclasses
from collections.abc import Callable

import numpy as np

from keras_redundancy.channels.labels import Normalized, Shifted
from keras_redundancy.pruning.absorb import Merge, is_consumer, merge
from keras_redundancy.pruning.filters import read


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """How the units that go are predicted on an axis.

    Attributes:
        kept, removed: positions of shape (k, m) and (r, m): column by column
            the same units.
        matrix: shape (k, r): removed ~ kept @ matrix + shift.
        shift: shape (r,).
    """

    kept: np.ndarray
    removed: np.ndarray
    matrix: np.ndarray
    shift: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Home:
    """Where what is added to the units of a kernel goes.

    Attributes:
        step: the kernel's `Shifted`.
        variable: a bias, or the moving mean behind; None for a bias that has
            to be made.
        sign: 1, or -1 for what is subtracted.
    """

    step: Shifted
    variable: object | None
    sign: int


def homes_of_shifts(graph) -> dict[int, Home]:
    """{id(kernel): `Home`} of all kernels that have one."""
    counts, means = collections.Counter(), {}
    for step in graph.steps:
        if isinstance(step, Normalized) and step.mean is not None:
            counts[id(step.after), id(step.mean)] += 1
            means[id(step.after)] = step.mean
    calls = collections.Counter(
        id(step.kernel) for step in graph.steps if isinstance(step, Shifted)
    )
    homes = {}
    for step in graph.steps:
        if not isinstance(step, Shifted):
            continue
        mean = means.get(id(step.layer))
        same = counts[id(step.layer), id(mean)] == calls[id(step.kernel)]
        if step.bias is not None:
            homes[id(step.kernel)] = Home(step, step.bias, 1)
        elif step.linear and mean is not None and same:
            homes[id(step.kernel)] = Home(step, mean, -1)
        elif step.setting is not None:
            homes[id(step.kernel)] = Home(step, None, 1)
    return homes


class Refit(Merge):
    """What reads a removed unit reads what the data says it is made of.

    Attributes:
        created: {id(layer): (`Shifted`, array)}: the biases that are made.
    """

    def __init__(self, statistics, solve: Callable):
        """Args:
        statistics: those of the calibration data.
        solve: a function of covariance, kept and removed numbers and samples,
            such as `regression.least_squares`.
        """
        self._statistics, self._solve = statistics, solve

    def biases_for(self, graph, changes):
        homes = homes_of_shifts(graph)
        found = {}
        for change in filter(is_consumer, changes):
            home = homes.get(id(change.on.variable))
            views = self._statistics.views.get(id(change.on), ())
            seen = any(
                np.isin(view.positions[:, 0], change.source).any()
                for view in views
            )
            if home is not None and home.variable is None and seen:
                found[id(home.step.layer)] = home.step
        return list(found.values())

    def prepare(self, graph, changes, start):
        super().prepare(graph, changes, start)
        homes = homes_of_shifts(graph)
        self._fits, self._added, self.created = {}, {}, {}
        for change in filter(is_consumer, changes):
            home = homes.get(id(change.on.variable))
            fits = self._fits_of(change, home)
            self._fits[id(change)] = fits
            if home is None or not fits:
                continue
            added = home.sign * sum(_shift(change.on, f, home) for f in fits)
            if home.variable is None:
                self.created[id(home.step.layer)] = home.step, added
            else:
                self._added[id(home.variable)] = home.variable, added

    @property
    def added_to(self):
        return [variable for variable, _ in self._added.values()]

    def start(self, variable, value):
        _, added = self._added.get(id(variable), (None, None))
        return value if added is None else value + added.astype(value.dtype)

    def _fits_of(self, change, home):
        gone = np.zeros(len(change.on.group), bool)
        gone[change.source] = True
        fits = []
        for view in self._statistics.views.get(id(change.on), ()):
            is_removed = gone[view.positions[:, 0]]
            kept, removed = map(np.flatnonzero, (~is_removed, is_removed))
            if len(removed):
                fits.append(self._fit(view, kept, removed, home))
        return fits

    def _fit(self, view, kept, removed, home):
        moments = view.moments
        known = moments.covariance
        if home is None:
            # Without a shift the mean has to be predicted like the rest.
            known = known + np.outer(moments.mean, moments.mean)
        matrix = self._solve(known, kept, removed, moments.samples)
        shift = moments.mean[removed] - moments.mean[kept] @ matrix
        positions = view.positions
        return Fit(positions[kept], positions[removed], matrix, shift)

    def absorb(self, change, value):
        fits = self._fits[id(change)]
        if not fits:
            return super().absorb(change, value)
        fitted = np.concatenate([fit.removed.reshape(-1) for fit in fits])
        is_fitted = np.isin(change.source, fitted)
        if is_fitted.all():
            result = np.take(value, change.kept, change.on.axis)
        else:
            result = self._merge_rest(change, value, is_fitted)
        row = np.empty(len(change.on.group), int)
        row[change.kept] = np.arange(len(change.kept))
        before = np.moveaxis(value, change.on.axis, 0)
        after = np.moveaxis(result, change.on.axis, 0)
        for fit in fits:
            matrix = fit.matrix.astype(value.dtype)
            for kept, removed in zip(fit.kept.T, fit.removed.T, strict=True):
                after[row[kept]] += np.tensordot(matrix, before[removed], 1)
        return result

    def _merge_rest(self, change, value, is_fitted):
        rest = dataclasses.replace(
            change,
            source=change.source[~is_fitted],
            target=change.target[~is_fitted],
        )
        scales = self._scales[id(change)][~is_fitted]
        return merge(rest, value, scales)


def _shift(on, fit, home):
    """What a consumer's units get more, shape (units,)."""
    kernel = np.moveaxis(read(on.variable), on.axis, 0)
    total = sum(
        np.tensordot(fit.shift, kernel[removed], 1) for removed in fit.removed.T
    )
    axis = home.step.axis - (home.step.axis > on.axis)
    others = tuple(i for i in range(total.ndim) if i != axis)
    return total.sum(axis=others)
