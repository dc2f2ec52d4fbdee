"""Units chosen by hand: a decision with more units gone, or fewer."""

import dataclasses

import numpy as np

from keras_redundancy.channels import Role
from keras_redundancy.planning.selection import Selection, nearest


def decisions_about(decisions, name: str) -> list[int]:
    """Which decisions are about the units that a layer writes.

    Args:
        decisions: all.
        name: of the layer, or of a space as a plan shows it.

    Raises:
        KeyError: no layer with units has this name.
    """
    names = [decision.space.name for decision in decisions]
    found = [i for i, of_space in enumerate(names) if of_space == name]
    found = found or [
        i
        for i, decision in enumerate(decisions)
        if any(layer.name == name for layer in decision.space.producers)
    ]
    if not found:
        shown = ", ".join(names[:12]) + (", ..." * (len(names) > 12))
        raise KeyError(
            f"{name!r} is no layer with units. Those of the plan are: {shown}."
        )
    return found


def the_decision_about(decisions, name: str):
    """The one decision about the units that a layer writes.

    Raises:
        KeyError: as `decisions_about`.
        ValueError: there are several.
    """
    found = decisions_about(decisions, name)
    if len(found) > 1:
        raise ValueError(_decided_apart(decisions, found, name))
    return decisions[found[0]]


def with_units(plan, name: str, units, stay: bool) -> tuple:
    """The decisions of a plan, with some units of a layer gone or kept.

    Args:
        plan: the `Plan`.
        name: of the layer, or of a space as the plan shows it.
        units: numbers of the layer's units, such as filters of a convolution.
        stay: whether they stay; else they go.

    Raises:
        KeyError, TypeError, ValueError: as `Plan.without`.
    """
    if plan.compared is None:
        raise ValueError(
            f"{plan!r} compared no units, so that none can be chosen by hand. "
            "Choose from what kr.plan(model, ratio=0) returns."
        )
    decisions = list(plan.decisions)
    found = decisions_about(decisions, name)
    owners = _owners_in(decisions, found, name)
    units = _checked(units, name, np.stack(owners).max(axis=0))
    for number, owner in zip(found, owners, strict=True):
        chosen = owner[units]
        chosen = chosen[chosen >= 0]
        if len(chosen):
            decisions[number] = _changed(
                plan, decisions[number], name, chosen, stay
            )
    return tuple(decisions)


def _decided_apart(decisions, found, name):
    names = ", ".join(repr(decisions[i].space.name) for i in found)
    return (
        f"The layer {name!r} writes units that are decided about apart, those "
        f"of {names}. Name one of these, or look through plan.decisions."
    )


def _owners_in(decisions, found, name):
    """For each decision which of its units each unit of the layer is, or -1.

    Arrays of one shape, (units of the layer,). A layer may hold a unit at
    several places, as grouped convolutions do, and count its units in another
    order than the space.
    """
    places = []
    for number in found:
        space = decisions[number].space
        places.append(
            next(
                place
                for place in space.axes_of(Role.PRODUCER)
                if name in (place.on.layer.name, space.name)
            )
        )
    if len({id(place.on) for place in places}) > 1:
        raise ValueError(_decided_apart(decisions, found, name))
    return [
        _owner(place, decisions[number].space.size)
        for place, number in zip(places, found, strict=True)
    ]


def _owner(place, size):
    layer, positions = place.on.layer, place.positions
    count = getattr(layer, "filters", None) or getattr(layer, "units", None)
    if count is None and positions.shape[1] > 1:
        return np.arange(size)
    owner = np.full(len(place.on.group), -1)
    owner[positions] = np.arange(size)[:, None]
    return owner[:count]


def _checked(units, name, owner):
    """The numbers of a layer's units as an array."""
    given = np.atleast_1d(np.asarray(units))
    if not given.size:
        return np.empty(0, int)
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise TypeError(
            f"units are numbers of units of {name!r}, such as [3, 7], but "
            f"received {units!r}."
        )
    known = np.flatnonzero(owner >= 0)
    unknown = given[~np.isin(given, known)]
    if len(unknown):
        raise ValueError(
            f"{name!r} has no units {unknown.tolist()}: its {len(known)} units "
            f"have numbers from {known.min()} to {known.max()}."
        )
    return given


def _changed(plan, decision, name, chosen, stay):
    """The decision with some units of its space gone or kept."""
    if decision.space.frozen:
        raise ValueError(
            f"The units of {name!r} have to stay: {decision.reason}. "
            "plan.explain() shows all that stays and why."
        )
    if decision.reason is not None:
        raise ValueError(
            f"The units of {name!r} are not planned: {decision.reason}. Let "
            "the plan have them; with ratio=0 it takes none by itself."
        )
    selection = decision.selection
    stays = selection.stands_for == np.arange(decision.space.size)
    stays[chosen] = stay
    if not stays.any():
        raise ValueError(
            f"No unit of {name!r} would be left: one has to stay. The plan "
            f"keeps {selection.kept.tolist()}; name fewer of them."
        )
    selection = _selection(plan, decision, np.flatnonzero(stays))
    return dataclasses.replace(decision, selection=selection)


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
