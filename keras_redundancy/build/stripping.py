"""Take away what a model has for training alone."""

from keras_redundancy import _keras
from keras_redundancy.build.rebuild import rebuild, require_rebuildable
from keras_redundancy.low_rank.factorized import Factorized
from keras_redundancy.low_rank.frobenius import FrobeniusNormalization
from keras_redundancy.noise_out.outputs import NoiseOutputs


def strip(model):
    """A copy of a model without what this package put in for training.

    `FactorizedDense` becomes `Dense`, and `FrobeniusNormalization` the layer
    that it wraps, with the kernels that they compute with; `RaReRegularizer`
    goes, and what it had in `also` stays; `NoiseOutputs` go. `prune` does the
    same.

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
    return strip(model) if _own_layers(model) else model


def _own_layers(model):
    _keras.graph_of(model)  # Raises where there is none.
    own = Factorized, FrobeniusNormalization, NoiseOutputs
    return [x for x in _keras.flat_layers(model) if isinstance(x, own)]


def require_trained(model) -> None:
    """Raise unless training can go on in a smaller model.

    Raises:
        ValueError: it is not compiled, or has layers whose variables are
            other ones after pruning.
    """
    if _keras.compile_arguments(model) is None:
        raise ValueError(
            f"optimizer=True goes on with the optimizer of {model.name!r}, "
            "but that model is not compiled. Call compile() and fit() before, "
            "or leave optimizer=True out."
        )
    for layer in _own_layers(model):
        if not isinstance(layer, NoiseOutputs):
            raise ValueError(
                f"optimizer=True cannot go on with the layer {layer.name!r} "
                f"({type(layer).__name__}): pruning makes a stock layer with "
                "other variables of it. Factorized layers become smaller "
                "while they are trained by kr.callbacks.DynamicLowRank; for "
                "all else, train kr.strip(model)."
            )
