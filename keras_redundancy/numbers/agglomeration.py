"""Cutting an agglomerative clustering at a threshold, piece by piece.

A cut needs no whole dendrogram. Clusters merge at a similarity of at least
`threshold` only within a connected component of the graph of pairs that are
at least that similar, so that `components` finds these first and each is cut
alone. A component whose pairs all reach the threshold is one cluster. The
others are cut by fastcluster's linkage (SciPy's, in half the time), small
ones several at a time; a component too large for that goes through a
nearest-neighbour chain on a similarity matrix; and one too large for a matrix
is first shrunk by merging reciprocal nearest neighbours, which needs blocks
of similarities only.

The chain and the shrinking rest on reducibility, which average and complete
linkage have: a merge never brings clusters closer to a third one, so that a
reciprocal pair of nearest neighbours can be merged whenever it is met, and
a cluster whose nearest neighbour is below the threshold is final. See
Müllner, *Modern hierarchical, agglomerative clustering algorithms* (2011).

Similarities are cosines; "label" here is any integer that names a cluster.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from fastcluster import linkage
from numpy.typing import NDArray
from scipy.spatial.distance import squareform

from keras_redundancy.numbers import similarity as _similarity
from keras_redundancy.numbers.components import Labels

# Units of small components that share one call of linkage, whose overhead is
# that of about 64 units.
UNITS_PER_CALL = 128
# Largest component for linkage, which takes two float64 copies of the upper
# triangle: 0.5 GiB.
LINKAGE_UNITS = 8192
# Largest similarity matrix for the nearest-neighbour chain under average
# linkage: 0.25 GiB, which is 8,192 units in float32.
CHAIN_BYTES = 2**28


def cut_components(
    component: Labels, degree: Labels, cut: Callable[[Labels], Labels]
) -> Labels:
    """Average or complete linkage inside each component.

    Args:
        component: component of each unit, from `components`, shape
            ``(n,)``.
        degree: from `components`, shape ``(n,)``.
        cut: labels, from 0, for the units whose indices it is given: those
            of one component or of a few small ones, shape ``(m,)``.

    Returns:
        Labels of shape ``(n,)``.
    """
    sizes = np.bincount(component)
    pairs = np.bincount(component, weights=degree)
    labels = component.copy()
    next_label = len(sizes)
    for units in _batches(component, sizes, pairs < sizes.astype(float) ** 2):
        parts = cut(units)
        labels[units] = next_label + parts
        next_label += parts.max() + 1
    return labels


def cut_dendrogram(
    similarity: NDArray, threshold: float, method: str
) -> Labels:
    """The dendrogram of a similarity matrix, cut at `threshold`.

    Args:
        similarity: shape ``(m, m)``, ``m > 1``; the upper triangle is read.
        threshold: similarity at which clusters still merge.
        method: "average" or "complete".

    Returns:
        Labels of shape ``(m,)``: integers from 0, some may be unused.
    """
    condensed = squareform(similarity, checks=False)
    return cut_condensed(condensed, threshold, method)


def cut_condensed(condensed: NDArray, threshold: float, method: str) -> Labels:
    """`cut_dendrogram` of an upper triangle, shape ``(m (m - 1) / 2,)``."""
    # Linkage merges the smallest numbers first, whatever their sign.
    tree = linkage(
        np.negative(condensed, dtype=np.float64), method, preserve_input=False
    )
    return _cut_tree(tree, -threshold)


def _cut_tree(tree: NDArray, height: float) -> Labels:
    """Labels of the leaves of a linkage matrix after merges up to `height`.

    What SciPy's `fcluster` gives, without its checks, which would take
    longer than the merges of a small layer.
    """
    leaves = len(tree) + 1
    merges = np.searchsorted(tree[:, 2], height, side="right")
    parent = np.arange(leaves + merges)
    children = tree[:merges, :2].astype(np.intp)
    parent[children] = np.arange(leaves, leaves + merges)[:, None]
    return _roots(parent)[:leaves]


def cut_by_chain(
    similarity: NDArray, sizes: NDArray, threshold: float, method: str
) -> Labels:
    """Merge clusters along chains of nearest neighbours.

    Takes time in proportion to ``m * m`` whatever the data, and no memory
    beside the matrix.

    Args:
        similarity: linkage similarity of ``m`` clusters, shape ``(m, m)``,
            symmetric up to rounding. Overwritten.
        sizes: units in each cluster, shape ``(m,)``.
        threshold: similarity at which clusters still merge.
        method: "average" or "complete".

    Returns:
        Labels of shape ``(m,)``.
    """
    m = len(similarity)
    sizes = sizes.astype(np.float64)
    merged_into = np.arange(m)
    np.fill_diagonal(similarity, -np.inf)
    # Added to a row to hide clusters that are merged away or final.
    hidden = np.zeros(m, similarity.dtype)
    row = np.empty_like(hidden)
    chain: list[int] = []
    for first in range(m):
        if hidden[first] == 0:
            chain.append(first)
        while chain:
            tip = chain[-1]
            np.add(similarity[tip], hidden, out=row)
            nearest = int(row.argmax())
            # Ties go to the previous cluster, or a chain could run in rings.
            if len(chain) > 1 and row[chain[-2]] == row[nearest]:
                nearest = chain[-2]
            if row[nearest] < threshold:
                hidden[tip] = -np.inf
                chain.pop()
            elif len(chain) > 1 and nearest == chain[-2]:
                del chain[-2:]
                _merge_rows(similarity, sizes, nearest, tip, method)
                hidden[tip] = -np.inf
                merged_into[tip] = nearest
                if not chain:
                    chain.append(nearest)
            else:
                chain.append(nearest)
    return _roots(merged_into)


def cut_by_means(means: NDArray, threshold: float) -> Labels:
    """Average linkage of more units than a similarity matrix can hold.

    Args:
        means: one filter of length 1 per row, shape ``(m, z)``. Overwritten.
        threshold: similarity at which clusters still merge.

    Returns:
        Labels of shape ``(m,)``.
    """
    limit = math.isqrt(CHAIN_BYTES // means.dtype.itemsize)
    labels, alive, sizes = shrink_by_reciprocal_pairs(means, threshold, limit)
    if len(alive) == 0:
        return labels
    left = means[: len(alive)]
    parts = cut_by_chain(left @ left.T, sizes, threshold, "average")
    merged_into = np.arange(len(means))
    merged_into[alive] = alive[parts]
    return merged_into[labels]


def shrink_by_reciprocal_pairs(
    means: NDArray, threshold: float, wanted: int
) -> tuple[Labels, Labels, NDArray]:
    """Average linkage from blocks of similarities, until few clusters remain.

    With filters of length 1, the average similarity of two clusters is the
    product of their mean filters. In each round all reciprocal nearest
    neighbours at or above the threshold merge, and clusters whose nearest
    neighbour is below it leave.

    Args:
        means: one filter of length 1 per row, shape ``(m, z)``. Overwritten:
            its first rows become the mean filters of the clusters that
            remain.
        threshold: similarity at which clusters still merge.
        wanted: number of remaining clusters at which to stop.

    Returns:
        ``(labels, remaining, sizes)``: a label for each of the ``m`` units,
        shape ``(m,)``; the labels of the clusters that remain in the order
        of their rows, and how many units they hold, both of shape ``(r,)``.
    """
    labels = np.arange(len(means))
    alive = np.arange(len(means))
    sizes = np.ones(len(means))
    nearest = np.empty(len(means), np.intp)
    best = np.full(len(means), np.inf)
    is_stale = np.ones(len(means), bool)
    while len(alive) > wanted:
        _update_nearest(means[: len(alive)], nearest, best, is_stale)
        is_final = best < threshold
        first, second = _reciprocal_pairs(nearest, best, threshold)
        _merge_means(means, sizes, first, second)
        merged_into = np.arange(len(means))
        merged_into[alive[second]] = alive[first]
        labels = merged_into[labels]

        is_changed = is_final.copy()
        is_changed[first] = is_changed[second] = True
        is_stale = is_changed[nearest]
        is_stale[first] = True
        stays = ~is_final
        stays[second] = False
        nearest = (np.cumsum(stays) - 1)[nearest][stays]
        is_stale, best = is_stale[stays], best[stays]
        alive, sizes = alive[stays], sizes[stays]
        _move_rows_up(means, np.flatnonzero(stays))
    return labels, alive, sizes


def _batches(
    component: Labels, sizes: Labels, is_open: NDArray[np.bool_]
) -> Iterator[NDArray[np.intp]]:
    """Sorted units of open components, small components several at a time.

    Units of different components never merge, so that sharing a dendrogram
    changes nothing.
    """
    opened = np.flatnonzero(is_open)
    units = np.flatnonzero(is_open[component])
    units = units[np.argsort(component[units], kind="stable")]
    begin = end = 0
    for size in sizes[opened]:
        if end > begin and end - begin + size > UNITS_PER_CALL:
            yield np.sort(units[begin:end])
            begin = end
        end += size
    if end > begin:
        yield np.sort(units[begin:end])


def _merge_rows(
    similarity: NDArray, sizes: NDArray, into: int, other: int, method: str
) -> None:
    """Merge cluster `other` into cluster `into`, in place."""
    if method == "average":
        total = sizes[into] + sizes[other]
        row = similarity[into] * (sizes[into] / total)
        row += similarity[other] * (sizes[other] / total)
        sizes[into] = total
    else:
        row = np.minimum(similarity[into], similarity[other])
    similarity[into] = row
    similarity[:, into] = row
    similarity[into, into] = -np.inf


def _roots(merged_into: Labels) -> Labels:
    """The cluster that each cluster ended up in."""
    while True:
        further = merged_into[merged_into]
        if np.array_equal(further, merged_into):
            return merged_into
        merged_into = further


def _update_nearest(
    means: NDArray,
    nearest: Labels,
    best: NDArray,
    is_stale: NDArray[np.bool_],
) -> None:
    """Find the nearest neighbours of the stale rows, in place."""
    stale = np.flatnonzero(is_stale)
    rows = max(1, _similarity.BLOCK_ELEMENTS // len(means))
    for start in range(0, len(stale), rows):
        part = stale[start : start + rows]
        block = means[part] @ means.T
        counter = np.arange(len(part))
        block[counter, part] = -np.inf
        nearest[part] = block.argmax(axis=1)
        best[part] = block[counter, nearest[part]]


def _reciprocal_pairs(
    nearest: Labels, best: NDArray, threshold: float
) -> tuple[Labels, Labels]:
    """Pairs of nearest neighbours of each other that may merge."""
    own = np.arange(len(nearest))
    may_merge = (nearest[nearest] == own) & (own < nearest)
    # Seen from either side, as rounding can differ.
    may_merge &= (best >= threshold) & (best[nearest] >= threshold)
    first = np.flatnonzero(may_merge)
    if first.size == 0 and best.max() >= threshold:
        # Rings of ties, or of similarities equal up to rounding.
        first = best.argmax(keepdims=True)
    return first, nearest[first]


def _merge_means(
    means: NDArray, sizes: NDArray, first: Labels, second: Labels
) -> None:
    """Mean filters of merged pairs into the rows `first`, in place."""
    rows = max(1, _similarity.BLOCK_ELEMENTS // means.shape[1])
    total = sizes[first] + sizes[second]
    share = (sizes[first] / total).astype(means.dtype)[:, None]
    for start in range(0, len(first), rows):
        part = slice(start, start + rows)
        a, b = first[part], second[part]
        means[a] = means[a] * share[part] + means[b] * (1 - share[part])
    sizes[first] = total


def _move_rows_up(array: NDArray, kept: Labels) -> None:
    """``array[:len(kept)] = array[kept]`` in little memory, `kept` sorted."""
    rows = max(1, _similarity.BLOCK_ELEMENTS // array.shape[1])
    for start in range(0, len(kept), rows):
        part = kept[start : start + rows]
        array[start : start + len(part)] = array[part]
