"""Carry an optimizer's state over to a smaller model."""

import warnings

import numpy as np
from keras import ops

from keras_redundancy import _keras_internals as internals
from keras_redundancy.pruning.absorb import (
    along,
    clusters_of,
    is_consumer,
    mean_in_place,
)
from keras_redundancy.pruning.filters import read


class Cut:
    """Does to the slots of variables what was done to the variables.

    Weights w of units that stay became M w where they are consumed, and
    slices elsewhere. Gradients go the other way. What a consumer's row gets is
    what it got before: a slice. And where units stand for others that are like
    them, a unit gets what all of them got: for a momentum the sum, and for
    averages of squared gradients the square of the sum of roots, which is
    right for exact copies that were read alike, and more than it will be for
    others: their steps begin smaller.
    """

    def __init__(self, changes, keep: str, absorber):
        """Args:
        changes: every `AxisChange`.
        keep, absorber: those of the plan.
        """
        self._changes = {}
        for change in changes:
            variable = id(change.on.variable)
            self._changes.setdefault(variable, []).append(change)
        self._keep, self._absorber = keep, absorber

    def value(self, slot, kind: str, source, target):
        """What a slot becomes, an array, or None if that cannot be told.

        Args:
            slot: of the variable `source`.
            kind: one of those of `internals.slots`.
            source: a variable of the old model.
            target: its counterpart.
        """
        changes = self._changes.get(id(source), ())
        if not changes:
            return ops.copy(slot)  # Lest JAX give its memory away twice.
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
        if self._absorber.joins and not is_consumer(change):
            members, _ = clusters_of(change, value.dtype)
            value = along(value, change.on.axis, members)
        return np.take(value, change.kept, change.on.axis)


def carry_over(old, new, matches, cut: Cut, trained) -> None:
    """Go on with one optimizer where another one is, in place.

    Args:
        old: the optimizer of the model that was cut.
        new: that of the smaller model, of the same class; it is built.
        matches: [(variable of the old model, its counterpart), ...].
        cut: what was done to them.
        trained: what `new` is to train.

    Warns:
        UserWarning: for some variables the state could not be carried over.
    """
    if not old.built:
        return
    internals.copy_weight_decay(old, new, matches)
    new.build(trained)
    for source, target in zip(
        internals.counters(old), internals.counters(new), strict=True
    ):
        target.assign(ops.copy(source))
    afresh = []
    for source, target in matches:
        slots = internals.slots(new, target)
        sources = internals.slots(old, source)
        values = [
            cut.value(slot, kind, source, target) for slot, kind in sources
        ]
        fits = len(slots) == len(values) and all(
            value is not None and tuple(value.shape) == tuple(slot.shape)
            for (slot, _), value in zip(slots, values, strict=True)
        )
        if not fits:
            afresh.append(target.path)
            continue
        for (slot, _), value in zip(slots, values, strict=True):
            slot.assign(value)
    if afresh:
        names = ", ".join(afresh[:3]) + (", ..." if len(afresh) > 3 else "")
        warnings.warn(
            f"What {type(old).__name__} keeps for {names} "
            f"({len(afresh)} of {len(trained)} variables) has not the shape "
            "of the variable or was not there, so it cannot be cut with it "
            "and starts afresh. Adam, SGD and most others go on as they were.",
            stacklevel=3,
        )
