"""A copy of a model that goes on training where it is."""

from keras_redundancy.building.absorb import DropAbsorber
from keras_redundancy.building.compiling import fresh_arguments
from keras_redundancy.building.optimizer_state import SlotCut, carry_over
from keras_redundancy.building.rebuild import (
    rebuild_and_match,
    require_rebuildable,
)
from keras_redundancy.building.recipe import Recipe
from keras_redundancy.building.stripping import require_trained


def copy_for_training(model):
    """A copy of a compiled model, optimizer and all.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it is not compiled, what it was compiled with cannot be
            made anew, or it cannot be rebuilt.
    """
    require_trained(model)
    require_rebuildable(model)
    _require_copies(model)
    its_copy, matches = rebuild_and_match(Recipe.of(model))
    uncut = SlotCut([], "medoid", DropAbsorber())
    carry_over(model, its_copy, matches, uncut)
    return its_copy


def _require_copies(model):
    try:
        fresh_arguments(model)
    except ValueError as error:
        raise ValueError(
            f"No copy of {model.name!r} can be compiled as it is: {error}"
        ) from error
