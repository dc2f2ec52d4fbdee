"""Take away what a model has for training alone."""

from keras_redundancy import _keras_internals as internals
from keras_redundancy.layers import FrobeniusNormalization
from keras_redundancy.layers.factorized import Factorized
from keras_redundancy.pruning.rebuild import rebuild, require_rebuildable


def strip(model):
    """A copy of a model without what this package put in for training.

    `FactorizedDense` becomes `Dense`, and `FrobeniusNormalization` the layer
    that it wraps, with the kernels that they compute with; `RaReRegularizer`
    goes, and what it had in `also` stays. `prune` does the same.

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
    own = Factorized, FrobeniusNormalization
    if any(isinstance(x, own) for x in internals.flat_layers(model)):
        return strip(model)
    return model
