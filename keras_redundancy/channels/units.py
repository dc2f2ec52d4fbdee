"""The units of every layer: what its kernels write."""

import dataclasses
from collections import Counter
from collections.abc import Iterable

import numpy as np

from keras_redundancy.channels import Role, Space, SpaceAxis
from keras_redundancy.channels.filters import (
    finite_kernel_matrix,
    joined_filters,
)
from keras_redundancy.channels.spaces import kernel_names


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """Units that a layer writes with one kernel, or with several together.

    Attributes:
        layer: the layer.
        name: its name; its path if another layer has the same name.
        places: a `SpaceAxis` for each kernel; unit u sits at the positions in
            row u.
        part: the names of the kernels, if other kernels of the layer write
            other units; else None.
    """

    layer: object
    name: str
    places: tuple[SpaceAxis, ...]
    part: str | None = None

    @property
    def groups(self) -> np.ndarray:
        """The group of every unit, shape (units,)."""
        place = self.places[0]
        return place.on.group[place.positions[:, 0]]

    def filters(self) -> np.ndarray:
        """The filters, shape (z, n), one column per unit.

        Those of several kernels are stacked: see `joined_filters`.
        """
        if len(self.places) == 1:
            return finite_kernel_matrix(self.places[0].on)
        return joined_filters(Space(self.groups, self.places, None, None))[0]


def written_units(graph) -> list[Units]:
    """The units of every layer, in graph order.

    Kernels of one layer whose units can only go together, such as the two of
    an LSTM, or those for queries, keys and values, make one `Units`. The unit
    of an LSTM has the filters of all its gates. A kernel by itself has a unit
    for every filter.
    """
    together = {}
    for space in graph.spaces:
        for place in space.axes_of(Role.PRODUCER):
            whole = place.positions.size == len(place.on.group)
            key = id(place.on.layer), space if whole else place.on
            together.setdefault(key, []).append(place)
    names, units = kernel_names(graph.axes), []
    called = {
        id(layer): space.called(layer)
        for space in graph.spaces
        for layer in space.producers
    }
    for places in together.values():
        if len({place.on for place in places}) < len(places):
            places = places[:1]
        if len(places) == 1:
            everything = np.arange(len(places[0].on.group))[:, None]
            places = [SpaceAxis(places[0].on, everything)]
        layer, part = places[0].on.layer, None
        kernels = names[id(layer)]
        if len(places) < len(kernels):
            part = ", ".join(kernels[place.on] for place in places)
        name = called[id(layer)]
        units.append(Units(layer, name, tuple(places), part))
    return sorted(units, key=lambda u: min(p.on.ids[0, 0] for p in u.places))


def distinct(names: Iterable[str]) -> list[str]:
    """Names of layers, made unique: layers of nested models can share one.

    The second of two equal names becomes "name (2)", and so on.
    """
    counts, found = Counter(), []
    for name in names:
        counts[name] += 1
        count = counts[name]
        found.append(name if count == 1 else f"{name} ({count})")
    return found


def frozen_reasons(graph) -> dict[int, str | None]:
    """For every group of channels the reason it is frozen, or None."""
    reasons = {}
    for space in graph.spaces:
        reasons.update(dict.fromkeys(space.groups.tolist(), space.frozen))
    return reasons


def state_of(units: Units, reasons: dict[int, str | None]) -> str:
    """ "prunable", or why the units have to stay; see `frozen_reasons`."""
    of_units = [reasons[group] for group in units.groups.tolist()]
    frozen = [reason for reason in of_units if reason]
    if not frozen:
        return "prunable"
    if len(frozen) < len(of_units):
        return f"{len(frozen)} units frozen: {frozen[0]}"
    return frozen[0]
