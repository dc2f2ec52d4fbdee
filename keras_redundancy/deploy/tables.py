"""Layers, operations and activations of Keras 3 in tf_keras (Keras 2).

Imported only where tf_keras is installed.
"""

import importlib
import inspect

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from keras_redundancy import _keras
from keras_redundancy._keras import nn_operations as nn, numpy_operations as np3
from keras_redundancy.deploy.pairs import is_quantized

# Arguments that have another name in tf_keras.
RENAMED = {keras.layers.LeakyReLU: {"negative_slope": "alpha"}}

# Arguments that tf_keras lacks, and that do not change what is predicted.
HARMLESS = {
    *("data_format", "fill_mode", "fill_value", "filters"),
    *("flash_attention", "input_length"),
    *("lora_alpha", "lora_rank", "optional", "quantization_config"),
    *("ragged", "seed", "sparse", "synchronized", "zero_output_for_mask"),
}

# Set elsewhere: weights are copied, and inner layers are translated.
SET_ELSEWHERE = {"dtype", "layer", "backward_layer", "cell", "cells"}


class RefusalError(ValueError):
    """A layer or an operation cannot be translated."""


def refusal(operation, reason: str) -> RefusalError:
    """The error for what cannot be translated."""
    name = f"{operation.name!r} ({type(operation).__name__})"
    return RefusalError(f"{name} cannot be translated to tf_keras: {reason}")


def own(name):
    """Registers a function that tf_keras lacks, so that models save."""
    register = tf_keras.utils.register_keras_serializable("keras_redundancy")

    def named(function):
        function.__name__ = name
        return register(function)

    return named


# Activations that tf_keras lacks, or computes in another way.
ACTIVATIONS = {
    name: own(name)(function)
    for name, function in {
        "hard_sigmoid": lambda x: tf.nn.relu6(x + 3) / 6,
        "hard_silu": lambda x: x * tf.nn.relu6(x + 3) / 6,
        "leaky_relu": lambda x: tf.nn.leaky_relu(x, 0.2),
        "log_softmax": lambda x: tf.nn.log_softmax(x),
        "relu6": lambda x: tf.nn.relu6(x),
        "silu": lambda x: tf.nn.silu(x),
    }.items()
}


def activation(function, layer):
    """The function of tf_keras that returns the same numbers.

    Raises:
        ValueError: there is none.
    """
    name = getattr(function, "__name__", type(function).__name__)
    found = []
    if name in dir(tf_keras.activations):
        found.append(getattr(tf_keras.activations, name))
    if name in ACTIVATIONS:
        found.append(ACTIVATIONS[name])
    x = np.linspace(-8, 8, 102, dtype="float32")[None]
    wanted = keras.ops.convert_to_numpy(function(keras.ops.array(x)))
    for other in found:
        if np.allclose(wanted, other(tf.constant(x)).numpy(), atol=1e-5):
            return other
    verb = "computes another" if found else "has no"
    raise refusal(layer, f"tf_keras {verb} activation {name!r}.")


# --- operations -------------------------------------------------------------


def _merge(name, function):
    """A layer for tensors of one shape, which tfmot knows; else a function."""

    def merged(operation, a, b):
        shapes = [getattr(x, "shape", None) for x in (a, b)]
        if all(map(_is_symbolic, (a, b))) and shapes[0] == shapes[1]:
            return getattr(tf_keras.layers, name)()([a, b])
        return function(a, b)

    return merged


def _is_symbolic(x):
    return hasattr(x, "shape") and tf_keras.backend.is_keras_tensor(x)


def _unary(function):
    return lambda operation, x: function(x)


def _reduction(function):
    return lambda operation, x: function(
        x, axis=operation.axis, keepdims=operation.keepdims
    )


def _reshaped(operation, x):
    sizes = [-1 if size is None else size for size in operation.newshape]
    return tf.reshape(x, sizes)


