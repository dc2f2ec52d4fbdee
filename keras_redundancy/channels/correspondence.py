"""Which labels of one group correspond to which of another.

Units are compared, merged and cut place by place, so for two units it must be
known which channel of the one is the same thing as which of the other. Most
groups hold one label of a value, and labels of one value correspond. But the
labels of one value can be tied to one another: the four gates of an LSTM's
unit, the positions of a `Dense` that is reshaped to an image, the same filter
of every group of a grouped convolution. Such labels are distinguished by the
labels that they are tied to, and by the ties.
"""

import numpy as np

MULTIPLIERS = (0x9E3779B97F4A7C15, 0x165667B19E3779F9)


def colors(store, group: np.ndarray) -> np.ndarray:
    """A number for every label; labels of two groups correspond where equal.

    Within a group no two labels share a number. Starting from the numbers of
    the values, groups that hold two labels of one value are refined: the new
    number of a label is made from its own and those of the labels that it is
    tied to (color refinement, Weisfeiler and Leman 1968). Labels that are still
    alike are symmetric: ties between them are broken arbitrarily.

    Args:
        store: a `LabelStore`.
        group: the group of every label, shape (labels,).

    Returns:
        Integers of shape (labels,).
    """
    color = store.births()
    unclear = np.zeros(group.max(initial=-1) + 1, bool)
    unclear[group[_first_twins(group, color)]] = True
    if not unclear.any():
        return color
    inside = np.flatnonzero(unclear[group])
    local = np.full(len(group), -1)
    local[inside] = np.arange(len(inside))
    a, b, tie = store.edges()
    among = unclear[group[a]]
    ties = local[a[among]], local[b[among]], tie[among].astype(np.uint64)
    refined = _refined(group[inside], _mixed(color[inside]), ties)
    _, number = np.unique(refined, return_inverse=True)
    color[inside] = color.max(initial=-1) + 1 + number
    return color


def _refined(group, color, ties):
    while True:
        count = -1
        while count < (count := len(np.unique(color))):
            color = _mixed(color + _seen_by(color, ties))
        first = _first_twins(group, color)
        if not len(first):
            return color
        color[first] = _mixed(color[first] + np.uint64(MULTIPLIERS[1]))


def _seen_by(color, ties):
    """For every label the sum over its ties of what is at the other end.

    The two ends of a tie count differently, so that in a ring of labels the
    one before and the one behind a label differ.
    """
    a, b, tie = ties
    result = np.zeros(len(color), np.uint64)
    to_b, to_a = (_mixed(2 * tie + np.uint64(end)) for end in (1, 2))
    np.add.at(result, a, _mixed(color[b] + to_b))
    np.add.at(result, b, _mixed(color[a] + to_a))
    return result


def _first_twins(group, color):
    """The first twin of every group that has two labels of one color."""
    order = np.lexsort((np.arange(len(color)), color, group))
    twin = (np.diff(group[order]) == 0) & (np.diff(color[order]) == 0)
    candidates = order[:-1][twin]
    _, first = np.unique(group[candidates], return_index=True)
    return candidates[first]


def _mixed(number):
    """A hash of 64 bits of each number."""
    number = np.asarray(number).astype(np.uint64)
    number = (number ^ (number >> np.uint64(31))) * np.uint64(MULTIPLIERS[0])
    return number ^ (number >> np.uint64(29))
