"""Configs of layers, also where Keras's own `get_config` fails."""

import types
import warnings

import keras

from keras_redundancy._keras.layers import attributes_of, copy_operation

# Entries of configs that are activation functions.
ACTIVATIONS = ("activation", "recurrent_activation")


def config_fault(layer) -> str | None:
    """Why `get_config` of a layer fails, or None if it does not."""
    try:
        get_config(layer)
    except Exception as error:  # Whatever the layer's own code raises.
        return " ".join(str(error).split("\n\n")[0].split())
    return None


def get_config(layer):
    """The layer's config, without Keras's warning of functions without names.

    An activation that Keras cannot serialize is "linear" in the config.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*includes a `lambda`")
        return _with_a_config(layer).get_config()


def _with_a_config(layer):
    """The layer, or a copy without activations that Keras cannot serialize.

    Such as None, which is set to look at what a softmax reads.
    """
    others = {
        key: keras.activations.linear
        for key, value in vars(layer).items()
        if key in ACTIVATIONS and (value is None or has_no_config(value))
    }
    for key in ("cell", "layer"):
        inner = attributes_of(layer).get(key)
        if isinstance(inner, keras.Layer):
            other = _with_a_config(inner)
            others |= {} if other is inner else {key: other}
    if not others:
        return layer
    clone = copy_operation(layer)
    vars(clone).update(others)
    return clone


def has_no_config(value):
    """Whether it is a callable such as a partial function or a method."""
    return (
        callable(value)
        and not is_function(value)
        and not hasattr(value, "get_config")
    )


def is_function(value):
    """Whether it is a function of Python or C, and no other callable."""
    return isinstance(value, types.FunctionType | types.BuiltinFunctionType)
