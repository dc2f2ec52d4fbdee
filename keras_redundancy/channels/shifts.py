"""Shifts: where what is constant goes that kernels read.

A constant in what a kernel reads adds the same to all outputs of a unit that
read its whole filter. So it goes into a bias, the moving mean of a
BatchNormalization behind, or a bias that is made for it.
"""

import collections
import dataclasses
from collections.abc import Callable

import numpy as np

from keras_redundancy.channels.filters import read
from keras_redundancy.channels.labels import Gated, Normalized, Shifted


@dataclasses.dataclass(frozen=True, eq=False)
class Home:
    """Where what is added to the units of a kernel goes.

    Attributes:
        step: the kernel's `Shifted` or `Gated`.
        variable: a bias, or the moving mean behind; None for a bias that has
            to be made.
        sign: 1, or -1 for what is subtracted.
    """

    step: Shifted | Gated
    variable: object | None
    sign: int


def homes_of_shifts(graph) -> dict[int, Home]:
    """{id(kernel): `Home`} of all kernels that have one.

    A kernel has none where some outputs of a unit read a part of its filter
    alone: no number for a unit is right for all of these. The moving mean of
    a layer that is shared by several kernels is the home of none.
    """
    means = means_behind(graph)
    calls = collections.Counter(
        id(step.kernel) for step in graph.steps if isinstance(step, Shifted)
    )
    homes = {}
    for step in graph.steps:
        if isinstance(step, Gated):
            homes[id(step.kernel)] = Home(step, step.bias, 1)
        if not isinstance(step, Shifted) or step.taps == "some":
            continue
        mean, count = means.get(id(step.layer), (None, 0))
        same = count == calls[id(step.kernel)]
        if step.bias is not None:
            homes[id(step.kernel)] = Home(step, step.bias, 1)
        elif step.linear and mean is not None and same:
            homes[id(step.kernel)] = Home(step, mean, -1)
        elif step.setting is not None:
            homes[id(step.kernel)] = Home(step, None, 1)
    return homes


def means_behind(graph) -> dict[int, tuple]:
    """{id(layer): (moving mean behind it, number of calls)}.

    Of the layers that are the only ones before that normalization.
    """
    counts, means = collections.Counter(), {}
    for step in graph.steps:
        if isinstance(step, Normalized) and step.mean is not None:
            counts[id(step.after), id(step.mean)] += 1
            means[id(step.after)] = step.mean
    readers = collections.Counter(mean for _, mean in counts)
    return {
        layer: (mean, counts[layer, id(mean)])
        for layer, mean in means.items()
        if readers[id(mean)] == 1
    }


def shift_of(on, constants, positions, home: Home) -> np.ndarray:
    """What the outputs of a kernel get more, one number for each.

    Args:
        on: the axis with which the kernel reads.
        constants: what is read on it, shape (k,),
        positions: at these entries of it, shape (k,).
        home: that of the kernel.
    """
    kernel = np.moveaxis(read(on.variable), on.axis, 0)
    total = np.tensordot(constants, kernel[positions], 1)
    spans = [axis - (axis > on.axis) for axis in home.step.spans]
    others = tuple(i for i in range(total.ndim) if i not in spans)
    order = np.argsort(np.argsort(spans))
    return np.transpose(total.sum(axis=others), order)


@dataclasses.dataclass(frozen=True)
class Shifts:
    """What biases and moving means get more.

    Attributes:
        created: {id(layer): (`Shifted`, array)}: biases that have to be made.
        more: {id(variable): (variable, array)}.
    """

    created: dict = dataclasses.field(default_factory=dict)
    more: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, homes: dict, changes, shift: Callable) -> "Shifts":
        """Of all changes of consumers.

        Args:
            homes: those of `homes_of_shifts`.
            changes: the changes.
            shift: a function of a change and the `Home` of its kernel that
                returns what its outputs get more, or None.
        """
        shifts = cls()
        for change in changes:
            home = homes.get(id(change.on.variable))
            more = None if home is None else shift(change, home)
            if more is None:
                continue
            if home.variable is None:
                shifts.created[id(home.step.layer)] = home.step, more
            else:
                more = home.sign * more
                shifts.more[id(home.variable)] = home.variable, more
        return shifts

    @property
    def variables(self) -> list:
        return [variable for variable, _ in self.more.values()]

    def added(self, variable, value):
        """`value` and what its variable gets more.

        A `Gated` bias with two rows gets it in the first one.
        """
        _, more = self.more.get(id(variable), (None, None))
        if more is None:
            return value
        if value.ndim > more.ndim:
            more = np.stack([more, np.zeros_like(more)])
        return value + more.astype(value.dtype)
