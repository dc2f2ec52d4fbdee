"""Sort groups of channels into spaces: those that live on the same axes."""

import dataclasses
import itertools
from collections import Counter

import numpy as np

from keras_redundancy._shared.arguments import path_of
from keras_redundancy._shared.tables import on_one_line
from keras_redundancy.channels.labels import Role
from keras_redundancy.channels.reasons import Reason, code_of

NO_PRODUCER = Reason(
    "no_producer", "no layer that writes it can be made narrower"
)


@dataclasses.dataclass(frozen=True, eq=False)
class VariableAxis:
    """One axis of a variable and the labels that sit on it.

    Attributes:
        layer: the layer of the graph that holds the variable.
        variable: the variable, or a `Constant`.
        axis: the number of the axis.
        role: what the variable does with the channels on it.
        ids: labels of shape (calls, size), a row for each call of the layer.
        group: group of each position, shape (size,).
        key: the color of each position, shape (size,): positions of two
            units correspond where their keys agree.
        reads: for a consumer a `Read` for each call, or None for a call in
            which it is not known how to compute the channels.
    """

    layer: object
    variable: object
    axis: int
    role: Role
    ids: np.ndarray
    group: np.ndarray
    key: np.ndarray
    reads: tuple = ()

    def __repr__(self):
        shape = tuple(self.variable.shape)
        return (
            f"<VariableAxis {self.axis} of {self.variable.name!r} {shape} of "
            f"{self.layer.name!r}: {self.role.value}>"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SpaceAxis:
    """Where the units of a space sit on a variable's axis.

    `positions` is an integer array of shape (units, m). Unit u sits at the m
    positions in row u. Positions in one column correspond to each other.
    """

    on: VariableAxis
    positions: np.ndarray

    def __repr__(self):
        units, places = self.positions.shape
        each = f" at {places} places each" if places > 1 else ""
        return f"<SpaceAxis: {units} units{each} on {self.on!r}>"


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
    """All groups of channels on the same axes, such as a residual stream.

    Attributes:
        groups: group numbers of the units, shape (units,).
        axes: a `SpaceAxis` for each axis of a variable that the units are on.
        frozen: why the units have to stay, in words, or None where they can
            go.
        inexact: why to remove a unit changes what the model computes, even if
            the unit is an exact copy of another one; None if it does not.
        parts: {id(layer): names of the kernels that write these units} of
            layers with other kernels that write other units.
        paths: {id(layer): what tells its name from the same one of others}.
    """

    groups: np.ndarray
    axes: tuple[SpaceAxis, ...]
    frozen: str | None
    inexact: str | None
    parts: dict = dataclasses.field(default_factory=dict)
    paths: dict = dataclasses.field(default_factory=dict)

    def __repr__(self):
        state = f"frozen: {self.frozen}" if self.frozen else "prunable"
        units = f"{self.size} units of {self.name}"
        return f"<Space: {on_one_line(f'{units}, {state}')}>"

    @property
    def size(self) -> int:
        """The number of units."""
        return len(self.groups)

    @property
    def reason_code(self) -> str | None:
        """A short code for `frozen`, such as "model_output", or None.

        The code is the same in all releases. It is "other" for reasons of
        rules that users write, unless these give a `Reason`.
        """
        return code_of(self.frozen)

    def axes_of(self, role: Role) -> list[SpaceAxis]:
        """The axes on which the units have this role."""
        return [axis for axis in self.axes if axis.on.role is role]

    @property
    def producers(self) -> list:
        """The layers that write the units, in the order of the graph."""
        layers = [a.on.layer for a in self.axes_of(Role.PRODUCER)]
        return list({id(layer): layer for layer in layers}.values())

    @property
    def name(self) -> str:
        """The names of the producers, joined by " + "; of many, the first."""
        names = [
            f"{self.called(x)} ({', '.join(_shortened(self.parts[id(x)]))})"
            if id(x) in self.parts
            else self.called(x)
            for x in self.producers
        ]
        return " + ".join(_shortened(names)) or "(no producer)"

    def called(self, layer) -> str:
        """A producer's name; its path if another layer has the same name."""
        return self.paths.get(id(layer), layer.name)


def _shortened(names):
    if len(names) > 4:
        return [*names[:3], f"{len(names) - 3} more"]
    return names


def find_spaces(axes, cuts, store, group, around) -> tuple[Space, ...]:
    """Groups with the same places on the same axes, and the same reasons.

    Args:
        axes: every `VariableAxis`.
        cuts: (group, color) of the channels that a setting counts where it
            divides those of one axis, such as a slice's end: what lies on
            either side of it is not the same space.
        store: the `LabelStore`, for the reasons.
        group: the group of every label.
        around: {id(layer): names of the models that the layer is inside of}.
    """
    if not axes:
        return ()
    entries = _Entries.of([(a.group, a.key) for a in axes] + cuts)
    frozen, inexact = (
        _reasons(said, group) for said in (store.frozen, store.inexact)
    )
    signature = frozen[0] * len(inexact[1]) + inexact[0]
    space = _same_features(entries, signature)[entries.group]
    order = np.lexsort((entries.feature, entries.group, space))
    bounds = np.flatnonzero(np.diff(space[order], prepend=-1, append=-2))
    spaces, names, paths = [], kernel_names(axes), _paths(axes, around)
    for start, end in itertools.pairwise(bounds):
        selected = order[start:end]
        first = entries.group[selected[0]]
        reasons = [texts[number[first]] for number, texts in (frozen, inexact)]
        spaces.append(_space(axes, names, paths, entries, selected, *reasons))
    held = (space for space in spaces if space.axes)
    return tuple(sorted(held, key=lambda s: s.groups[0]))


def kernel_names(axes) -> dict[int, dict[VariableAxis, str]]:
    """{id(layer): {axis: name}} of the kernels that write units.

    The kernel mha/query/kernel is called "query" if those of the layer's
    other kernels have other words in that place, counted from the end.
    """
    kernels = {}
    for axis in axes:
        if axis.role is Role.PRODUCER:
            kernels.setdefault(id(axis.layer), []).append(axis)
    names = {}
    for layer, own in kernels.items():
        paths = [axis.variable.path for axis in own]
        ends = (reversed(path.split("/")) for path in paths)
        words = zip(*ends, strict=False)
        telling = (each for each in words if len(set(each)) == len(own))
        prefix = f"{own[0].layer.name}/"
        inside = [p.removeprefix(prefix).removesuffix("/kernel") for p in paths]
        chosen = next(telling, inside)
        names[layer] = dict(zip(own, chosen, strict=True))
    return names


def _parts(producers, names):
    written = {}
    for place in producers:
        layer = id(place.on.layer)
        written.setdefault(layer, []).append(names[layer][place.on])
    return {
        layer: own
        for layer, own in written.items()
        if len(own) < len(names[layer])
    }


def _paths(axes, around):
    """{id(layer): its path} of layers that write units and share a name."""
    layers = {id(a.layer): a.layer for a in axes if a.role is Role.PRODUCER}
    count = Counter(layer.name for layer in layers.values())
    return {
        key: path_of(layer, around)
        for key, layer in layers.items()
        if count[layer.name] > 1
    }


def _reasons(said, group):
    """Reason numbers of all groups, and the texts; number 0 is no reason.

    Where a group has several reasons, the first one counts.
    """
    texts = [None, *dict.fromkeys(reason for _, reason in said)]
    number_of = {text: number for number, text in enumerate(texts)}
    numbers = np.zeros(group.max(initial=-1) + 1, int)
    for ids, reason in reversed(said):
        numbers[group[ids]] = number_of[reason]
    return numbers, texts


def _space(axes, names, paths, entries, selected, frozen, inexact):
    groups = np.unique(entries.group[selected])
    positions = entries.position[selected].reshape(len(groups), -1)
    axis_numbers = entries.axis[selected][: positions.shape[1]]
    space_axes = tuple(
        SpaceAxis(axes[number], positions[:, axis_numbers == number])
        for number in np.unique(axis_numbers)
        if number < len(axes)
    )
    producers = [a for a in space_axes if a.on.role is Role.PRODUCER]
    frozen = frozen or (None if producers else NO_PRODUCER)
    parts = _parts(producers, names)
    return Space(groups, space_axes, frozen, inexact, parts, paths)


@dataclasses.dataclass(frozen=True)
class _Entries:
    """Every position of every axis, and of every cut: arrays of one length.

    `feature` numbers the triples (axis, key, how often this group had this
    key before on this axis); it grows with the axis number. Units with the
    same features live in the same places, and feature by feature their
    positions correspond: with the axis of a kernel that reads the
    concatenation of a, b and a, each unit of a has the two features (axis, a,
    0) and (axis, a, 1). Which of the two is which does not matter, since
    positions of one unit with one key hold the same label.
    """

    group: np.ndarray
    axis: np.ndarray
    position: np.ndarray
    feature: np.ndarray

    @classmethod
    def of(cls, axes):
        sizes = [len(group) for group, _ in axes]
        group = np.concatenate([group for group, _ in axes])
        key = np.concatenate([key for _, key in axes])
        position = np.concatenate([np.arange(size) for size in sizes])
        axis = np.repeat(np.arange(len(axes)), sizes)
        order = np.lexsort((position, key, axis, group))
        group, key, position, axis = (
            array[order] for array in (group, key, position, axis)
        )
        same = np.ones(len(group), bool)
        same[:1] = False
        for array in (group, key, axis):
            same[1:] &= array[1:] == array[:-1]
        index = np.arange(len(group))
        occurrence = index - np.maximum.accumulate(np.where(same, 0, index))
        place = axis * (key.max(initial=0) + 1) + key
        place = place * (occurrence.max(initial=0) + 1) + occurrence
        _, feature = np.unique(place, return_inverse=True)
        return cls(group, axis, position, feature)


def _same_features(entries, signature):
    """Numbers for groups: equal where signature and all features agree.

    Each feature, and each signature, stands for a random number of 64 bits,
    and a group for the sum of its numbers (Zobrist hashing, 1970).
    """
    rng = np.random.default_rng(0)
    of_feature, of_signature = (
        rng.integers(2**64, size=x.max(initial=0) + 1, dtype=np.uint64)
        for x in (entries.feature, signature)
    )
    sums = of_signature[signature]
    np.add.at(sums, entries.group, of_feature[entries.feature])
    return np.unique(sums, return_inverse=True)[1]
