"""Clusters of units whose filters point the same way.

The clusters are those of agglomerative clustering on cosine distance, cut
at ``1 - tau`` (after Ayinde et al. 2018 for average linkage, RoyChowdhury et
al. 2017 for single linkage, which gives connected components). Layers of up
to `DENSE_UNITS` units are compared in one product; wider ones block by
block, without ever holding all similarities.
"""

from __future__ import annotations  # help() shows the names of types.

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import squareform

from keras_redundancy._shared.arguments import check_fraction, check_option
from keras_redundancy.numbers import agglomeration, components
from keras_redundancy.numbers.similarity import (
    as_kernel_matrix,
    cosine_and_zeros,
    similarity_blocks,
    sketches,
    unit_filters,
)

LINKAGES = ("average", "complete", "single")

# Widest layer that is compared in one product (64 MiB of float32).
DENSE_UNITS = 4096
# Rounding that `tau` allows for, by dtype.
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
# Above this `tau`, float32 finds candidates that are up to SLACK less
# similar, and float64 decides. Rounding of a float32 similarity is about
# 5e-7 for most filters and about 1e-5 for constant ones.
DOUBLE_ABOVE = 1 - 1e-4
SLACK = 3e-5
# Narrowest layer, and most of a filter (one part of so many), for sketches.
SKETCHED_UNITS = 1024
SKETCHED_SHARE = 4
# Similar pairs per unit above which a layer is cut without its components.
PAIRS_PER_UNIT = 2


def cluster_filters(
    W: ArrayLike, tau: float, linkage: str = "average"
) -> NDArray[np.intp]:
    """Cluster the units of a layer by the cosine similarity of filters.

    Clusters merge while their linkage similarity is at least `tau`: the
    average, smallest ("complete") or largest ("single") cosine similarity
    between units of the one and units of the other. Rounding is allowed for:
    1e-6 below `tau` still merges in float32, and 1e-12 in float64. Where
    `tau` is above 0.9999, float32 filters that come close are compared in
    float64, so that ``tau=1`` finds filters that are equal up to a positive
    factor and no others.

    Zero filters have no direction; they form a cluster of their own.

    Args:
        W: kernel matrix, shape ``(z, n)``, one filter of ``z`` weights per
            column. It is not modified.
        tau: similarity in (0, 1].
        linkage: "average", "complete" or "single".

    Returns:
        Cluster of each unit, shape ``(n,)``: integers from 0, numbered in
        the order in which clusters first appear.

    Memory:
        For ``n`` over 4096: a second copy of `W`; in a component of over 8192
        units at `tau`, also up to 0.5 GiB with average linkage, or, with
        complete linkage, the similarity matrix of that component.

    Raises:
        TypeError: if `W` does not hold real numbers or `tau` is not one.
        ValueError: if `W` is not a matrix, is empty, or holds NaN or
            infinity; if `tau` is out of range; if `linkage` is unknown.
    """
    tau = check_tau(tau)
    check_option("linkage", linkage, LINKAGES)
    matrix = as_kernel_matrix(W)
    labels = _cluster_by_sketches(matrix, tau, linkage)
    if labels is None:
        labels = _cluster(matrix, tau, linkage)
    return _in_order_of_appearance(labels)


def _cluster_by_sketches(
    matrix: NDArray, tau: float, linkage: str
) -> NDArray[np.intp] | None:
    """`_cluster` for long filters: parts of them already differ.

    Units whose sketches are not similar are in no cluster together, so that
    only what the sketches leave connected is compared in full.

    Returns:
        Labels ``(n,)``, or None where sketches would not save time.
    """
    z, n = matrix.shape
    # With so many weights, hardly any sketches of random filters reach tau.
    weights = int(1.5 * z * (1 - tau)) + 64
    if n < SKETCHED_UNITS or weights * SKETCHED_SHARE > z:
        return None
    short = sketches(matrix, weights)
    if short is None:
        return None
    blocks = similarity_blocks(short)
    component, _ = components.find_components(blocks, n, tau - 2 * SLACK)
    del short, blocks
    # The filters of one component side by side: one pass over the matrix.
    order = np.argsort(component, kind="stable")
    is_alone = np.bincount(component)[component] == 1
    order = order[~is_alone[order]]
    compared = np.take(matrix, order, axis=1)
    column = np.empty(n, np.intp)
    column[order] = np.arange(len(order))

    def cut(units: NDArray[np.intp]) -> NDArray[np.intp]:
        columns = column[units]
        start, stop = columns.min(), columns.max() + 1
        labels = _cluster(compared[:, start:stop], tau, linkage)
        return labels[columns - start]

    return agglomeration.cut_components(component, np.ones(n), cut)


