"""Select: which units stay, and which kept unit stands for each other one."""

import dataclasses

import numpy as np

from keras_redundancy.agglomeration import UNITS_PER_CALL
from keras_redundancy.pruning.filters import norms_along
from keras_redundancy.similarity import assign_to_nearest, cosine_similarity


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """Attributes:
    kept: the units that stay, shape (n_f,), ascending.
    stands_for: for every unit the kept unit in its place, shape (n,).
    """

    kept: np.ndarray
    stands_for: np.ndarray

    @property
    def removed(self) -> np.ndarray:
        """The units that go, shape (n_r,), ascending."""
        stays = self.stands_for == np.arange(len(self.stands_for))
        return np.flatnonzero(~stays)


def select_clusters(units, width, keep, rng) -> Selection:
    """One representative per cluster, chosen by `keep`.

    Where `width` is more than the number of clusters, the units least like
    their representatives stay too.

    Args:
        units: the `Comparison` of n units.
        width: how many units to keep, from the number of clusters to n.
        keep: a key of `REPRESENTATIVES`.
        rng: a NumPy random generator.
    """
    _, labels = np.unique(units.labels, return_inverse=True)
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    representative = order[starts]
    several = np.flatnonzero(sizes > 1)
    clusters = [order[starts[i] : starts[i] + sizes[i]] for i in several]
    representative[several] = REPRESENTATIVES[keep](units, clusters, rng)
    stands_for = representative[labels]
    extra = width - len(sizes)
    if extra > 0:
        removed = np.flatnonzero(stands_for != np.arange(len(labels)))
        loosest = _cosines(units, removed, stands_for[removed]).argsort()
        restored = removed[loosest[:extra]]
        stands_for[restored] = restored
    return Selection(np.unique(stands_for), stands_for)


def select_random(units, width, keep, rng) -> Selection:
    """`width` units at random, whatever the clusters (method B).

    Each other unit is stood for by the kept one that it is most similar to.

    Source: Ayinde, Inanc and Zurada, Redundant Feature Pruning for
    Accelerated Inference in Deep Neural Networks (2018), method B.
    """
    kept = rng.choice(len(units.labels), size=width, replace=False)
    kept.sort()
    return Selection(kept, kept[assign_to_nearest(units.filters, kept)])


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
SELECTORS = {"clusters": select_clusters, "random": select_random}
