"""Similarity matrices as pictures: ordered by cluster, as PNG."""

import struct
import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_redundancy.numbers.clustering import cluster_filters
from keras_redundancy.numbers.similarity import cosine_similarity

# RGB colours of -1, 0 and 1.
COLORS = np.array([(33, 102, 172), (255, 255, 255), (178, 24, 43)])


def by_cluster(
    W: ArrayLike, tau: float, linkage: str = "average"
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The units of a layer in the order of their clusters.

    Args:
        W: kernel matrix, shape (z, n).
        tau, linkage: as for `cluster_filters`.

    Returns:
        (units, clusters), both of shape (n,): the numbers of the units, those
        of the largest cluster first, and the cluster of each.
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
        most: of a wider layer this many units are shown, evenly spaced.

    Returns:
        Shape (m, m), with m = min(n, most).
    """
    W = np.asarray(W)
    units, _ = by_cluster(W, tau, linkage)
    return cosine_similarity(W[:, _spaced(units, most)])


def pairwise(W: ArrayLike, most: int = 1024) -> NDArray:
    """Cosines of all pairs of different units, each pair once.

    Args:
        W: kernel matrix, shape (z, n).
        most: of a wider layer this many units are compared, evenly spaced.

    Returns:
        Shape (m (m - 1) / 2,), with m = min(n, most).
    """
    W = np.asarray(W)
    W = W[:, _spaced(np.arange(W.shape[1]), most)]
    return cosine_similarity(W)[np.triu_indices(W.shape[1], 1)]


def png(matrix: NDArray, least: int = 1) -> tuple[tuple[int, int], bytes]:
    """A picture of numbers from -1 (blue) by 0 (white) to 1 (red), as a PNG.

    Args:
        matrix: shape (height, width).
        least: the least height of the picture in pixels; each number becomes
            a square of pixels.

    Returns:
        ((width, height) in pixels, the bytes of the file).
    """
    size = -(-least // len(matrix))
    # 33 colours, and a byte for each pixel.
    numbers = np.round(16 * (np.clip(matrix, -1, 1) + 1)).astype(np.uint8)
    numbers = np.kron(numbers, np.ones((size, size), np.uint8))
    height, width = numbers.shape
    # In a PNG each line begins with the number of its filter, 0 for none.
    lines = np.pad(numbers, ((0, 0), (1, 0))).tobytes()
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", np.ascontiguousarray(_palette(33)).tobytes()),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    return (width, height), b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _palette(count):
    """`count` RGB colours from -1 to 1, shape (count, 3)."""
    shares = np.linspace(-1, 1, count)
    colors = [np.interp(shares, (-1, 0, 1), part) for part in COLORS.T]
    return np.round(colors).T.astype(np.uint8)


def _spaced(units, most):
    if len(units) <= most:
        return units
    return units[np.linspace(0, len(units) - 1, most).astype(int)]
