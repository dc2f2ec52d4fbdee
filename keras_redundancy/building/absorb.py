"""The new values of variables: removed units are cut out or merged.

Producers and carriers lose the entries of removed units, or get the mean of
each cluster in the place of its representative. A consumer's axis becomes
`M @ kernel`: row k of M has a 1 at the kept unit k and, when merging, the
scale of each removed unit that k stands for. What a constant unit added to a
consumer is added to the consumer's bias. `refit` has the absorber that
computes M from calibration data.
"""

import copy
import functools
from collections.abc import Mapping

import numpy as np

from keras_redundancy.building.changes import (
    AxisChange,
    NewValues,
    is_consumer,
    merge,
    touched_groups,
)
from keras_redundancy.building.means import start_at_means
from keras_redundancy.channels.filters import read
from keras_redundancy.channels.gains import Gains
from keras_redundancy.channels.shifts import Shifts, homes_of_shifts, shift_of


def axis_changes(decisions) -> list[AxisChange]:
    """The `AxisChange` of every axis on which units are removed.

    Args:
        decisions: objects with a `space` and a `selection` of its units.
    """
    cuts = {}
    for decision in decisions:
        selection = decision.selection
        removed = selection.removed
        is_idle = np.isin(removed, selection.idle)[:, None]
        for place in decision.space.axes if len(removed) else ():
            # Of each position on the axis: whether its unit is removed, where
            # the unit is that stands for it, and whether it is idle.
            cut = np.zeros((3, len(place.on.group)), int)
            is_removed, target, idle = cuts.setdefault(place.on, cut)
            at = place.positions[removed]
            is_removed[at], idle[at] = True, is_idle
            target[at] = place.positions[selection.stands_for[removed]]
    changes = []
    for on, (is_removed, target, idle) in cuts.items():
        kept, source = map(np.flatnonzero, (is_removed == 0, is_removed))
        change = on, kept, source, target[source], idle[source] > 0
        changes.append(AxisChange(*change))
    return changes


def new_values(graph, changes, keep: str, absorber) -> tuple:
    """The new arrays of all variables that change.

    Args:
        graph: the traced model.
        changes: every `AxisChange`.
        keep: "mean" for units that are the means of their clusters.
        absorber: what the consumers' axes become: a `DropAbsorber`,
            `MergeAbsorber` or `RefitAbsorber`. It is not changed.

    Returns:
        `NewValues`, and the absorber as it was prepared for these changes.
    """
    start = read
    if keep == "mean":
        start = start_at_means(graph, changes, absorber.folded)
    absorber = absorber.prepared(graph, changes, start)

    def smaller(change, value):
        if is_consumer(change):
            return absorber.absorb(change, value)
        return np.take(value, change.kept, change.on.axis)

    def shifted(variable):
        return absorber.shifts.added(variable, start(variable))

    changed = absorber.shifts.variables
    return NewValues(changes, smaller, shifted, changed), absorber


class DropAbsorber:
    """Consumers lose their weights for removed units.

    Attributes:
        shifts: the `Shifts` of the prepared absorber: what is added to the
            consumers' biases.
        merges: whether kept units take over from removed ones.
        folded: whether units were compared as the BatchNormalization behind
            them makes them.
    """

    merges = False
    folded = False
    shifts = Shifts()

    def biases_for(self, graph, changes) -> list:
        """The `Shifted` of the layers without a bias that will get one."""
        return []

    def prepared(self, graph, changes, start) -> "DropAbsorber":
        """A copy for these changes; `start(variable)` reads an old value."""
        return self

    def absorb(self, change, value):
        """The array of a consumer after the change of one axis."""
        return np.take(value, change.kept, change.on.axis)


class MergeAbsorber(DropAbsorber):
    """Consumers read a removed unit's stand-in instead, times a scale.

    The scale is the ratio of the two units' gains, so 1 for exact copies. What
    a constant unit added to a consumer is added to the consumer's bias.
    """

    merges = True

    def __init__(self, constants: Mapping | None = None, folded: bool = False):
        """Args:
        constants: {axis: array of shape (n,)} of consumers' axes: the value
            of each unit that is constant, NaN for all others.
        folded: as for `Gains`.
        """
        self._constants, self.folded = constants or {}, folded

    def prepared(self, graph, changes, start):
        absorber = copy.copy(self)
        absorber._prepare(graph, changes, start)
        return absorber

    def _prepare(self, graph, changes, start):
        touched = touched_groups(graph, changes)
        gains = functools.partial(
            Gains, graph, touched=touched, folded=self.folded
        )
        before = after = gains(read).of_label
        if start is not read:
            after = gains(start).of_label
        consumers = list(filter(is_consumer, changes))
        self._scales = {c: _scale(c, before, after) for c in consumers}
        self._own = {}
        if after is not before:
            self._own = {c: _own_scale(c, before, after) for c in consumers}
        self.shifts = Shifts.of(homes_of_shifts(graph), consumers, self._shift)

    def biases_for(self, graph, changes):
        homes = homes_of_shifts(graph)
        found = {}
        for change in filter(is_consumer, changes):
            home = homes.get(id(change.on.variable))
            if home and home.variable is None and self._shifts(change):
                found[id(home.step.layer)] = home.step
        return list(found.values())

    def _shifts(self, change) -> bool:
        """Whether a constant is added to the bias of a consumer."""
        _, constants = self._idle(change)
        return bool(constants.any())

    def _idle(self, change):
        """Positions of removed units that are constant, and their values."""
        constants = self._constants.get(change.on)
        if constants is None:
            return np.empty(0, int), np.empty(0)
        gone = change.source[change.idle]
        gone = gone[np.isfinite(constants[gone])]
        return gone, constants[gone]

    def _shift(self, change, home):
        """What is added to the bias of a consumer, or None."""
        gone, constants = self._idle(change)
        if not constants.any():
            return None
        return shift_of(change.on, constants, gone, home)

    def absorb(self, change, value):
        own = self._own.get(change, 1.0)
        return merge(change, value, self._scales[change], own)


def _scale(change, before, after):
    """The gains of removed units over those of their stand-ins, (removed,).

    The mean over the calls of a shared layer. A unit with a gain of the
    opposite sign is no positive multiple of its stand-in, and a constant unit
    has none: their scale is 0.
    """
    ids = change.on.ids
    ratio = _ratio(before[ids[:, change.source]], after[ids[:, change.target]])
    return np.where(change.idle, 0, np.maximum(ratio, 0).mean(axis=0))


def _own_scale(change, before, after):
    """The old gain of each kept unit over its new one, shape (kept,)."""
    ids = change.on.ids[:, change.kept]
    return np.maximum(_ratio(before[ids], after[ids]), 0).mean(axis=0)


def _ratio(a, b):
    """a / b; where b is 0, 1 if a is as well, else 0."""
    return np.divide(a, b, out=(a == 0).astype(float), where=b != 0)