OPERATIONS = {
    np3.Add: _merge("Add", tf.add),
    np3.Subtract: _merge("Subtract", tf.subtract),
    np3.Multiply: _merge("Multiply", tf.multiply),
    np3.Maximum: _merge("Maximum", tf.maximum),
    np3.Minimum: _merge("Minimum", tf.minimum),
    np3.Divide: lambda operation, a, b: tf.divide(a, b),
    np3.TrueDivide: lambda operation, a, b: tf.divide(a, b),
    np3.Power: lambda operation, a, b: tf.pow(a, b),
    np3.Matmul: lambda operation, a, b: tf.matmul(a, b),
    np3.GetItem: lambda operation, x, key: x[key],
    np3.Absolute: _unary(tf.abs),
    np3.Exp: _unary(tf.exp),
    np3.Log: _unary(tf.math.log),
    np3.Negative: _unary(tf.negative),
    np3.Sqrt: _unary(tf.sqrt),
    np3.Square: _unary(tf.square),
    np3.Tanh: _unary(tf.tanh),
    nn.Relu: _unary(tf.nn.relu),
    nn.Relu6: _unary(tf.nn.relu6),
    nn.Sigmoid: _unary(tf.sigmoid),
    nn.Silu: _unary(tf.nn.silu),
    nn.Softmax: lambda operation, x: tf.nn.softmax(x, axis=operation.axis),
    nn.Gelu: lambda operation, x: tf.nn.gelu(x, operation.approximate),
    np3.Max: _reduction(tf.reduce_max),
    np3.Mean: _reduction(tf.reduce_mean),
    np3.Min: _reduction(tf.reduce_min),
    np3.Sum: _reduction(tf.reduce_sum),
    np3.Concatenate: lambda operation, xs: tf.concat(xs, operation.axis),
    np3.ExpandDims: lambda operation, x: tf.expand_dims(x, operation.axis),
    np3.Reshape: _reshaped,
    np3.Squeeze: lambda operation, x: tf.squeeze(x, operation.axis),
    np3.Transpose: lambda operation, x: tf.transpose(x, operation.axes),
    _keras.CustomScaleLayer: lambda operation, xs: (
        xs[0] + xs[1] * operation.scale
    ),
}


# --- layers -----------------------------------------------------------------


def layer_like(layer, name: str, inner: dict):
    """An unbuilt layer of tf_keras with the settings of a Keras layer.

    Args:
        layer: the layer.
        name: that of the new layer.
        inner: the layers that it wraps, as arguments of the new layer.

    Raises:
        ValueError: tf_keras has no layer, argument or activation like it.
    """
    cls = _class_like(layer)
    arguments = _arguments(layer, cls)
    arguments |= inner | {"name": name, "dtype": layer.dtype_policy.name}
    return cls(**arguments)


def _class_like(layer):
    cls = type(layer)
    if is_quantized(layer):
        raise refusal(
            layer, "it is quantized. Translate the model before quantize()."
        )
    if isinstance(layer, keras.layers.Lambda):
        raise refusal(
            layer, "its function is Python code for Keras 3. Use layers."
        )
    place = tf_keras.layers
    if cls is _keras.LayerScale:
        place = importlib.import_module("tf_keras.src.applications.convnext")
    elif getattr(keras.layers, cls.__name__, None) is not cls:
        advice = ""
        if cls.__module__.startswith("keras_redundancy"):
            advice = " Pass kr.strip(model), which has stock layers only."
        raise refusal(layer, f"it is no layer of Keras.{advice}")
    if not hasattr(place, cls.__name__):
        raise refusal(layer, "tf_keras has no layer of this name.")
    return getattr(place, cls.__name__)


def _arguments(layer, cls):
    known = _parameters(cls)
    renamed = RENAMED.get(type(layer), {})
    found = {}
    for key, value in layer.get_config().items():
        if key == "name" or key in SET_ELSEWHERE or key.endswith("initializer"):
            continue
        new = renamed.get(key, key)
        if new in known:
            found[new] = _value(layer, key, value)
        elif key not in HARMLESS and value not in (None, False):
            raise refusal(
                layer, f"tf_keras has no argument {key}={value!r} there."
            )
    return found


def _parameters(cls):
    """The names of the arguments that a class of tf_keras takes."""
    names = {"trainable"}
    for base in cls.__mro__:
        names |= set(inspect.signature(base.__init__).parameters)
        if base is tf_keras.layers.Layer:
            break
    return names


def _value(layer, key, value):
    if value is None:
        return None
    if key.endswith(("_regularizer", "_constraint")):
        module = key.rpartition("_")[2] + "s"
        mine = getattr(keras, module).get(value)
        place = getattr(tf_keras, module)
        name = type(mine).__name__
        if not hasattr(place, name):
            raise refusal(layer, f"tf_keras has no {key} {name}.")
        return getattr(place, name)(**mine.get_config())
    if key.endswith("activation"):
        return activation(getattr(layer, key), layer)
    return value
