"""Select: which units stay, and which kept unit stands for each other one.

A selector chooses among the n units of a space. It has

- `count_at(level)`: how many units stay at a tau or a correlation;
- `error`: the error of all its units, in the unit in which it counts beside
  that of other spaces; 0 where none is known;
- `count_at_depth(depth, size, unit_cost)`: how many of `size` units stay at a
  depth in (0, 1), for targets: the deeper, the fewer; `unit_cost` is the share
  of the whole cost that one unit has, times the errors of all spaces;
- `choose(width, tau=None)`: a `Selection` of `width` units, at a tau if that
  said how many.
"""

import dataclasses

import numpy as np

from keras_redundancy._shared.bisection import bisected
from keras_redundancy.channels.filters import norms_along
from keras_redundancy.numbers.agglomeration import UNITS_PER_CALL
from keras_redundancy.numbers.ranking import Ranking
from keras_redundancy.numbers.similarity import (
    assign_to_nearest,
    cosine_similarity,
)
from keras_redundancy.planning.space_units import SpaceUnits

# How finely the tau for a number of clusters is searched.
TAU_STEPS = 20
# Share of the errors for a share of the cost: between them everything or
# nothing goes.
LOW_PRICE, HIGH_PRICE = 1e-12, 1e6


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """Which of the n units of a space stay.

    Attributes:
        stands_for: for every unit the kept unit that replaces it, itself for
            those that stay, shape (n,).
        idle: the removed units that are constant: no unit replaces them.
    """

    stands_for: np.ndarray
    idle: np.ndarray = dataclasses.field(
        default_factory=lambda: np.empty(0, int)
    )

    def __repr__(self):
        count = len(self.stands_for)
        return f"<Selection: {len(self.removed)} of {count} units go>"

    @property
    def stays(self) -> np.ndarray:
        """Whether each unit stays, a bool array of shape (n,)."""
        return self.stands_for == np.arange(len(self.stands_for))

    @property
    def kept(self) -> np.ndarray:
        """The units that stay, shape (n_f,), ascending."""
        return np.flatnonzero(self.stays)

    @property
    def removed(self) -> np.ndarray:
        """The units that go, shape (n_r,), ascending."""
        return np.flatnonzero(~self.stays)


class ByClusters:
    """One representative per cluster, chosen by `keep`."""

    error = 0.0

    def __init__(self, units: SpaceUnits, linkage: str, keep: str, seed):
        self.units, self.linkage = units, linkage
        self.keep, self.seed = keep, seed
        self._found = {}

    def count_at(self, tau: float) -> int:
        """How many clusters there are."""
        return self._labels_at(tau).max() + 1

    def count_at_depth(self, depth: float, size: int, unit_cost: float) -> int:
        """How many units to keep at a depth in (0, 1): one tau for all."""
        return self.count_at(1 - depth)

    def choose(self, width: int, tau: float | None = None) -> Selection:
        """`width` units: the representatives of the clusters at `tau`.

        Where `width` is more than the number of clusters, the units least
        like their representatives stay too. Without `tau`, it is the largest
        one at which there are at most `width` clusters.
        """
        if tau is None:
            tau = self._tau_for(width)
        labels = self._labels_at(tau)
        stands_for = self._representatives(labels)[labels]
        missing = width - (labels.max() + 1)
        if missing > 0:
            removed = np.flatnonzero(stands_for != np.arange(len(labels)))
            likeness = _cosines(self.units, removed, stands_for[removed])
            restored = removed[likeness.argsort()[:missing]]
            stands_for[restored] = restored
        elif missing < 0:
            kept = np.unique(stands_for)
            largest = np.bincount(stands_for)[kept].argsort(kind="stable")
            return nearest(self.units, kept[largest[-width:]])
        return Selection(stands_for)

    def _labels_at(self, tau):
        if tau not in self._found:
            labels = self.units.clusters_at(tau, self.linkage)
            self._found = {tau: labels}
        return self._found[tau]

    def _tau_for(self, width):
        low, high = bisected(
            lambda tau: self.count_at(tau) <= width, 0.0, 1.0, TAU_STEPS
        )
        return low or high

    def _representatives(self, labels):
        """The unit that stays of each cluster, shape (clusters,)."""
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels)
        starts = np.cumsum(sizes) - sizes
        representative = order[starts]
        several = np.flatnonzero(sizes > 1)
        clusters = [order[starts[i] : starts[i] + sizes[i]] for i in several]
        rng = np.random.default_rng(self.seed)
        find = REPRESENTATIVES[self.keep]
        representative[several] = find(self.units, clusters, rng)
        return representative


class AtRandom(ByClusters):
    """As many units as there are clusters, at random, whatever the clusters.

    Source: Ayinde, Inanc and Zurada, Redundant Feature Pruning for
    Accelerated Inference in Deep Neural Networks (2018), method B.
    """

    def __init__(self, units: SpaceUnits, linkage: str, seed):
        super().__init__(units, linkage, "random", seed)

    def count_at_depth(self, depth: float, size: int, unit_cost: float) -> int:
        return share_left(depth, size)

    def choose(self, width: int, tau: float | None = None) -> Selection:
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(self.units.filters.shape[1])
        return nearest(self.units, order[:width])


