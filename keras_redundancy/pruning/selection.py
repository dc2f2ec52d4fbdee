"""Select: which units stay, and which kept unit stands for each other one."""

import dataclasses

import numpy as np

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
    clusters = np.split(order, np.cumsum(sizes)[:-1])
    choose = REPRESENTATIVES[keep]
    representative = np.array(
        [
            cluster[0] if len(cluster) == 1 else choose(units, cluster, rng)
            for cluster in clusters
        ]
    )
    stands_for = representative[labels]
    extra = width - len(clusters)
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


def _random_unit(units, cluster, rng):
    return rng.choice(cluster)


def _medoid(units, cluster, rng):
    """The unit that is most similar to its cluster on average."""
    if len(cluster) == 2:
        return cluster[0]
    similarity = cosine_similarity(units.filters[:, cluster])
    return cluster[similarity.sum(axis=0).argmax()]


def _largest(units, cluster, rng):
    """The unit with the largest norm."""
    return cluster[units.norms[cluster].argmax()]


def _first(units, cluster, rng):
    """The place that the mean of the cluster takes."""
    return cluster[0]


def _cosines(units, a, b):
    products = np.einsum("zi,zi->i", units.filters[:, a], units.filters[:, b])
    norms = np.linalg.norm(units.filters, axis=0)
    norms = np.where(norms > 0, norms, 1)
    return products / (norms[a] * norms[b])


REPRESENTATIVES = {
    "random": _random_unit,
    "medoid": _medoid,
    "largest": _largest,
    "mean": _first,
}
SELECTORS = {"clusters": select_clusters, "random": select_random}
