"""Whose penalty Keras asks a regularizer for."""

import inspect
import weakref

import keras

from keras_redundancy._keras.layers import flat_layers

# {id of a variable: the layer it belongs to}: without compilation, Keras asks
# for each penalty in each step.
_OWNERS = weakref.WeakValueDictionary()


def penalized() -> tuple | None:
    """The layer and the variable whose penalty Keras is asking for.

    Keras calls a regularizer with the value of a variable alone: on JAX with a
    tracer, else with the variable, which does not say whose it is. The method
    of Keras that calls the regularizer has both at hand: `variable`, and as
    `self` the layer, or the model around it that is trained. So its frame is
    looked for among the callers.

    Returns:
        (layer, variable); None if the regularizer was called by anybody else,
        or if this release of Keras does it in another way.
    """
    method = getattr(keras.Layer, "_get_regularization_losses", None)
    code, frame = getattr(method, "__code__", None), inspect.currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    if frame is None:
        return None
    names = frame.f_locals
    asked, variable = names.get("self"), names.get("variable")
    if not isinstance(asked, keras.Layer):
        return None
    owner = _OWNERS.get(id(variable))
    if owner is None or not _holds(owner, variable):
        owner = _owner(asked, variable)
        if owner is None:
            return None
        _OWNERS[id(variable)] = owner
    return owner, variable


def _owner(layer, variable):
    """The layer that a variable belongs to, inside of a layer or itself.

    A wrapper such as `SpectralNormalization` holds the kernel of the layer
    inside of it as well: the inner one is meant.
    """
    found, inside = None, flat_layers(layer)
    while holders := [x for x in inside if _holds(x, variable)]:
        found = holders[0]
        inside = flat_layers(found)[1:]
    return found


def _holds(layer, variable):
    """Whether a variable belongs to a layer itself, not to one inside of it."""
    own = (*layer._trainable_variables, *layer._non_trainable_variables)
    return any(x is variable for x in own)
