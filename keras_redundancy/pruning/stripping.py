"""Put in what a model has for training alone, and take it away."""

import keras

from keras_redundancy import _keras_internals as internals
from keras_redundancy.layers import FactorizedDense, FrobeniusNormalization
from keras_redundancy.options import Layers, selected_layers
from keras_redundancy.pruning.rebuild import rebuild, require_rebuildable


def factorize(model, layers: Layers = None):
    """A copy of a model with `FactorizedDense` in place of `Dense` layers.

    It computes the same, and is compiled with the same arguments if `model`
    was. `strip` makes `Dense` layers of them again.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        layers: those to replace: a name, a regular expression, a list of
            them, or a callable that takes a layer and returns a bool. By
            default all.

    Returns:
        A new `keras.Model`.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it is not built, has no `Dense` layer, or a layer cannot
            be rebuilt.
    """
    require_rebuildable(model)
    dense = [
        layer
        for layer in internals.flat_layers(model)
        if type(layer) is keras.layers.Dense
    ]
    if not dense:
        raise ValueError(
            f"The model {model.name!r} has no Dense layer to factorize."
        )
    chosen = set(map(id, dense))
    if layers is not None:
        chosen = selected_layers(layers, dense, "layers")
    return rebuild(model, {}, {}, factorized=chosen)


def strip(model):
    """A copy of a model without what this package put in for training.

    `FactorizedDense` becomes `Dense`, and `FrobeniusNormalization` the layer
    that it wraps, with the kernels that they compute with; `RaReRegularizer`
    goes, and what it had in `also`
    stays. `prune` does the same.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
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
    require_rebuildable(model)
    return rebuild(model, {}, {})


def stock(model):
    """The model itself, or `strip(model)` if it has layers to strip."""
    internals.graph_of(model)  # Raises where there is none.
    own = FactorizedDense, FrobeniusNormalization
    if any(isinstance(x, own) for x in internals.flat_layers(model)):
        return strip(model)
    return model
