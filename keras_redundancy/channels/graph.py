"""The result of a trace: which channels live where, and go together."""

import dataclasses
import itertools

import numpy as np

from keras_redundancy.channels.labels import Role
from keras_redundancy.tables import Rendered, render_table

NO_PRODUCER = "no layer that can be made narrower writes it"


@dataclasses.dataclass(frozen=True, eq=False)
class VariableAxis:
    """One axis of a variable and the labels that sit on it.

    Attributes:
        ids: labels of shape (calls, size), a row for each call of the layer.
        group: group of each position, shape (size,).
        key: which value each position belongs to, shape (size,): positions of
            two units correspond where their keys agree.
    """

    layer: object
    variable: object
    axis: int
    role: Role
    ids: np.ndarray
    group: np.ndarray
    key: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class SpaceAxis:
    """Where the units of a space sit on a variable's axis.

    `positions` has shape (units, m): unit u holds the m positions of row u,
    and column i of all rows is the same place of the network.
    """

    on: VariableAxis
    positions: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
    """All groups of channels that live on the same axes.

    Attributes:
        groups: group numbers of the units, shape (units,).
        axes: the `SpaceAxis` objects of all variables that hold the units.
        frozen: why the units have to stay, or None where they can go.
    """

    groups: np.ndarray
    axes: tuple[SpaceAxis, ...]
    frozen: str | None

    @property
    def size(self) -> int:
        return len(self.groups)

    def axes_of(self, role: Role) -> list[SpaceAxis]:
        return [axis for axis in self.axes if axis.on.role is role]

    @property
    def producers(self) -> list:
        """The layers that write the units, in the order of the graph."""
        layers = [a.on.layer for a in self.axes_of(Role.PRODUCER)]
        return list({id(layer): layer for layer in layers}.values())

    @property
    def name(self) -> str:
        """The producers' names, shortened where there are many."""
        names = [layer.name for layer in self.producers]
        if len(names) > 3:
            names = [*names[:2], f"{len(names) - 2} more"]
        return " + ".join(names) or "(no producer)"


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGraph(Rendered):
    """What `trace(model)` found; `render()` shows its spaces.

    Attributes:
        model: the model that was traced.
        axes: every labelled axis of every variable.
        spaces: the spaces that some variable holds, in graph order.
        widths: config entries that count channels.
        steps: what is known of values made from one another, in graph order.
        products: (layer, kernel, positions) of every kernel product.
        opaque: (operation, reason) of every operation that was not followed.
        group: group of every label, shape (labels,).
    """

    model: object
    axes: tuple[VariableAxis, ...]
    spaces: tuple[Space, ...]
    widths: tuple
    steps: tuple
    products: tuple
    opaque: tuple
    group: np.ndarray

    @property
    def prunable(self) -> list[Space]:
        return [space for space in self.spaces if not space.frozen]

    @property
    def untouched(self) -> list[tuple[str, str]]:
        """(name, reason) of layers with weights that were not followed."""
        return [
            (operation.name, reason)
            for operation, reason in self.opaque
            if getattr(operation, "weights", None)
        ]

    def __str__(self):
        rows = [
            (space.name, space.size, space.frozen or "prunable")
            for space in self.spaces
            if space.producers
        ]
        rows += [(name, None, reason) for name, reason in self.untouched]
        title = f"Channels of {self.model.name!r}"
        return render_table(title, ("written by", "units", "state"), rows)


def build_graph(model, recorder) -> ChannelGraph:
    """Solve the ties of a recorded trace and sort the groups into spaces."""
    store = recorder.store
    for entry in [*recorder.accesses, *recorder.widths]:
        if id(entry.layer) in recorder.opaque:
            _, reason = recorder.opaque[id(entry.layer)]
            store.freeze(entry.ids, reason)
    accesses = _calls_together(recorder.accesses, _place_of_access, store)
    widths = _calls_together(recorder.widths, _place_of_width, store)
    group = store.groups()
    axes = tuple(_variable_axis(calls, group, store) for calls in accesses)
    return ChannelGraph(
        model=model,
        axes=axes,
        spaces=_spaces(axes, _reasons(store, group)),
        widths=tuple(calls[0] for calls in widths),
        steps=tuple(recorder.steps),
        products=tuple(recorder.products),
        opaque=tuple(recorder.opaque.values()),
        group=group,
    )