class WithoutConstant:
    """Another selector's choice of the units that are not constant.

    Constant units stand for no other unit, and none stands for them.
    """

    def __init__(self, selector, goes_first: np.ndarray, stays: np.ndarray):
        """Args:
        selector: that of the other units, of which there is at least one.
        goes_first: which constant units go before all others, shape (n,).
        stays: which constant units stay, shape (n,).
        """
        self._selector, self._staying = selector, stays.sum()
        self._used = np.flatnonzero(~(goes_first | stays))
        self._first = np.flatnonzero(goes_first)
        self._size = len(stays)
        self.error = selector.error

    def count_at(self, tau: float) -> int:
        return self._selector.count_at(tau) + self._staying

    def count_at_depth(self, depth: float, size: int, unit_cost: float) -> int:
        return self._selector.count_at_depth(depth, size, unit_cost)

    def choose(self, width: int, tau: float | None = None) -> Selection:
        left = max(width - self._staying, 1)
        used = min(left, len(self._used))
        chosen = self._selector.choose(used, tau)
        stands_for = np.arange(self._size)
        stands_for[self._used] = self._used[chosen.stands_for]
        idle = self._first[left - used :]
        stands_for[idle] = self._used[chosen.kept[0]]
        return Selection(stands_for, idle)


class ByRank:
    """The first units of a ranking."""

    error = 0.0

    def __init__(self, units: SpaceUnits, ranking: Ranking):
        self.units, self.ranking = units, ranking

    def count_at_depth(self, depth: float, size: int, unit_cost: float) -> int:
        """How many units to keep at a depth in (0, 1): one share for all."""
        return share_left(depth, size)

    def choose(self, width: int, tau: float | None = None) -> Selection:
        return nearest(self.units, self.ranking.order[:width])


class ByError(ByRank):
    """The first units of a ranking that knows the error of what goes."""

    @property
    def error(self) -> float:
        return self.ranking.whole

    def count_at(self, correlation: float) -> int:
        """How many predict the others with this correlation."""
        return self.ranking.count_at(correlation)

    def count_at_depth(self, depth: float, size: int, unit_cost: float) -> int:
        """How many units are worth a price by what they cost.

        The price is the same one everywhere: so no exchange of units between
        spaces would make the sum of errors smaller for these costs, if they
        did not depend on one another.
        """
        price = LOW_PRICE ** (1 - depth) * HIGH_PRICE**depth
        return self.ranking.count_for(price * unit_cost)


def share_left(depth: float, size: int) -> int:
    """How many of `size` units stay when the share `depth` goes."""
    return size - int(depth * size + 1e-9)


def nearest(units: SpaceUnits, kept) -> Selection:
    """These units stay; the most similar of them stands for each other one."""
    kept = np.sort(kept)
    return Selection(kept[assign_to_nearest(units.filters, kept)])


def _random_units(units, clusters, rng):
    return [rng.choice(cluster) for cluster in clusters]


def _medoids(units, clusters, rng):
    """The unit of each cluster that is most similar to the others."""
    best = [cluster[0] for cluster in clusters]
    wide = [i for i, cluster in enumerate(clusters) if len(cluster) > 2]
    members = [clusters[i] for i in wide]
    if wide:
        # Side by side: one pass over the filters.
        filters = np.take(units.filters, np.concatenate(members), axis=1)
    start = 0
    for batch in _batches(wide, members):
        sizes = [len(clusters[i]) for i in batch]
        stop = start + sum(sizes)
        similarity = cosine_similarity(filters[:, start:stop])
        own = np.repeat(np.arange(len(sizes)), sizes)
        central = (similarity * (own == own[:, None])).sum(axis=0)
        for i, part in zip(
            batch, np.split(central, np.cumsum(sizes)[:-1]), strict=True
        ):
            best[i] = clusters[i][part.argmax()]
        start = stop
    return best


def _batches(numbers, clusters):
    """Lists of `numbers`, so that the clusters of each have few units."""
    batch, size = [], 0
    for number, cluster in zip(numbers, clusters, strict=True):
        if batch and size + len(cluster) > UNITS_PER_CALL:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += len(cluster)
    if batch:
        yield batch


def _largest_units(units, clusters, rng):
    """The unit of each cluster with the largest norm."""
    return [cluster[units.norms[cluster].argmax()] for cluster in clusters]


def _first_units(units, clusters, rng):
    """The places that the means of the clusters take."""
    return [cluster[0] for cluster in clusters]


def _cosines(units, a, b):
    filters = units.filters
    products = np.einsum(
        "zi,zi->i", np.take(filters, a, axis=1), np.take(filters, b, axis=1)
    )
    norms = norms_along(filters, -1)
    norms = np.where(norms > 0, norms, 1)
    return products / (norms[a] * norms[b])


REPRESENTATIVES = {
    "random": _random_units,
    "medoid": _medoids,
    "largest": _largest_units,
    "mean": _first_units,
}
