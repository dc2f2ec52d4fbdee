"""Labels: integers that name channels, and what is known about them.

Every channel of every *value* in a graph gets a label of its own. A value is a
contiguous range of labels (its *birth*): what a kernel writes is a value, and
so is what a BatchNormalization, an addition or one position of a `Flatten`
makes of it. Two labels are *tied* when their channels can only be kept or
removed together.
"""

import copy
import dataclasses
import enum
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

ARGUMENTS = ("args", "kwargs")

# The outputs of a unit that read the whole of its filter: "all" of them; all
# "inside" of a border that is padded with zeros; or "some", such as those of a
# transposed convolution with strides.
TAPS = ("all", "inside", "some")
# What the entry v of a variable does with the channel x: y = x + v, y = x v,
# y = x / v, some y = f(x) with f(s x) = s f(x) for s > 0 ("bends"), or anything
# else ("tells").
ACTS = ("adds", "multiplies", "divides", "bends", "tells")


class Role(enum.Enum):
    """What a variable does with the channels that sit on one of its axes.

    A producer writes them (a kernel's output axis), a carrier changes each of
    them (a bias, a BatchNormalization's gamma), and a consumer reads them (a
    kernel's input axis).
    """

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
        readers: how many calls read it, those in nested models included. An
            output of the model counts as a reader.
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
        shape: the tensor's shape. A rule finds it in its inputs, and need not
            give it for what the rule returns.
        place: where in the model the tensor is. A rule need not give it. None
            for tensors inside a layer.
        batch: None, unless a reshape merged the channels with the batch axis,
            as where attention makes samples of heads. The axis then has an
            open size, that of the batch times `channels`: all channels of the
            first sample come first, then those of the second ("outer"); or
            the first channel of all samples, then the second ("inner").
    """

    ids: np.ndarray
    axis: int
    shape: tuple = ()
    place: Place | None = None
    batch: str | None = None

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
    """Entries `columns` of the channel axis of the tensor at `place`.

    The shape of `columns` is (channels,), or (channels, d) where a channel is
    a vector of d numbers, such as a head of an attention layer.
    """

    place: Place | InnerPlace
    columns: np.ndarray


@dataclasses.dataclass(frozen=True)
class Access:
    """Labels `ids` of shape (size,) sit on `axis` of a layer's `variable`.

    For a consumer, `read` says where in the model the channels are that the
    variable reads. It is None for channels inside a layer whose rule does not
    say how to compute them.
    """

    layer: object
    variable: object
    axis: int
    ids: np.ndarray
    role: Role
    read: Read | None = None

    @property
    def key(self) -> tuple:
        return id(self.variable), self.axis

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

    `whole` are all labels of an axis, for a setting that depends on the other
    channels of the axis too, such as a bound that is counted from the end.
    Such a setting is written anew when any of these channels goes.
    """

    owner: object
    path: tuple
    ids: np.ndarray | list[np.ndarray]
    whole: np.ndarray | None = None

    @property
    def key(self) -> tuple:
        return id(self.owner), self.path

    @property
    def parts(self) -> list[np.ndarray]:
        return self.ids if isinstance(self.ids, list) else [self.ids]

    @property
    def everything(self) -> list[np.ndarray]:
        """The labels of all channels that it depends on."""
        return self.parts if self.whole is None else [*self.parts, self.whole]

    @property
    def divides(self) -> bool:
        """Whether it counts some of the channels of an axis, not all."""
        return isinstance(self.ids, list) or self.path[0] in ARGUMENTS


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """An array in a call's arguments or in an operation's config.

    The array is read, cut and merged like a variable. `owner` and `path` say
    where it is, as in a `Width`.
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
    """`layer` multiplies the whole of `kernel` at so many positions.

    Those are the positions of one sample, in all windows if windows of it are
    merged with the batch; None if their number is not known. With labels
    `per`, the kernel is multiplied at that many positions for each of these
    channels.
    """

    layer: object
    kernel: object
    positions: int | None
    per: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Filtered:
    """The channels `ids` are units on the output axis `axis` of `kernel`.

    With a `source`, the kernel is depthwise: it filters each channel of
    `source` by itself.
    """

    ids: np.ndarray
    kernel: object
    axis: int
    source: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Shifted:
    """An entry of `bias` is added to each unit that `kernel` writes.

    Attributes:
        ids: labels of the units, shape (units,).
        kernel, axis: the kernel and its output axis.
        bias: the variable, of shape (units,); None where there is none.
        layer: the layer that adds it.
        setting: (entry, value) of the layer's config that make a bias where
            there is none; None if no setting does.
        linear: whether the layer returns the sum itself.
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
class Gated:
    """A recurrent cell adds `bias` to the gates that `kernel` makes.

    What it makes of its state is added as well, and then an activation
    function follows.

    Attributes:
        ids: labels of the gates, shape (gates,).
        kernel: the kernel that reads the input.
        bias: a variable of shape (gates,); or (2, gates), where the second row
            is added to what the recurrent kernel makes.
        taps, spans: as in `Shifted`.
    """

    ids: np.ndarray
    kernel: object
    bias: object
    taps: str
    spans: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Normalized:
    """`ids` are gamma (source - mean) / sqrt(variance + epsilon) + beta.

    Attributes:
        made_by: the layer that returned `source`; None if that layer is
            inside another one.
        alone: whether no other call reads `source`.
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
        """`made_by` if no other call reads `source`, else None."""
        return self.made_by if self.alone else None


@dataclasses.dataclass(frozen=True)
class Carried:
    """`axis` of `variable` holds an entry for each of the channels `ids`.

    `acts` is one of `ACTS`. `ids` label the channels that come out.
    """

    ids: np.ndarray
    variable: object
    axis: int
    acts: str


@dataclasses.dataclass(frozen=True)
class Joined:
    """Channel i of `ids` is a function of channel i of each of `sources`.

    Attributes:
        how: "sum", for f with f(s x, s y, ...) = s f(x, y, ...), s > 0;
            "product", for f(s x, t y) = s t f(x, y); or "function".
    """

    ids: np.ndarray
    sources: tuple[np.ndarray, ...]
    how: str


@dataclasses.dataclass(frozen=True)
class Mixed:
    """An operation without a kernel reads the channels `ids` together.

    A maximum over channels is an example: a copy of another channel can go,
    but not a multiple of one, and not a constant channel.
    """

    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Copied:
    """`ids` hold the same channels as `source`, at another position."""

    ids: np.ndarray
    source: np.ndarray


class LabelStore:
    """Makes labels and collects their ties and reasons.

    Attributes:
        starts: the first label of each value.
        count: the number of labels.
        ties: pairs of arrays of labels, tied element by element.
        frozen: (labels, reason) of channels that must stay.
        inexact: (labels, reason) of channels without which the model always
            computes something else, even if they are exact copies of others.
    """

    def __init__(self):
        self.starts = []
        self.count = 0
        self.ties = []
        self.frozen = []
        self.inexact = []

    def copy(self) -> "LabelStore":
        """The same labels; further ties and reasons are those of one store."""
        new = copy.copy(self)
        new.ties, new.frozen = [*self.ties], [*self.frozen]
        return new

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
        """The channels `ids` must stay; `reason` says why."""
        self.frozen.append((ids, reason))

    def births(self) -> np.ndarray:
        """The number of the value that each label belongs to."""
        lengths = np.diff(self.starts, append=self.count)
        return np.repeat(np.arange(len(self.starts)), lengths)

    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pairs of tied labels: one side, the other, number of the tie."""
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
