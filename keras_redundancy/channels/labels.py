"""Labels: integers that name channels, and what is known about them.

Every channel of every *value* in a graph gets a label of its own. A value is a
contiguous range of labels (its *birth*): what a kernel writes is a value, and
so is what a BatchNormalization, an addition or one position of a `Flatten`
makes of it. Two labels are *tied* when their channels can only be kept or
removed together. Two positions of a kernel axis that belong to different units
correspond to one another if their labels were born together.
"""

import dataclasses
import enum

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


class Role(enum.Enum):
    """What a variable's axis does with the channels that label it."""

    PRODUCER = "producer"
    CARRIER = "carrier"
    CONSUMER = "consumer"


@dataclasses.dataclass(frozen=True)
class Channels:
    """The labels of one tensor.

    Attributes:
        ids: integer array of shape (channels,), one label per channel.
        axis: the tensor's channel axis, counted from 0 (the batch axis).
    """

    ids: np.ndarray
    axis: int


@dataclasses.dataclass(frozen=True)
class Access:
    """Labels `ids` of shape (size,) sit on `axis` of a layer's `variable`."""

    layer: object
    variable: object
    axis: int
    ids: np.ndarray
    role: Role


@dataclasses.dataclass(frozen=True)
class Width:
    """An entry of a layer's config that counts the channels `ids`.

    `path` leads to it: ("units",) or ("target_shape", 2).
    """

    layer: object
    path: tuple
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Filtered:
    """Labels `ids` hold what `kernel`, output axis `axis`, wrote."""

    ids: np.ndarray
    kernel: object
    axis: int


@dataclasses.dataclass(frozen=True)
class Normalized:
    """`ids` hold gamma * (source - mean) / sqrt(variance + epsilon) + beta."""

    ids: np.ndarray
    source: np.ndarray
    gamma: object | None
    variance: object
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Copied:
    """`ids` hold the same channels as `source`, at another position."""

    ids: np.ndarray
    source: np.ndarray


class LabelStore:
    """Makes labels and collects what is said about them."""

    def __init__(self):
        self.starts = []
        self.count = 0
        self.ties = []
        self.frozen = []

    def new(self, size: int) -> np.ndarray:
        """Labels for a new value of `size` channels, shape (size,)."""
        self.starts.append(self.count)
        self.count += size
        return np.arange(self.count - size, self.count)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Channels a[i] and b[i] can only go together, for every i."""
        self.ties.append((a, b))

    def freeze(self, ids: np.ndarray, reason: str) -> None:
        """The channels `ids` must be kept; `reason` says why, in words."""
        self.frozen.append((ids, reason))

    def births(self, ids: np.ndarray) -> np.ndarray:
        """The number of the value that each label belongs to."""
        return np.searchsorted(self.starts, ids, side="right") - 1

    def groups(self) -> np.ndarray:
        """The group of every label, shape (count,): tied labels share one.

        Groups are numbered in the order of their first label.
        """
        a = np.concatenate([a for a, _ in self.ties] or [np.empty(0, int)])
        b = np.concatenate([b for _, b in self.ties] or [np.empty(0, int)])
        graph = sparse.coo_array(
            (np.ones(len(a), bool), (a, b)), shape=(self.count, self.count)
        )
        _, component = connected_components(graph, directed=False)
        _, first, group = np.unique(
            component, return_index=True, return_inverse=True
        )
        order = np.empty(len(first), int)
        order[np.argsort(first)] = np.arange(len(first))
        return order[group]
