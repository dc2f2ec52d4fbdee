"""Change by hand which units of a plan go."""

import dataclasses

import numpy as np

from keras_redundancy._shared.tables import listed
from keras_redundancy.channels import Role
from keras_redundancy.planning.selection import Selection, nearest


def decisions_about(decisions, name: str) -> list[int]:
    """Numbers of the decisions about the units that a layer writes.

    Args:
        decisions: all decisions of a plan.
        name: the name or path of the layer, or that of a space as a plan
            shows it.

    Raises:
        KeyError: no layer with units has this name.
    """
    names = [decision.space.name for decision in decisions]
    found = [i for i, of_space in enumerate(names) if of_space == name]
    found = found or [
        i
        for i, decision in enumerate(decisions)
        if any(_is_called(name, x, decision) for x in decision.space.producers)
    ]
    if not found:
        raise KeyError(
            f"{name!r} is no layer with units. The plan has these: "
            f"{listed(names)}."
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
        name: the name of the layer, or of a space as the plan shows it.
        units: numbers of the layer's units, such as filters of a convolution.
        stay: True to keep these units, False to remove them.

    Raises:
        KeyError, TypeError, ValueError: as `Plan.without`.
    """
    if plan.compared is None:
        raise ValueError(
            f"{plan!r} was made without comparing units, so that units that go "
            "by hand have none to stand for them. Make the plan with "
            "kr.plan(model, ratio=0), and change that one."
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


def _is_called(name, layer, decision):
    return name in (layer.name, decision.space.called(layer))


def _decided_apart(decisions, found, name):
    names = ", ".join(repr(decisions[i].space.name) for i in found)
    return (
        f"The layer {name!r} writes units that are decided about apart, those "
        f"of {names}. Pass one of these names, or look through plan.decisions."
    )


def _owners_in(decisions, found, name):
    """For each decision the number in its space of each unit of the layer.

    Arrays of shape (units of the layer,), with -1 for units of other spaces.
    A layer may hold a unit at several places, as grouped convolutions do, and
    number its units in another order than the space.
    """
    places = []
    for number in found:
        space = decisions[number].space
        places.append(
            next(
                place
                for place in space.axes_of(Role.PRODUCER)
                if name == space.name
                or _is_called(name, place.on.layer, decisions[number])
            )
        )
    if len({place.on for place in places}) > 1:
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
            f"units has to be a list of numbers of units of {name!r}, such as "
            f"[3, 7], but received {units!r}."
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
            f"The units of {name!r} are not planned: {decision.reason}. Make "
            "the plan without that; kr.plan(model, ratio=0) removes no units "
            "until you name some."
        )
    selection = decision.selection
    stays = selection.stays
    stays[chosen] = stay
    if not stays.any():
        raise ValueError(
            f"No unit of {name!r} would be left: one has to stay. The plan "
            f"keeps {selection.kept.tolist()}; name fewer of them."
        )
    selection = _selection(plan, decision, np.flatnonzero(stays))
    return dataclasses.replace(decision, selection=selection)


def _selection(plan, decision, kept):
    """The selection in which the units `kept` stay.

    A unit that goes is replaced by the unit that replaced it before, if that
    stays, else by the one most similar to it.
    """
    space, before = decision.space, decision.selection
    idle = np.setdiff1d(np.flatnonzero(plan.idle.first_of(space)), kept)
    stands_for = before.stands_for.copy()
    stands_for[kept] = kept
    lost = ~np.isin(stands_for, kept)
    if lost.any():
        units = plan.compared.units_of(space, np.arange(space.size))
        stands_for[lost] = nearest(units, kept).stands_for[lost]
    return Selection(stands_for, idle)
