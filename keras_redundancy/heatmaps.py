"""Similarity matrices to look at: by cluster, of a size, and as pixels."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_redundancy.clustering import cluster_filters
from keras_redundancy.similarity import cosine_similarity

# Of -1, 0 and 1.
COLORS = np.array([(33, 102, 172), (255, 255, 255), (178, 24, 43)])


def by_cluster(
    W: ArrayLike, tau: float, linkage: str = "average"
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The units of a layer, those of a cluster next to one another.

    Args:
        W: kernel matrix, shape (z, n).
        tau, linkage: as for `cluster_filters`.

    Returns:
        The numbers of the units, those of the largest cluster first, and for
        each of them its cluster; both of shape (n,).
    """
    clusters = cluster_filters(W, tau, linkage)
    sizes = np.bincount(clusters)
    units = np.lexsort((clusters, -sizes[clusters]))
    return units, clusters[units]


def similarities(
    W: ArrayLike, tau: float, linkage: str = "average", most: int = 256
) -> NDArray:
    """Cosines of a layer's units, ordered by cluster.

    Args:
        W: kernel matrix, shape (z, n).
        tau, linkage: as for `cluster_filters`.
        most: of more units than these, as many are shown, evenly spaced.

    Returns:
        Shape (m, m), with m = min(n, most).
    """
    W = np.asarray(W)
    units, _ = by_cluster(W, tau, linkage)
    return cosine_similarity(W[:, _spaced(units, most)])


def pairwise(W: ArrayLike, most: int = 1024) -> NDArray:
    """Cosines of all pairs of different units, each one once.

    Args:
        W: kernel matrix, shape (z, n).
        most: of more units than these, as many are compared, evenly spaced.

    Returns:
        Shape (m (m - 1) / 2,), with m = min(n, most).
    """
    W = np.asarray(W)
    W = W[:, _spaced(np.arange(W.shape[1]), most)]
    return cosine_similarity(W)[np.triu_indices(W.shape[1], 1)]


def pixels(matrix: NDArray, least: int = 128) -> NDArray[np.uint8]:
    """A picture of numbers from -1 (blue) by 0 (white) to 1 (red).

    Args:
        matrix: shape (height, width).
        least: a number is a square of pixels, so many that the picture is
            at least so high.

    Returns:
        Shape (height * k, width * k, 3), the colours red, green and blue.
    """
    shares = np.clip(matrix, -1, 1)[..., None]
    low, middle, high = COLORS
    colors = np.where(
        shares < 0,
        middle + shares * (middle - low),
        middle + shares * (high - middle),
    )
    size = -(-least // len(matrix))
    return np.kron(np.round(colors), np.ones((size, size, 1))).astype(np.uint8)


def _spaced(units, most):
    if len(units) <= most:
        return units
    return units[np.linspace(0, len(units) - 1, most).astype(int)]
