"""Carry an optimizer's state over to a smaller model."""

import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.tables import listed
from keras_redundancy._shared.warn import warn
from keras_redundancy.building.changes import (
    along,
    by_variable,
    clusters_of,
    is_consumer,
)
from keras_redundancy.building.means import mean_in_place
from keras_redundancy.channels.filters import joined_filters, norms_along, read

# Filters that differ by less, relative to their norm, are copies.
SAME = 1e-3


class SlotCut:
    """Cuts the slots of variables as the variables were cut.

    Slots that hold weights are cut like weights: consumers become M w, others
    a slice. In slots that hold gradients or their squares, each kept unit
    keeps its own entries, a slice everywhere. Only a unit that stands for an
    exact copy gets the gradients of both, as it would have without the copy:
    the sum of momenta, and for averages of squares the square of the sum of
    roots. For units that are merely similar, training went on more slowly with
    sums than with slices (see examples/benchmarks/optimizer_state.py).
    """

    def __init__(self, changes, keep: str, absorber, decisions=()):
        """Args:
        changes: every `AxisChange`.
        keep, absorber, decisions: those of the plan.
        """
        self._changes = by_variable(changes)
        self._keep, self._absorber = keep, absorber
        self._copies = set()
        if absorber.merges:
            for decision in decisions:
                self._copies.update(_copies(decision))

    def value(self, slot, kind: str, source, target):
        """The new value of a slot, or None if the slot cannot be cut.

        Args:
            slot: of the variable `source`.
            kind: one of those of `_keras.slots`.
            source: a variable of the old model.
            target: its counterpart.
        """
        changes = self._changes.get(id(source), ())
        if not changes:
            return slot
        value = read(slot)
        if value.shape != tuple(source.shape):
            return None
        if kind == "weights":
            difference = value - read(source)
            for change in changes:
                difference = self._weights(change, difference)
            return read(target) + difference
        roots = {"linear": 1, "square": 2, "size": 1}[kind]
        value = value ** (1 / roots)
        for change in changes:
            value = self._gradients(change, value)
        return value**roots

    def _weights(self, change, value):
        if is_consumer(change):
            return self._absorber.absorb(change, value)
        if self._keep == "mean":
            value = mean_in_place(change, value)
        return np.take(value, change.kept, change.on.axis)

    def _gradients(self, change, value):
        gone = change.on.group[change.source]
        alike = np.isin(gone, list(self._copies))
        if alike.any() and not is_consumer(change):
            members, _ = clusters_of(change.only(alike), value.dtype)
            value = along(value, change.on.axis, members)
        return np.take(value, change.kept, change.on.axis)


def _copies(decision):
    """The groups of removed units that are copies of their stand-ins."""
    removed = decision.selection.removed
    if not len(removed):
        return []
    filters, norms = joined_filters(decision.space)
    stand_in = decision.selection.stands_for[removed]
    difference = norms_along(filters[:, removed] - filters[:, stand_in], -1)
    size = norms_along(filters[:, stand_in], -1)
    same = (difference <= SAME * size) & (
        np.abs(norms[removed] - norms[stand_in]) <= SAME * norms[stand_in]
    )
    return decision.space.groups[removed[same]].tolist()


def carry_over(model, small, matches, cut: SlotCut) -> None:
    """Copy the state of one model's optimizer to that of another, in place.

    Args:
        model: the model that was cut.
        small: the smaller one, compiled with an optimizer of the same class,
            which is built here.
        matches: [(variable of `model`, its counterpart), ...].
        cut: how the slots of these variables are cut.

    Warns:
        UserWarning: the state of some variables could not be copied.
    """
    old, new = model.optimizer, small.optimizer
    trained = small.trainable_variables
    if not old.built:
        return
    with _keras.scope_of(new):
        new.build(trained)
    afresh = _copy_counters(_keras.counters(old), _keras.counters(new))
    is_trained = set(map(id, trained))
    for source, target in matches:
        if id(target) not in is_trained:
            continue  # Frozen since `compile`, which is to be called again.
        slots = [slot for slot, _ in _keras.slots(new, target)]
        values = [
            cut.value(slot, kind, source, target)
            for slot, kind in _keras.slots(old, source)
        ]
        shapes = [None if x is None else tuple(x.shape) for x in values]
        if shapes != [tuple(slot.shape) for slot in slots]:
            afresh.append(target.path)
            continue
        for slot, value in zip(slots, values, strict=True):
            _keras.set_value(slot, value)
    if afresh:
        warn(
            f"What {type(old).__name__} keeps for {listed(afresh, 3)} "
            f"({len(afresh)} variables) starts afresh: it is "
            "missing, or has not the shape of the variable, so that it cannot "
            "be cut like the variable. With Adam, SGD and most other "
            "optimizers, training goes on with the state of before.",
        )


def _copy_counters(old, new):
    """Copy what is kept for the whole model; the paths of what cannot be.

    Slots that an optimizer has for some variables only are among them.
    """
    afresh = [x.path for x in new[len(old) :]]
    for source, target in zip(old, new, strict=False):
        if source.shape == target.shape:
            _keras.set_value(target, source)
        else:
            afresh.append(target.path)
    return afresh
