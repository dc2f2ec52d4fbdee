"""Select: which units stay, and which kept unit stands for each other one."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_redundancy.channels.filters import norms_along
from keras_redundancy.numbers.agglomeration import UNITS_PER_CALL
from keras_redundancy.numbers.clustering import cluster_filters
from keras_redundancy.numbers.ranking import Ranking
from keras_redundancy.numbers.similarity import (
    assign_to_nearest,
    cosine_similarity,
)

# How finely the tau for a number of clusters is searched.
TAU_STEPS = 20
# Above this tau units have to be the same, up to rounding, to be redundant.
ALMOST_ONE = 1 - 1e-9
TOLD_ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """Attributes:
    kept: the units that stay, shape (n_f,), ascending.
    stands_for: for every unit the kept unit in its place, shape (n,).
    idle: units that go and are constant, so that nothing stands for them.
    """

    kept: np.ndarray
    stands_for: np.ndarray
    idle: np.ndarray = dataclasses.field(
        default_factory=lambda: np.empty(0, int)
    )

    @property
    def is_idle(self) -> np.ndarray:
        """Whether each unit goes as one that is constant, shape (n,)."""
        return np.isin(np.arange(len(self.stands_for)), self.idle)

    def __repr__(self):
        count = len(self.stands_for)
        return f"<Selection: {len(self.removed)} of {count} units go>"

    @property
    def removed(self) -> np.ndarray:
        """The units that go, shape (n_r,), ascending."""
        stays = self.stands_for == np.arange(len(self.stands_for))
        return np.flatnonzero(~stays)


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """What is known of the n units of a space.

    Attributes:
        filters: what they are compared by, shape (z, n), one per column.
        norms: Euclidean norms of their weights as they are, shape (n,).
        carried: a function of some units' numbers, shape (k,), that returns
            all else that is known of them, shape (k, anything).
        ranking: the `Ranking` of the units, for those who choose by one.
        told: all that tells units with parallel filters apart, shape
            (n, numbers), or None for nothing.
        told_below_one: whether it does so at a tau below 1.
    """

    filters: np.ndarray
    norms: np.ndarray
    carried: Callable
    ranking: Ranking | None = None
    told: np.ndarray | None = None
    told_below_one: bool = False

    def clusters_at(self, tau: float, linkage: str) -> np.ndarray:
        """The number of each unit's cluster, shape (n,).

        A zero filter has no direction. Such units are redundant to one
        another only where all else about them is equal too. The same is asked
        of others at tau = 1; with `told_below_one`, what else is told of two
        units of a cluster differs by no more than filters may that are as
        long as one another, sqrt(2 - 2 tau).
        """
        labels = cluster_filters(self.filters, tau, linkage)
        zero = np.flatnonzero(norms_along(self.filters, -1) == 0)
        if len(zero) > 1:
            carried = self.carried(zero)
            _, alike = np.unique(carried, axis=0, return_inverse=True)
            labels[zero] = labels.max() + 1 + alike.reshape(-1)
        if self.told is not None and (self.told_below_one or tau > ALMOST_ONE):
            most = max(np.sqrt(2 * (1 - tau)), TOLD_ROUNDING)
            labels = _told_apart(labels, self.told, most)
        return np.unique(labels, return_inverse=True)[1]


def _told_apart(labels, told, most):
    """Clusters without units whose numbers are more than `most` apart.

    Each unit stays with the first one of its cluster that is near enough.
    """
    result = labels.copy()
    for cluster in np.flatnonzero(np.bincount(labels) > 1):
        left = np.flatnonzero(labels == cluster)
        left = left[1:][_distances(told, left) > most]
        while len(left):
            result[left[0]] = number = result.max() + 1
            near = _distances(told, left) <= most
            result[left[1:][near]] = number
            left = left[1:][~near]
    return result


def _distances(told, units):
    """Of all but the first one from the first one."""
    return np.linalg.norm(told[units[1:]] - told[units[0]], axis=1)


class ByClusters:
    """One representative per cluster, chosen by `keep`."""

    def __init__(self, units: Units, linkage: str, keep: str, seed):
        self.units, self.linkage = units, linkage
        self.keep, self.seed = keep, seed
        self._found = {}

    def count_at(self, tau: float) -> int:
        """How many clusters there are."""
        return self._labels_at(tau).max() + 1

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
            return _nearest(self.units, kept[largest[-width:]])
        return Selection(np.unique(stands_for), stands_for)

    def _labels_at(self, tau):
        if tau not in self._found:
            labels = self.units.clusters_at(tau, self.linkage)
            self._found = {tau: labels}
        return self._found[tau]

    def _tau_for(self, width):
        low, high = 0.0, 1.0
        for _ in range(TAU_STEPS):
            tau = (low + high) / 2
            if self.count_at(tau) > width:
                high = tau
            else:
                low = tau
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

    def choose(self, width: int, tau: float | None = None) -> Selection:
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(self.units.filters.shape[1])
        return _nearest(self.units, order[:width])


class WithoutIdle:
    """Another selector's choice of the units that are not idle.

    Idle units go before all others.
    """

    def __init__(self, selector, is_idle: np.ndarray):
        """Args:
        selector: that of the other units.
        is_idle: which units are idle, not all, shape (n,).
        """
        self._selector = selector
        self._used, self._idle = map(np.flatnonzero, (~is_idle, is_idle))

    def count_at(self, tau: float) -> int:
        return self._selector.count_at(tau)

    def count_for(self, price: float) -> int:
        return self._selector.count_for(price)

    def choose(self, width: int, tau: float | None = None) -> Selection:
        used = min(width, len(self._used))
        chosen = self._selector.choose(used, tau)
        stands_for = np.arange(len(self._used) + len(self._idle))
        stands_for[self._used] = self._used[chosen.stands_for]
        idle = self._idle[width - used :]
        stands_for[idle] = self._used[chosen.kept[0]]
        kept = stands_for == np.arange(len(stands_for))
        return Selection(np.flatnonzero(kept), stands_for, idle)


class ByRank:
    """The first units of a ranking."""

    def __init__(self, units: Units, linkage: str, keep: str, seed):
        self.units = units

    def count_at(self, tau: float) -> int:
        """How many tell so much of the others."""
        return self.units.ranking.count_at(tau)

    def count_for(self, price: float) -> int:
        """How many take away at least so much error each."""
        return self.units.ranking.count_for(price)

    def choose(self, width: int, tau: float | None = None) -> Selection:
        return _nearest(self.units, self.units.ranking.order[:width])


def _nearest(units, kept) -> Selection:
    """These units; each other one is stood for by the most similar."""
    kept = np.sort(kept)
    return Selection(kept, kept[assign_to_nearest(units.filters, kept)])


def rank_by_norm(filters: np.ndarray) -> Ranking:
    """Units with large weights first.

    Source: Li et al., Pruning Filters for Efficient ConvNets (2017): the sum
    of absolute weights.
    """
    return _by_importance(np.abs(filters).sum(axis=0))


def rank_by_distances(filters: np.ndarray) -> Ranking:
    """Units far from all others first: those near the middle can go.

    Source: He et al., Filter Pruning via Geometric Median (FPGM, 2019): the
    sum of Euclidean distances to the other filters.
    """
    products = filters.T @ filters
    squares = np.diag(products)
    distances = squares + squares[:, None] - 2 * products
    return _by_importance(np.sqrt(distances.clip(0)).sum(axis=0))


def _by_importance(importance):
    return Ranking(np.argsort(-importance, kind="stable"))


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
# By norms or distances alone: they rank units, and know no error.
RANKS = {"l1": rank_by_norm, "fpgm": rank_by_distances}
# By what the consumers' inputs say, which takes data.
DATA_RANKS = ("pivoted", "greedy")
SELECTORS = {"clusters": ByClusters, "random": AtRandom} | dict.fromkeys(
    [*RANKS, *DATA_RANKS], ByRank
)
