"""Cut a model: from the units that go to the smaller, mended model."""

import functools
import threading

import numpy as np

from keras_redundancy.building.absorb import axis_changes, new_values
from keras_redundancy.building.optimizer_state import SlotCut, carry_over
from keras_redundancy.building.rebuild import rebuild_and_match
from keras_redundancy.building.recipe import (
    CallRecipe,
    LayerRecipe,
    Recipe,
    is_configured,
    operations,
    own_variables,
)
from keras_redundancy.building.stock import LayerForm
from keras_redundancy.channels.labels import Constant
from keras_redundancy.channels.opening import opened_like

# While a model runs on JAX, its arrays are not its own for others to read.
ONE_AT_A_TIME = threading.RLock()


def removed_groups(graph, decisions) -> np.ndarray:
    """Whether each group of channels goes, a bool array of shape (groups,)."""
    gone = np.zeros(graph.group_count, bool)
    for decision in decisions:
        gone[decision.space.groups[decision.selection.removed]] = True
    return gone


def smaller_model(
    graph,
    decisions,
    keep: str,
    absorber,
    repair=None,
    optimizer: bool = False,
    verbose: bool = False,
):
    """The model of a `ChannelGraph` without the units that go.

    One model is built at a time, whatever thread asks for it.

    Args:
        graph: the traced model, which is not changed.
        decisions: what happens to each space: objects with a `space` and a
            `selection` of its units.
        keep: "mean" for units that are the means of their clusters.
        absorber: what the axes of consumers become; see `absorb`.
        repair: an object with `mend(graph, removed, small, verbose)`, which
            mends the smaller model in place, or None.
        optimizer: whether the smaller model goes on with the optimizer's
            state. Then what is for training stays.
        verbose: whether to draw a progress bar of the kernels that are
            fitted.

    Returns:
        A new `keras.Model`, compiled if the old one is.

    Raises:
        ValueError: a layer cannot be rebuilt.
    """
    with ONE_AT_A_TIME:
        removed = removed_groups(graph, decisions)
        changes = axis_changes(decisions)
        values, absorber = new_values(graph, changes, keep, absorber)
        recipe = recipe_of_cut(
            graph, removed, values, absorber, is_stock=not optimizer
        )
        small, matches = rebuild_and_match(recipe)
        if repair is not None:
            inside = opened_like(small, graph.model)
            repair.mend(graph, removed, inside, verbose)
        if optimizer and small.compiled:
            cut = SlotCut(changes, keep, absorber, decisions)
            carry_over(graph.model, small, matches, cut)
        return small


def recipe_of_cut(graph, removed, values, absorber, is_stock: bool) -> Recipe:
    """The recipe of a traced model without some groups of channels.

    Args:
        graph: the traced model.
        removed: whether each group goes, shape (groups,).
        values: the `NewValues` of its variables and constants.
        absorber: the prepared one, whose shifts may need biases where there
            are none.
        is_stock: whether layers for training become stock layers.
    """
    settings, forms = {}, {}

    def set_to(owner, path, value):
        _, of_owner = settings.setdefault(id(owner), (owner, {}))
        of_owner[path] = value

    for width, count in _new_counts(graph, removed):
        set_to(width.owner, width.path, count)
    for axis in graph.axes:
        constant = axis.variable
        if isinstance(constant, Constant) and constant in values:
            set_to(constant.owner, constant.path, values[constant])
    for step, bias in absorber.shifts.created.values():
        entry, value = step.setting
        set_to(step.layer, (entry,), value)
        kept = ~removed[graph.group[step.ids]]
        bias = np.compress(kept, bias, step.spans.index(step.axis))
        form = LayerForm(step.layer, values={"bias": bias})
        forms[id(step.layer)] = form
    layers = [
        LayerRecipe(
            x,
            forms.get(id(x)),
            settings.pop(id(x), (x, {}))[1],
            _cut_variables(x, values),
        )
        for x in operations(graph.model)
    ]
    calls = [CallRecipe(*entry) for entry in settings.values()]
    return Recipe.of(graph.model, layers, calls, is_stock)


def _new_counts(graph, removed):
    """[(width, new count), ...] of the widths that change."""
    kept = ~removed[graph.group]
    found = []

    def count_of(ids):
        return int(kept[ids].sum())

    for width in graph.widths:
        counts = tuple(map(count_of, width.parts))
        changes = counts != tuple(map(len, width.parts))
        if width.whole is not None:
            changes |= count_of(width.whole) < len(width.whole)
        if changes:
            count = counts if isinstance(width.ids, list) else counts[0]
            found.append((width, count))
    return found


def _cut_variables(operation, values):
    """Those that change, with functions that make the new arrays.

    So that the whole smaller model is never held twice.
    """
    if not is_configured(operation):
        return ()
    return tuple(
        (variable, functools.partial(values.__getitem__, variable))
        for variable in own_variables(operation)
        if variable in values
    )
