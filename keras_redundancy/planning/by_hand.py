"""Units chosen by hand: a decision with more units gone, or fewer."""

import dataclasses

import numpy as np

from keras_redundancy.channels import Role
from keras_redundancy.planning.selection import Selection, nearest


def number_of_decision(decisions, name: str) -> int:
    """Which decision is about the units that a layer writes.

    Args:
        decisions: all.
        name: of the layer, or of a space as a plan shows it.

    Raises:
        KeyError: no layer with units has this name.
        ValueError: the layer writes units of several spaces.
    """
    by_name = {d.space.name: i for i, d in enumerate(decisions)}
    if name in by_name:
        return by_name[name]
    found = [
        number
        for number, decision in enumerate(decisions)
        if any(layer.name == name for layer in decision.space.producers)
    ]
    if len(found) > 1:
        names = ", ".join(repr(decisions[i].space.name) for i in found)
        raise ValueError(
            f"The layer {name!r} writes units that are decided about apart. "
            f"Name one of: {names}."
        )
    if not found:
        shown = ", ".join([*by_name][:12]) + (", ..." * (len(by_name) > 12))
        raise KeyError(
            f"{name!r} is no layer with units. Those of the plan are: {shown}."
        )
    return found[0]


def changed(plan, name: str, units, stay: bool) -> tuple:
    """The decisions of a plan, with some units of a layer gone or kept.

    Args:
        plan: the `Plan`.
        name: of the layer, or of a space as the plan shows it.
        units: numbers of the layer's units, such as filters of a convolution.
        stay: whether they stay; else they go.

    Raises:
        KeyError, ValueError: as `number_of_decision`; the units are frozen or
            left out, there are no units with these numbers, or none would be
            left.
    """
    decisions = list(plan.decisions)
    number = number_of_decision(decisions, name)
    decision = decisions[number]
    if plan.compared is None:
        raise ValueError("Units of this plan cannot be chosen by hand.")
    if decision.reason is not None:
        raise ValueError(_left_alone(name, decision))
    chosen = _numbers_in_space(decision.space, name, units)
    selection = decision.selection
    stays = selection.stands_for == np.arange(decision.space.size)
    stays[chosen] = stay
    if not stays.any():
        raise ValueError(
            f"No unit of {name!r} would be left: one has to stay. The plan "
            f"keeps {selection.kept.tolist()}; name fewer of them."
        )
    decisions[number] = dataclasses.replace(
        decision, selection=_selection(plan, decision, np.flatnonzero(stays))
    )
    return tuple(decisions)


def _left_alone(name, decision):
    if decision.space.frozen:
        return (
            f"The units of {name!r} have to stay: {decision.reason}. "
            "plan.explain() shows all that stays and why."
        )
    return (
        f"The units of {name!r} are not planned: {decision.reason}. Let the "
        "plan have them; with ratio=0 it takes none by itself."
    )


def _numbers_in_space(space, name, units):
    """The numbers that a layer's units have in their space.

    A layer may hold a unit at several places, as grouped convolutions do, and
    count its units in another order.
    """
    places = [
        place
        for place in space.axes_of(Role.PRODUCER)
        if name in (place.on.layer.name, space.name)
    ]
    owner = _owners(places[0], space.size)
    known = np.flatnonzero(owner >= 0)
    given = np.atleast_1d(np.asarray(units))
    if not given.size:
        return np.empty(0, int)
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise TypeError(
            f"units are numbers of units of {name!r}, such as [3, 7], but "
            f"received {units!r}."
        )
    unknown = given[~np.isin(given, known)]
    if len(unknown):
        raise ValueError(
            f"{name!r} has no units {unknown.tolist()}: its {len(known)} units "
            f"have numbers from {known.min()} to {known.max()}."
        )
    return owner[given]


def _owners(place, size):
    """The unit of the space that each of the layer's units is, or -1."""
    layer, positions = place.on.layer, place.positions
    count = getattr(layer, "filters", None) or getattr(layer, "units", None)
    if count is None and positions.shape[1] > 1:
        return np.arange(size)
    owner = np.full(len(place.on.group), -1)
    owner[positions] = np.arange(size)[:, None]
    return owner[:count]


def _selection(plan, decision, kept):
    """These units stay; what stood for others and stays goes on doing so."""
    space, before = decision.space, decision.selection
    idle = np.setdiff1d(np.flatnonzero(plan.idle.of(space)), kept)
    stands_for = before.stands_for.copy()
    stands_for[kept] = kept
    lost = ~np.isin(stands_for, kept)
    if lost.any():
        units = plan.compared.units_of(space, np.arange(space.size))
        stands_for[lost] = nearest(units, kept).stands_for[lost]
    return Selection(kept, stands_for, idle)
