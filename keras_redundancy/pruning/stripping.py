"""Take away what a model has for training alone."""

from keras_redundancy import _keras_internals as internals
from keras_redundancy.layers import FrobeniusNormalization
from keras_redundancy.pruning.rebuild import rebuild, require_rebuildable


def strip(model):
    """A copy of a model without what this package put in for training.

    `FrobeniusNormalization` becomes the layer that it wraps, with the kernel
    that it computes with; `RaReRegularizer` goes, and what it had in `also`
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
    kernels = {
        id(wrapper.layer.kernel): wrapper.effective_kernel()
        for wrapper in _wrappers(model)
    }
    return rebuild(model, {}, kernels)


def without_wrappers(model):
    """The model itself, or `strip(model)` if it has layers to strip."""
    return strip(model) if _wrappers(model) else model


def _wrappers(model):
    internals.graph_of(model)  # Raises where there is none.
    found = internals.flat_layers(model)
    return [x for x in found if isinstance(x, FrobeniusNormalization)]
