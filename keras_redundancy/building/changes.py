"""Changes of the axes of variables, and the arrays that they make."""

import dataclasses
import math

import numpy as np
from scipy import sparse

from keras_redundancy.channels import Role, VariableAxis
from keras_redundancy.channels.filters import read


@dataclasses.dataclass(eq=False)
class AxisChange:
    """Which entries of one axis of a variable are removed.

    Attributes:
        on: the axis.
        kept: positions of kept units, shape (kept,).
        source, target: positions of removed units, and of the unit that
            stands for each of them, both of shape (removed,).
        idle: which of the removed units are constant, shape (removed,): no
            unit stands for these.
    """

    on: VariableAxis
    kept: np.ndarray
    source: np.ndarray
    target: np.ndarray
    idle: np.ndarray

    def only(self, chosen: np.ndarray) -> "AxisChange":
        """The change for some of the removed units: a mask or their numbers."""
        return dataclasses.replace(
            self,
            source=self.source[chosen],
            target=self.target[chosen],
            idle=self.idle[chosen],
        )


def is_consumer(change: AxisChange) -> bool:
    """Whether the axis is one that reads the units."""
    return change.on.role is Role.CONSUMER


def by_variable(changes) -> dict[int, list[AxisChange]]:
    """{id(variable): its changes}, in their order."""
    found = {}
    for change in changes:
        found.setdefault(id(change.on.variable), []).append(change)
    return found


class NewValues:
    """The new arrays of all variables that change, by variable.

    Each array is made when it is asked for and not kept, so that the smaller
    model is never in memory twice.
    """

    def __init__(self, changes, function, start=read, others=()):
        """Args:
        changes: every `AxisChange`.
        function: makes the new array of a change and the old array.
        start: makes the array of a variable before the first change.
        others: variables without changes whose new array is start(variable).
        """
        self._function, self._start = function, start
        # Cut before merging: less is left to merge.
        self._changes = by_variable(sorted(changes, key=is_consumer))
        self._variables = {*self._changes, *map(id, others)}

    def __contains__(self, variable):
        return id(variable) in self._variables

    def __getitem__(self, variable):
        value = self._start(variable)
        for change in self._changes.get(id(variable), ()):
            value = self._function(change, value)
        return value


def touched_groups(graph, changes):
    """Whether each group is removed or stands for one that is, a bool array."""
    touched = np.zeros(graph.group_count, bool)
    for change in changes:
        touched[change.on.group[change.source]] = True
        touched[change.on.group[change.target]] = True
    return touched


def stand_ins_of(change):
    """The unit that stands for each unit, shape (n,); itself for kept ones."""
    owner = np.arange(len(change.on.group))
    owner[change.source] = np.where(change.idle, change.source, change.target)
    return owner


def clusters_of(change, dtype):
    """Members and sizes of the clusters of an axis with n positions.

    Returns:
        A sparse array (n, n): row k has a 1 at each unit that k stands for; and
        the number of these, shape (n,).
    """
    size, owner = len(change.on.group), stand_ins_of(change)
    members = sparse.csr_array(
        (np.ones(size, dtype), (owner, np.arange(size))), shape=(size, size)
    )
    return members, np.bincount(owner, minlength=size)


def merge(change, value, scale, own=1.0):
    """M @ value along the axis of the change.

    Args:
        change: an `AxisChange`.
        value: an array.
        scale: how many times its stand-in each removed unit is, (removed,).
        own: how many times its old self each kept unit is, (kept,).
    """
    size, kept = len(change.on.group), change.kept
    row = np.empty(size, int)
    row[kept] = np.arange(len(kept))
    own = np.broadcast_to(own, len(kept))
    matrix = sparse.csr_array(
        (
            np.concatenate([own, scale]).astype(value.dtype),
            (
                np.concatenate([np.arange(len(kept)), row[change.target]]),
                np.concatenate([kept, change.source]),
            ),
        ),
        shape=(len(kept), size),
    )
    return along(value, change.on.axis, matrix)


def along(value, axis, matrix):
    """`matrix` of shape (k, n) times `value` along its axis of size n."""
    (k, n), after = matrix.shape, math.prod(value.shape[axis + 1 :])
    shape = (*value.shape[:axis], k, *value.shape[axis + 1 :])
    if after == 1:
        return (matrix @ value.reshape(-1, n).T).T.reshape(shape)
    blocks = value.reshape(-1, n, after)
    result = np.empty((len(blocks), k, after), value.dtype)
    for block, product in zip(blocks, result, strict=True):
        product[:] = matrix @ block
    return result.reshape(shape)
