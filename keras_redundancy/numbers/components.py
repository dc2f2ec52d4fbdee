"""Connected components of the graph of pairs of units that are alike.

Two units are connected if their similarity reaches a threshold. Units of
different components never share a cluster, so that each component can be
clustered alone.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Units per side of a part of a matrix that is transposed in the cache.
TILE = 512

# An integer for each unit: the name of a component or of a cluster.
Labels = NDArray[np.intp]


def find_components(
    blocks: Iterable[tuple[int, NDArray]], n: int, threshold: float
) -> tuple[Labels, Labels]:
    """Components of the graph of pairs with similarity >= `threshold`.

    Args:
        blocks: pairs ``(start, block)`` that cover the upper triangle of a
            similarity matrix, `block` being its rows from `start` on and its
            columns ``start:n``. The diagonal must reach the threshold.
        n: number of units.
        threshold: smallest similarity of connected units.

    Returns:
        ``(labels, degree)``, both of shape ``(n,)``: the component of each
        unit, numbered from 0 without gaps, and how many units are at least
        `threshold` similar to it, counting itself.
    """
    labels = np.arange(n)
    degree = np.zeros(n, np.intp)
    for start, block in blocks:
        mask = block >= threshold
        rows = len(mask)
        edges = np.count_nonzero(mask)
        if edges == rows:
            degree[start : start + rows] += 1
            continue
        degree[start : start + rows] += np.count_nonzero(mask, axis=1)
        beyond = np.count_nonzero(mask[:, rows:], axis=0)
        degree[start + rows :] += beyond
        if edges > mask.size // 64:
            labels = _join_first_neighbours(labels, mask, start)
            if not labels.any():
                continue
            row_labels = labels[start : start + rows]
            mask &= row_labels[:, None] != labels[start:]
        first, second = _edges(mask)
        labels = _join(labels, start + first, start + second)
    return labels, degree


def find_components_at_once(
    similarity: NDArray, threshold: float
) -> tuple[Labels, Labels]:
    """`find_components` for a whole similarity matrix ``(n, n)``."""
    mask = similarity >= threshold
    n = len(mask)
    if n == 0 or np.count_nonzero(mask) == n:
        return np.arange(n), np.ones(n, np.intp)
    _make_symmetric(mask)
    degree = np.count_nonzero(mask, axis=1)
    # Where most pairs are edges, most units are in the first component, and
    # listing all of the edges would take longer than anything else.
    is_first = _reachable(mask, int(degree.argmax()))
    labels = np.zeros(n, np.intp)
    others = np.flatnonzero(~is_first)
    if len(others):
        mask[is_first] = False
        place = np.cumsum(~is_first) - 1
        first, second = _edges(mask)
        labels[others] = 1 + _join(
            np.arange(len(others)), place[first], place[second]
        )
    return labels, degree


def _make_symmetric(mask: NDArray) -> None:
    """`mask |= mask.T`, tile by tile: rounding may differ by the order."""
    starts = range(0, len(mask), TILE)
    for i in starts:
        for j in range(0, i + 1, TILE):
            a = mask[i : i + TILE, j : j + TILE]
            b = mask[j : j + TILE, i : i + TILE]
            a |= b.T
            b |= a.T


def _reachable(mask: NDArray[np.bool_], unit: int) -> NDArray[np.bool_]:
    """Which units of a symmetric graph ``(n, n)`` are connected to `unit`."""
    reached = mask[unit].copy()
    frontier = np.flatnonzero(reached)
    while len(frontier):
        found = mask[frontier].any(axis=0) & ~reached
        reached |= found
        frontier = np.flatnonzero(found)
    return reached


def _edges(mask: NDArray[np.bool_]) -> tuple[Labels, Labels]:
    """`np.nonzero`, which is ten times slower for two axes than for one."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _join(labels: Labels, first: Labels, second: Labels) -> Labels:
    """Components after connecting the units `first` with `second`."""
    ends = labels[first], labels[second]
    is_new = ends[0] != ends[1]
    if not is_new.any():
        return labels
    count = labels.max() + 1
    ends = ends[0][is_new], ends[1][is_new]
    graph = coo_array((np.ones(len(ends[0])), ends), shape=(count, count))
    _, joined = connected_components(graph, directed=False)
    return joined.astype(np.intp)[labels]


def _join_first_neighbours(
    labels: Labels, mask: NDArray[np.bool_], start: int
) -> Labels:
    """Connect every row and column of `mask` with the first of its edges.

    What remains to be connected after that is little, even where most
    pairs are edges.
    """
    rows = np.arange(len(mask))
    columns = np.arange(mask.shape[1])
    row_edge = mask.argmax(axis=1)
    column_edge = mask.argmax(axis=0)
    has_edge = mask[column_edge, columns]
    first = np.concatenate([rows, columns[has_edge]])
    second = np.concatenate([row_edge, column_edge[has_edge]])
    return _join(labels, start + first, start + second)
