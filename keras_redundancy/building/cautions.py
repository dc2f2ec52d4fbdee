"""Warnings of what a new model lacks, besides the units that went."""

from keras_redundancy import _keras
from keras_redundancy._shared.warn import warn


def warn_of_losses(inline) -> None:
    """Warn of losses that layers added which are not there any more.

    Args:
        inline: the `Opened`s that took the places of layers.
    """
    adding = {id(x): x for opened in inline for x in opened.adding}
    if adding:
        warn(
            "The new model is without the losses that calls of "
            f"{_named(adding.values())} added by add_loss(): the layers inside "
            "take their place. What it returns is the same. To train it with "
            "such a loss, add that to compile(loss=...), or as an "
            "activity_regularizer of a layer.",
        )


def _named(layers):
    return ", ".join(f"{x.name!r} ({type(x).__name__})" for x in layers)


def warn_of_fixed_sizes(model, opened):
    shapes = ", ".join(str(x.shape[1:]) for x in _keras.graph_of(model).inputs)
    kind = type(opened[0].layer).__name__
    warn(
        f"The new model takes inputs of the shapes {shapes} alone, as it was "
        f"traced on: the layers inside of {opened[0].layer.name!r} ({kind}) "
        "take its place, and compute the same for these sizes only. Pass "
        "input_shape= for others, or inline=False if that keeps the layer.",
    )


def warn_of_branches(inline):
    branching = [x for x in inline if x.branches]
    if branching:
        names = _named(x.layer for x in branching)
        warn(
            f"The call of {names} does something else with training=True, "
            "which the layers inside do not do in its place. The class makes "
            "no layer that computes what is left: pass skip= to leave it whole,"
            " or pass `training` on to layers such as Dropout instead of an "
            "`if`.",
        )


def warn_if_not_opened_again(model):
    nested = _keras.sharing_models(model, with_weights=True)
    if nested:
        names = ", ".join(repr(x.name) for x in nested)
        warn(
            "Keras saves the new model, but does not open it again: the models "
            f"nested in it ({names}) call layers that are called outside of "
            "them as well. Save kr.functional(small) in place of small: the "
            "same layers, all called in one graph.",
        )
