"""Labels: integers that name channels, and what is known about them.

Every channel of every *value* in a graph gets a label of its own. A value is a
contiguous range of labels (its *birth*): what a kernel writes is a value, and
so is what a BatchNormalization, an addition or one position of a `Flatten`
makes of it. Two labels are *tied* when their channels can only be kept or
removed together.
"""

import dataclasses
import enum
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

ARGUMENTS = ("args", "kwargs")

# "all" outputs; all "inside" of a border that is padded with zeros; or "some",
# as where a transposed convolution has strides.
TAPS = ("all", "inside", "some")
# What an entry for a channel does with it: y = x + v, y = x v, y = x / v, or
# something else, of which only s f(x) = f(s x), s > 0, is known; or not even
# that.
ACTS = ("adds", "multiplies", "divides", "bends", "tells")


class Role(enum.Enum):
    """What a variable's axis does with the channels that label it."""

    PRODUCER = "producer"
    CARRIER = "carrier"
    CONSUMER = "consumer"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in a run of the model a tensor is.

    Attributes:
        path: ids of the nodes that call the nested models around it, the
            outermost first.
        tensor: the `KerasTensor` in the innermost model's graph.
        axis: its channel axis.
        readers: how many calls read it, the model's outputs counted.
    """

    path: tuple[int, ...]
    tensor: object
    axis: int
    readers: int

    @property
    def key(self) -> tuple[int, ...]:
        return *self.path, id(self.tensor)


@dataclasses.dataclass(frozen=True)
class Channels:
    """The labels of one tensor.

    Attributes:
        ids: integer array of shape (channels,), one label per channel.
        axis: the tensor's channel axis, counted from 0 (the batch axis).
        shape: the tensor's shape, filled in for what goes into a rule.
        place: where the tensor is, filled in likewise; None for what is
            inside a layer.
    """

    ids: np.ndarray
    axis: int
    shape: tuple = ()
    place: Place | None = None

    def __repr__(self):
        of = f" of the shape {self.shape}" if self.shape else ""
        return f"<Channels: {len(self.ids)} on axis {self.axis}{of}>"


@dataclasses.dataclass(frozen=True, eq=False)
class InnerPlace:
    """Where in a run of the model a tensor inside of a layer's call is.

    Attributes:
        path: that of a `Place`.
        node: the call, a node of the innermost model's graph.
        kernel: the variable that reads the tensor.
        compute: a function of the call's (args, kwargs) that returns it,
            channels last.
        axis: its channel axis.
    """

    path: tuple[int, ...]
    node: object
    kernel: object
    compute: Callable
    axis: int = -1

    @property
    def call_key(self) -> tuple[int, ...]:
        return *self.path, id(self.node)

    @property
    def key(self) -> tuple[int, ...]:
        return *self.call_key, id(self.kernel)


@dataclasses.dataclass(frozen=True)
class Read:
    """Entries `columns` of the channel axis of the tensor at `place`."""

    place: Place | InnerPlace
    columns: np.ndarray


@dataclasses.dataclass(frozen=True)
class Access:
    """Labels `ids` of shape (size,) sit on `axis` of a layer's `variable`.

    For a consumer, `read` tells where in the model the channels are that it
    reads; None where that is inside a layer whose rule does not say how to
    compute it.
    """

    layer: object
    variable: object
    axis: int
    ids: np.ndarray
    role: Role
    read: Read | None = None

    @property
    def parts(self) -> list[np.ndarray]:
        return [self.ids]


@dataclasses.dataclass(frozen=True)
class Width:
    """A setting of `owner` that counts the channels `ids`.

    `owner` is an operation, and `path` leads to an entry of its config:
    ("units",) or ("target_shape", 2). Or it is a call of one, and `path`
    leads into the arguments: ("args", 1, 3, "stop"). Where `ids` is a list of
    arrays, the setting is the tuple of their counts.

    `whole` are all labels of an axis, where the setting says something about
    the others too, such as a bound that is counted from the end. It is then
    written anew when one of them goes, even if its own count stays.
    """

    owner: object
    path: tuple
    ids: np.ndarray | list[np.ndarray]
    whole: np.ndarray | None = None

    @property
    def parts(self) -> list[np.ndarray]:
        return self.ids if isinstance(self.ids, list) else [self.ids]

    @property
    def divides(self) -> bool:
        """Whether it counts some of the channels of an axis, not all."""
        return isinstance(self.ids, list) or self.path[0] in ARGUMENTS


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """An array that stands in a call's arguments or an operation's config.

    It is read, cut and merged like a variable. `owner` and `path` are those
    of a `Width`.
    """

    owner: object
    path: tuple
    value: np.ndarray

    @property
    def shape(self) -> tuple:
        return self.value.shape

    @property
    def name(self) -> str:
        return "constant"


@dataclasses.dataclass(frozen=True)
class Product:
    """`layer` reads the whole of `kernel` at so many positions.

    `positions` is None where it is open; with labels `per`, it is the number
    of positions for each of these channels.
    """

    layer: object
    kernel: object
    positions: int | None
    per: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Filtered:
    """`ids` hold what `kernel`, output axis `axis`, wrote.

    With a `source`, every channel was filtered on its own: a depthwise
    kernel.
    """

    ids: np.ndarray
    kernel: object
    axis: int
    source: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Shifted:
    """What `kernel` wrote gets an entry of `bias` for each of its units.

    Attributes:
        ids: labels of the units, shape (units,).
        kernel, axis: the kernel and its output axis.
        bias: the variable, of shape (units,); None where there is none.
        layer: the layer that adds it.
        setting: entry of the layer's config, and its value, that make a bias
            where there is none; None if nothing does.
        linear: whether the layer returns the sum as it is.
        taps: which outputs of a unit read all entries of its filter: one of
            `TAPS`. A constant in what the kernel reads adds the same to those
            that do.
        spans: axes of the kernel that the bias has entries for, in its order.
    """

    ids: np.ndarray
    kernel: object
    axis: int
    bias: object | None
    layer: object
    setting: tuple[str, object] | None
    linear: bool
    taps: str
    spans: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Normalized:
    """`ids` hold gamma * (source - mean) / sqrt(variance + epsilon) + beta.

    Attributes:
        made_by: the layer that returned `source`; None where that is inside
            of another one.
        alone: whether nothing else reads `source`.
    """

    ids: np.ndarray
    source: np.ndarray
    gamma: object | None
    variance: object
    epsilon: float
    beta: object | None = None
    mean: object | None = None
    made_by: object | None = None
    alone: bool = False

    @property
    def after(self):
        """The layer that returned `source`, where nothing else reads it."""
        return self.made_by if self.alone else None


@dataclasses.dataclass(frozen=True)
class Carried:
    """`axis` of `variable` holds an entry for each of the channels `ids`.

    `acts` is one of `ACTS`. What `ids` name is what comes out.
    """

    ids: np.ndarray
    variable: object
    axis: int
    acts: str


@dataclasses.dataclass(frozen=True)
class Joined:
    """`ids` hold, channel by channel, what was made of all `sources`.

    Attributes:
        how: "sum", for f with f(s x, s y, ...) = s f(x, y, ...), s > 0;
            "product", for f(s x, t y) = s t f(x, y); or "function".
    """

    ids: np.ndarray
    sources: tuple[np.ndarray, ...]
    how: str


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Something that is no kernel reads the channels `ids` together.

    Such as a maximum over them: copies can go from them, but no multiple and
    no constant.
    """

    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Copied:
    """`ids` hold the same channels as `source`, at another position."""

    ids: np.ndarray
    source: np.ndarray