def _place_of_access(access):
    return id(access.variable), access.axis


def _place_of_width(width):
    return id(width.layer), width.path


def _calls_together(entries, place_of, store):
    """Entries about the same place, made by several calls: tie their labels."""
    places = {}
    for entry in entries:
        places.setdefault(place_of(entry), []).append(entry)
    for calls in places.values():
        for other in calls[1:]:
            store.tie(calls[0].ids, other.ids)
    return list(places.values())


def _variable_axis(calls, group, store):
    first = calls[0]
    ids = np.stack([call.ids for call in calls])
    births = store.births(ids)
    if len(births) == 1:
        key = births[0]
    else:
        _, key = np.unique(births, axis=1, return_inverse=True)
    return VariableAxis(
        first.layer,
        first.variable,
        first.axis,
        first.role,
        ids,
        group[first.ids],
        key.reshape(-1),
    )


def _reasons(store, group):
    """Reason numbers of all groups, and the texts; number 0 is no reason.

    Where a group is frozen for several reasons, the first one counts.
    """
    texts = [None, *dict.fromkeys(reason for _, reason in store.frozen)]
    number_of = {text: number for number, text in enumerate(texts)}
    numbers = np.zeros(group.max(initial=-1) + 1, int)
    for ids, reason in reversed(store.frozen):
        numbers[group[ids]] = number_of[reason]
    return numbers, texts


def _spaces(axes, reasons):
    """Groups with the same places on the same axes, and the same reason."""
    if not axes:
        return ()
    entries = _Entries.of(axes)
    numbers, texts = reasons
    space = _same_features(entries, numbers)[entries.group]
    order = np.lexsort((entries.feature, entries.group, space))
    bounds = np.flatnonzero(np.diff(space[order], prepend=-1, append=-2))
    spaces = []
    for start, end in itertools.pairwise(bounds):
        selected = order[start:end]
        reason = texts[numbers[entries.group[selected[0]]]]
        spaces.append(_space(axes, entries, selected, reason))
    return tuple(sorted(spaces, key=lambda s: s.groups[0]))


def _space(axes, entries, selected, frozen):
    groups = np.unique(entries.group[selected])
    positions = entries.position[selected].reshape(len(groups), -1)
    axis_numbers = entries.axis[selected][: positions.shape[1]]
    space_axes = tuple(
        SpaceAxis(axes[number], positions[:, axis_numbers == number])
        for number in np.unique(axis_numbers)
    )
    if not any(a.on.role is Role.PRODUCER for a in space_axes):
        frozen = frozen or NO_PRODUCER
    return Space(groups, space_axes, frozen)


@dataclasses.dataclass(frozen=True)
class _Entries:
    """Every position of every axis: four arrays of one length.

    `feature` numbers the triples (axis, key, how often this group had this
    key before on this axis); it grows with the axis number. Units with the
    same features live in the same places, and feature by feature their
    positions correspond: with the axis of a kernel that reads the
    concatenation of a, b and a, each unit of a has the two features (axis, a,
    0) and (axis, a, 1). Which of the two is which does not matter, since
    positions with one key hold the same value, and what reads it is summed.
    """

    group: np.ndarray
    axis: np.ndarray
    position: np.ndarray
    feature: np.ndarray

    @classmethod
    def of(cls, axes):
        sizes = [len(axis.group) for axis in axes]
        group = np.concatenate([axis.group for axis in axes])
        key = np.concatenate([axis.key for axis in axes])
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

    `entries` are sorted by group; the signature of a group is refined with
    its first feature, its second, and so on.
    """
    order = np.lexsort((entries.feature, entries.group))
    group, feature = entries.group[order], entries.feature[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    owner = group[starts]
    length = np.diff(starts, append=len(group))
    base = feature.max(initial=0) + 2
    result = signature.copy()
    for rank in range(length.max(initial=0)):
        has = length > rank
        nth = np.full(len(owner), base - 1)
        nth[has] = feature[starts[has] + rank]
        touched = owner[has]
        pair = result[touched] * base + nth[has]
        _, number = np.unique(pair, return_inverse=True)
        result[touched] = number + result.max(initial=0) + 1
    return np.unique(result, return_inverse=True)[1]
