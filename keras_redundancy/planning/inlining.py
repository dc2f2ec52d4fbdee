"""What can only go if the graph inside of a layer takes its place."""

from keras_redundancy import _keras
from keras_redundancy.building.closing import set_by_arguments
from keras_redundancy.building.recipe import operations
from keras_redundancy.channels.opening import has_stand_ins
from keras_redundancy.channels.reasons import Reason

NOT_INLINE = Reason(
    "not_inline",
    "no argument of {name} ({kind}) sets just this width; with inline=True "
    "the layers inside take its place{remark}",
)
FIXED = ", for inputs of the traced sizes only: pass input_shape= or data="


def needing_inline(graph, spaces, inline: bool | None) -> list:
    """Why spaces stay where layers made of layers are to keep their classes.

    Args:
        graph: the traced model.
        spaces: some spaces of it.
        inline: the option of `plan`. None keeps those whose graphs inside are
            right for inputs of the traced sizes only.

    Returns:
        A reason, or None, for each space.
    """
    is_fixed = has_stand_ins(graph.model)
    if inline or (inline is None and not is_fixed):
        return [None] * len(spaces)
    remark = FIXED if is_fixed else ""
    opened = [
        (
            x.layer,
            {id(v) for v in x.layer.variables},
            set_by_arguments(x),
        )
        for x in operations(graph.model)
        if isinstance(x, _keras.Opened)
    ]
    return [_reason(space, opened, remark) for space in spaces]


def _reason(space, opened, remark):
    own = {(id(axis.on.variable), axis.on.axis) for axis in space.axes}
    for layer, variables, settable in opened:
        inside = {key for key in own if key[0] in variables}
        if inside and not any(inside <= axes <= own for axes in settable):
            kind = type(layer).__name__
            return NOT_INLINE.format(name=layer.name, kind=kind, remark=remark)
    return None
