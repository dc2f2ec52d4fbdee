"""What units are compared and ranked by: weights, or activations."""

import functools

import numpy as np
from scipy import linalg

from keras_redundancy.channels.filters import (
    carried,
    joined_filters,
    kernel_matrix,
    read,
)
from keras_redundancy.channels.gains import Gains, numbers_of
from keras_redundancy.channels.shifts import homes_of_shifts
from keras_redundancy.numbers.ranking import rank_by_outputs, rank_by_pivots
from keras_redundancy.numbers.regression import varies
from keras_redundancy.planning.selection import DATA_RANKS, RANKS, Units

CRITERIA = ("filters", "folded", "activations")


class Compared:
    """What the units of a model's spaces are compared by."""

    def __init__(
        self,
        graph,
        spaces,
        criterion: str,
        select: str,
        statistics,
        exact: bool = False,
    ):
        """Args:
        graph: the traced model.
        spaces: the spaces that are cut.
        criterion: one of `CRITERIA`.
        select: a key of `SELECTORS`.
        statistics: those of the calibration data, or None.
        exact: whether units that are the same are asked for, at tau = 1.
        """
        self.criterion, self.select = criterion, select
        self._statistics, self._homes = statistics, homes_of_shifts(graph)
        self._factors, self._told = {}, {}
        folded = criterion == "folded"
        ranks = select in (*RANKS, *DATA_RANKS)
        tell = not ranks and (folded or (exact and criterion == "filters"))
        if not tell and not folded:
            return
        touched = np.zeros(graph.group.max(initial=-1) + 1, bool)
        for space in spaces:
            touched[space.groups] = True
        gains = Gains(graph, read, touched, folded=folded, tell=tell)
        self._factors = gains.factors
        if tell:
            self._told = numbers_of(gains, graph, spaces)

    def units_of(self, space, chosen: np.ndarray) -> Units:
        """Some units of a space, as `select` has to know them.

        Args:
            space: the space.
            chosen: numbers of its units, shape (n,).

        Raises:
            ValueError: a kernel holds NaN or infinity.
        """
        views = []
        if self._statistics is not None:
            views = [
                (view, own[chosen])
                for view, own in self._statistics.of_space(space)
            ]
        told = self._told.get(id(space))
        told = told if told is None else told[chosen]
        if self.criterion == "activations" and views:
            filters = np.concatenate([_roots(view, own) for view, own in views])
            norms = np.linalg.norm(filters, axis=0)
            known = functools.partial(_constants, views)
        else:
            filters, norms = joined_filters(space, self._fold)
            if len(chosen) < space.size:
                filters, norms = filters[:, chosen], norms[chosen]

            def known(units):
                return carried(space, chosen[units])

        ranking = self._ranking(filters, views)
        below_one = self.criterion == "folded"
        return Units(filters, norms, known, ranking, told, below_one)

    def _fold(self, on, kernel):
        factor = self._factors.get((id(on.variable), on.axis))
        return kernel if factor is None else kernel * factor

    def _ranking(self, filters, views):
        if self.select in RANKS:
            return RANKS[self.select](filters)
        if self.select not in DATA_RANKS or not views:
            return None
        known = [self._known(view, own) for view, own in views]
        reads = [reads_of(view, own) for view, own in views]
        if self.select == "pivoted":
            return rank_by_pivots(*_joined_views(known, reads), len(views))
        return rank_by_outputs(list(zip(known, reads, strict=True)))

    def _known(self, view, own):
        """What a view says of units: their covariance, (n, n).

        Where a consumer has no bias to take what is constant, their means
        have to be predicted like the rest.
        """
        moments = view.moments.part(own)
        known = moments.covariance
        if id(view.on.variable) not in self._homes:
            known = known + np.outer(moments.mean, moments.mean)
        return known


def _roots(view, own):
    """Columns whose cosines are the correlations of the units: (n, n)."""
    covariance = view.moments.part(own).covariance
    values, vectors = linalg.eigh(covariance)
    roots = np.sqrt(values.clip(0))[:, None] * vectors.T
    roots[:, ~varies(np.diag(covariance))] = 0
    return roots / (np.sqrt(np.trace(covariance)) or 1)


def _constants(views, units):
    """What units that do not vary always are, shape (units, views)."""
    means = [view.moments.mean[own[units]] for view, own in views]
    return np.float32(means).T


def _joined_views(known, reads):
    """One covariance for all consumers, and how strongly they read units."""
    n = len(known[0])
    total = np.zeros((n, n))
    for covariance, own in zip(known, reads, strict=True):
        strength = np.diag(own)
        scale = (np.diag(covariance) * strength).sum()
        if scale > 0:
            strength = np.sqrt(strength / scale)
            total += covariance * strength * strength[:, None]
    return total, np.ones(n)


def reads_of(view, own):
    """W W^T of the kernel that reads the units as W^T x, shape (n, n)."""
    kernel = kernel_matrix(view.on).T
    return sum(
        part @ part.T
        for part in (
            kernel[column].astype(float) for column in view.positions[own].T
        )
    )
