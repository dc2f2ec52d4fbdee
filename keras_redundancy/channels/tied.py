"""Tied weights: variables that other layers than their own read too.

A variable of one layer can be an argument of an operation
(`ops.matmul(x, encoder.kernel)`), or be read by Python code: in a `Lambda`, in
an activation, in a layer of the user's own.
"""

import functools
import types

import keras

from keras_redundancy import _keras

LIBRARIES = {
    "jax",
    "keras",
    "keras_redundancy",
    "numpy",
    "tensorflow",
    "torch",
}


def owners_of(layers) -> dict:
    """{id(variable): layer} of the own variables of some layers."""
    return {
        id(variable): layer
        for layer in layers
        for variable in _own_variables(layer)
    }


def borrowed(call) -> list:
    """The variables that a call reads and that are not its layer's own.

    States of random generators do not count: no weight depends on them.
    """
    layer = call.operation
    read = _keras.variables_in(call.arguments)
    if isinstance(layer, keras.Layer) and runs_own_code(layer):
        read = read + _keras.variables_read(layer, *call.arguments)
    own = {id(variable) for variable in _own_variables(layer)}
    return [
        variable
        for variable in {id(x): x for x in read}.values()
        if id(variable) not in own and not _keras.is_random_state(variable)
    ]


def runs_own_code(layer) -> bool:
    """Whether a layer, or one inside of it, runs code of the user's own."""
    return any(
        type(part) is keras.layers.Lambda
        or not _keras.is_stock_class(type(part))
        or any(map(is_own_function, vars(part).values()))
        for part in _keras.flat_layers(layer)
    )


def is_own_function(value) -> bool:
    """Whether it is a function that can read variables of layers.

    One that no library defines, or a method of a layer.
    """
    if isinstance(value, functools.partial):
        return is_own_function(value.func)
    if isinstance(value, types.MethodType):
        is_of_layer = isinstance(value.__self__, keras.Layer)
        return is_of_layer or is_own_function(value.__func__)
    return (
        isinstance(value, types.FunctionType)
        and (value.__module__ or "").split(".")[0] not in LIBRARIES
    )


def _own_variables(layer):
    """None of a `Lambda`: variables among its arguments are those of others."""
    if type(layer) is keras.layers.Lambda:
        return []
    found = getattr(layer, "variables", [])
    return [*found, *getattr(layer, "metrics_variables", [])]