class LabelStore:
    """Makes labels and collects what is said about them.

    Attributes:
        frozen: (labels, reason) of channels that must stay.
        inexact: (labels, reason) of channels that can go, but never without
            a change of what the model computes, not even exact copies.
    """

    def __init__(self):
        self.starts = []
        self.count = 0
        self.ties = []
        self.frozen = []
        self.inexact = []

    def new(self, size: int, values: int = 1) -> np.ndarray:
        """Labels of so many new values of `size` channels, one after another.

        Shape (values * size,).
        """
        start, self.count = self.count, self.count + size * values
        self.starts.extend(range(start, self.count, size or 1))
        return np.arange(start, self.count)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Channels a[i] and b[i] can only go together, for every i."""
        self.ties.append((a, b))

    def freeze(self, ids: np.ndarray, reason: str) -> None:
        """The channels `ids` must be kept; `reason` says why, in words."""
        self.frozen.append((ids, reason))

    def births(self) -> np.ndarray:
        """The number of the value that each label belongs to."""
        lengths = np.diff(self.starts, append=self.count)
        return np.repeat(np.arange(len(self.starts)), lengths)

    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All ties, label by label: one side, the other, number of the tie."""
        lengths = [len(a) for a, _ in self.ties]
        return (
            np.concatenate([a for a, _ in self.ties] or [np.empty(0, int)]),
            np.concatenate([b for _, b in self.ties] or [np.empty(0, int)]),
            np.repeat(np.arange(len(lengths)), lengths),
        )

    def groups(self) -> np.ndarray:
        """The group of every label, shape (count,): tied labels share one.

        Groups are numbered in the order of their first label.
        """
        a, b, _ = self.edges()
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