def _cluster(matrix: NDArray, tau: float, linkage: str) -> NDArray[np.intp]:
    """`cluster_filters` for checked arguments, with labels in any order."""
    n = matrix.shape[1]
    is_wide = n > DENSE_UNITS
    compared, is_zero = (unit_filters if is_wide else cosine_and_zeros)(matrix)
    used = np.flatnonzero(~is_zero)
    if len(used) < n:
        compared = compared[used] if is_wide else compared[np.ix_(used, used)]
    in_double = matrix.dtype == np.float32 and tau > DOUBLE_ABOVE
    tolerance = SLACK if in_double else TOLERANCE[matrix.dtype.name]
    # A tau under the tolerance must still ask for more than a right angle.
    threshold = tau - min(tolerance, tau / 2)
    labels = np.full(n, -1)
    if not (is_wide or in_double or linkage == "single"):
        whole = _cut_whole(compared, threshold, linkage)
        if whole is not None:
            labels[used] = whole
            return labels
    if is_wide:
        blocks = similarity_blocks(compared)
        component, degree = components.find_components(
            blocks, len(used), threshold
        )
    else:
        component, degree = components.find_components_at_once(
            compared, threshold
        )
    labels[used] = component
    close = used[degree > 1]
    if in_double and len(close):
        del compared
        exact = matrix[:, close].astype(np.float64)
        labels[close] = n + 1 + _cluster(exact, tau, linkage)
    elif linkage != "single" and len(close):
        cut = functools.partial(
            _cut_wide if is_wide else _cut_dense, compared, threshold, linkage
        )
        labels[used] = agglomeration.cut_components(component, degree, cut)
    return labels


def _cut_whole(
    similarity: NDArray, threshold: float, linkage: str
) -> NDArray[np.intp] | None:
    """Labels ``(m,)`` without components; None where few pairs are similar.

    Where many pairs reach the threshold, finding components takes longer
    than they save.
    """
    pairs = squareform(similarity, checks=False)
    similar = np.count_nonzero(pairs >= threshold)
    if similar <= PAIRS_PER_UNIT * len(similarity):
        return None
    if similar == len(pairs):
        return np.zeros(len(similarity), np.intp)
    return agglomeration.cut_condensed(pairs, threshold, linkage)


def _cut_dense(similarity, threshold, linkage, units) -> NDArray[np.intp]:
    """Labels of some units ``(m,)``, from similarities ``(n, n)``."""
    if len(units) < len(similarity):
        similarity = similarity[np.ix_(units, units)]
    return agglomeration.cut_dendrogram(similarity, threshold, linkage)


def _cut_wide(filters, threshold, linkage, units) -> NDArray[np.intp]:
    """Labels of some units ``(m,)``, from filters of length 1, ``(n, z)``."""
    part = filters[units]
    if len(units) <= agglomeration.LINKAGE_UNITS:
        return agglomeration.cut_dendrogram(part @ part.T, threshold, linkage)
    if linkage == "complete":
        sizes = np.ones(len(units))
        return agglomeration.cut_by_chain(
            part @ part.T, sizes, threshold, linkage
        )
    return agglomeration.cut_by_means(part, threshold)


def _in_order_of_appearance(labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Labels renumbered from 0 in the order of their first units."""
    _, first, inverse = np.unique(
        labels, return_index=True, return_inverse=True
    )
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def check_tau(tau: object, where: str = "tau") -> float:
    """`tau` as a float in (0, 1].

    Args:
        tau: a number.
        where: what to call it in a message.

    Raises:
        TypeError: it is no real number.
        ValueError: it is NaN or out of range.
    """
    meaning = "the cosine similarity above which units count as redundant"
    return check_fraction(where, tau, meaning, one=True, example=0.9)
