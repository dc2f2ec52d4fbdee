"""Take away what a model has for training alone."""

from __future__ import annotations  # help() shows the names of types.

import keras

from keras_redundancy import _keras
from keras_redundancy.building.rebuild import rebuild, require_rebuildable
from keras_redundancy.building.recipe import Recipe
from keras_redundancy.building.stock import (
    layers_for_training,
    stock_form,
    warn_of_layers,
)
from keras_redundancy.channels.functional import with_graph


def strip(model: keras.Model) -> keras.Model:
    """A copy of a model without what is there for training only.

    `FactorizedDense` becomes `Dense`, `FactorizedConv2D` `Conv2D`, and
    `FrobeniusNormalization` the layer that it wraps, each with the kernel that
    it computes with. A `RaReRegularizer` is replaced by the regularizer that
    it has in `also`, and `NoiseOutputs` are left out. `prune` does the same.
    For layers of your own, see `register_stock_form`.

    Args:
        model: a built `keras.Model`, as for `plan`. It is never
            changed.

    Returns:
        A new `keras.Model` of stock layers that computes the same, compiled
        with the same arguments if `model` was. `keras.models.load_model`
        opens it where this package is absent.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it is not built, or a layer cannot be rebuilt.

    Example:

        kr.strip(model).save("model.keras")
    """
    model = with_graph(model)
    require_rebuildable(model)
    warn_of_layers(model)
    return rebuild(Recipe.of(model, is_stock=True))


def stock(model):
    """The model itself, or `strip(model)` if it has layers to strip.

    A functional model is made of a subclassed one.

    Raises:
        TypeError, ValueError: as `strip`.
    """
    model = with_graph(model)
    if layers_for_training(model):
        return strip(model)
    warn_of_layers(model)
    return model


def require_trained(model) -> None:
    """Raise unless training can go on in a smaller model.

    Raises:
        ValueError: it is not compiled, or another layer, with other
            variables, takes the place of one of its layers.
    """
    if _keras.compile_arguments(model) is None:
        raise ValueError(
            f"{model.name!r} is not compiled, so that no training can go on "
            "in a smaller model. Call compile() before; to prune without "
            "training, leave optimizer=True out."
        )
    warn_of_layers(model)
    for layer in layers_for_training(model):
        form = stock_form(layer)
        if not form.is_left_out:
            raise ValueError(
                f"optimizer=True cannot go on with the layer {layer.name!r} "
                f"({type(layer).__name__}): pruning makes a "
                f"{form.kind.__name__} of it, whose variables the optimizer "
                "does not know. Train kr.strip(model) in place of the model. "
                f"{form.advice}".rstrip()
            )
