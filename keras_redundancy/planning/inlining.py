"""Layers without a rule: made anew in their own class, or inline."""

from keras_redundancy import _keras
from keras_redundancy.building.closing import set_by_arguments, set_by_inputs
from keras_redundancy.building.recipe import operations
from keras_redundancy.channels.reasons import Reason

NOT_INLINE = Reason(
    "not_inline",
    "no argument of {name} ({kind}) sets just this width; with inline=True "
    "the layers inside take its place{remark}",
)
BRANCHES = Reason(
    "other_in_training",
    "no argument of {name} ({kind}) sets just this width, and its call does "
    "something else with training=True, which the layers inside would not do "
    "in its place: pass `training` on to layers such as Dropout, in place of "
    "an `if`",
)
FIXED = ", for inputs of the traced sizes only: pass input_shape= or data="


def needing_inline(graph, spaces, inline: bool | None) -> list:
    """Why spaces stay where layers without a rule are to keep their classes.

    Args:
        graph: the traced model.
        spaces: some spaces of it.
        inline: the option of `plan`. None keeps those whose graphs inside are
            right for inputs of the traced sizes only. Those that do something
            else in training are always kept.

    Returns:
        A reason, or None, for each space.
    """
    blocks = [x for x in operations(graph.model) if _is_opened(x)]
    in_place = _keras.put_in_place(graph.model)
    kept = [
        (x, ways(x))
        for found, ways in ((blocks, _ways_to_set), (in_place, _no_ways))
        for x in found
        if _is_to_keep_its_class(x, inline)
        or (x.branches and x is not graph.model)
    ]
    return [_reason(space, kept) for space in spaces]


def _is_to_keep_its_class(opened, inline):
    return opened.has_known_sizes if inline is None else not inline


def _no_ways(_):
    return []


def _is_opened(operation):
    return isinstance(operation, _keras.Opened)


def _reason(space, opened):
    own = [{id(v) for v in x.layer.variables} for x, _ in opened]
    done = [
        variables
        for (_, ways), variables in zip(opened, own, strict=True)
        if _is_set(space, variables, ways)
    ]
    for (block, _), variables in zip(opened, own, strict=True):
        # A layer whose widths are set makes the layers inside anew as well.
        if not any(variables <= others for others in done):
            reason = BRANCHES if block.branches else NOT_INLINE
            return reason.format(
                name=block.layer.name,
                kind=type(block.layer).__name__,
                remark=FIXED if block.has_known_sizes else "",
            )
    return None


def _ways_to_set(opened):
    """Lists of the axes that arguments and inputs of a layer set.

    Inputs whose sizes are equal may grow together, or each one alone.
    """
    axes = set_by_arguments(opened)
    return [axes + of_inputs for of_inputs in set_by_inputs(opened)]


def _is_set(space, variables, ways):
    """Whether one of `_ways_to_set` sets the width of a space, and no other."""
    own = {(id(axis.on.variable), axis.on.axis) for axis in space.axes}
    inside = {key for key in own if key[0] in variables}
    return not inside or any(_is_made_up(inside, own, way) for way in ways)


def _is_made_up(inside, own, settable):
    found = [axes & inside for axes in settable if axes <= own]
    # Where two set the same axis, it is not known which of them has to change.
    once = sum(map(len, found)) == len(set().union(*found))
    return once and inside == set().union(*found)


def ways_of_blocks(graph, decisions) -> dict[str, str]:
    """How layers without a rule are made anew, as far as their sizes say.

    Args:
        graph: the traced model.
        decisions: what happens to each space.

    Returns:
        {name: "by its arguments" or "inline"} of those that change.
    """
    gone = [x.space for x in decisions if len(x.selection.removed)]
    found = {}
    blocks = [x for x in operations(graph.model) if _is_block(x)]
    in_place = _keras.put_in_place(graph.model)
    for opened in [*blocks, *in_place]:
        own = {id(v) for v in opened.layer.variables}
        changed = [
            space
            for space in gone
            if any(id(axis.on.variable) in own for axis in space.axes)
        ]
        if changed:
            ways = [] if opened in in_place else _ways_to_set(opened)
            by_arguments = all(_is_set(x, own, ways) for x in changed)
            way = "by its arguments" if by_arguments else "inline"
            found[opened.name] = way
    return found


def _is_block(operation):
    return _is_opened(operation) and not hasattr(operation, "blocks")
