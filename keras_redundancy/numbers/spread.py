"""How widely the cosines of a layer's filters, and their norms, are spread."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_redundancy.numbers.similarity import (
    as_kernel_matrix,
    similarity_blocks,
    unit_filters,
)


def cosine_kurtosis(W: ArrayLike) -> float | None:
    """Kurtosis of the cosines of all pairs of different units.

    ``mean((c - m)**4) / mean((c - m)**2)**2`` with the mean cosine ``m``: 3
    for a normal distribution, more where a few pairs are far more alike than
    the others.

    Args:
        W: kernel matrix, shape ``(z, n)``, one filter per column. Memory
            grows with ``z * n``, not with ``n * n``.

    Returns:
        The kurtosis, at least 1; None where all cosines are the same, as of
        fewer than three units.

    Raises:
        TypeError, ValueError: as `cosine_similarity`.

    Source: RoyChowdhury, Sharma and Learned-Miller, Reducing Duplicate
    Filters in Deep Neural Networks (2017), as a measure of duplication.
    """
    units, _ = unit_filters(as_kernel_matrix(W))
    pairs = len(units) * (len(units) - 1) / 2
    if pairs < 2:
        return None

    def moment(power, around):
        total = 0.0
        for _, block in similarity_blocks(units):
            upper = np.triu(np.ones(block.shape, bool), 1)
            cosines = block[upper].astype(np.float64)
            total += float(((cosines - around) ** power).sum())
        return total / pairs

    mean = moment(1, 0.0)
    variance = moment(2, mean)
    if variance <= np.finfo(units.dtype).eps ** 2:
        return None
    return moment(4, mean) / variance**2


def norm_spread(
    W: ArrayLike, clusters: NDArray[np.intp] | None = None
) -> float:
    """Standard deviation of the filters' norms, as a share of their mean.

    Args:
        W: kernel matrix, shape ``(z, n)``, one filter per column.
        clusters: an integer for each unit, shape ``(n,)``, as
            `cluster_filters` returns: deviations are then those from the mean
            norm of a unit's own cluster, and units that are alone in their
            cluster are left out. Default: all units are one cluster.

    Returns:
        The spread; 0 where nothing is compared, or all filters are zero.

    Raises:
        TypeError, ValueError: as `as_kernel_matrix`; or `clusters` does not
            have one number for each unit.
    """
    norms = np.linalg.norm(as_kernel_matrix(W).astype(np.float64), axis=0)
    labels = np.zeros(len(norms), int) if clusters is None else clusters
    if np.shape(labels) != norms.shape:
        raise ValueError(
            f"clusters has shape {np.shape(labels)}, but W has {len(norms)} "
            "units. Pass what cluster_filters(W, tau) returns."
        )
    sizes = np.bincount(labels)
    means = np.bincount(labels, norms) / np.maximum(sizes, 1)
    with_others = sizes[labels] > 1
    if not with_others.any() or not norms[with_others].any():
        return 0.0
    deviations = (norms - means[labels])[with_others]
    return float(np.sqrt(np.mean(deviations**2)) / np.mean(norms[with_others]))
