"""Layers, operations and activations of Keras 3 in tf_keras (Keras 2).

Imported only where tf_keras is installed.
"""

import functools
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


# Activations that tf_keras lacks, or computes in another way.
ACTIVATIONS = {
    "hard_sigmoid": lambda x: tf.nn.relu6(x + 3) / 6,
    "hard_silu": lambda x: x * tf.nn.relu6(x + 3) / 6,
    "leaky_relu": lambda x: tf.nn.leaky_relu(x, 0.2),
    "log_softmax": lambda x: tf.nn.log_softmax(x),
    "relu6": lambda x: tf.nn.relu6(x),
    "silu": lambda x: tf.nn.silu(x),
}
for _name, _function in ACTIVATIONS.items():
    _function.__name__ = _name  # So that models save.
    tf_keras.utils.register_keras_serializable("keras_redundancy")(_function)


def activation(function, layer):
    """The function of tf_keras that returns the same numbers.

    Raises:
        ValueError: there is none.
    """
    name = getattr(function, "__name__", type(function).__name__)
    found = getattr(tf_keras.activations, name, None), ACTIVATIONS.get(name)
    found = [other for other in found if other is not None]
    x = np.linspace(-8, 8, 102, dtype="float32")[None]
    wanted = keras.ops.convert_to_numpy(function(keras.ops.array(x)))
    for other in found:
        if np.allclose(wanted, other(tf.constant(x)).numpy(), atol=1e-5):
            return other
    verb = "computes another" if found else "has no"
    raise refusal(layer, f"tf_keras {verb} activation {name!r}.")


# --- operations -------------------------------------------------------------


def _merge(layer, function):
    """A layer for tensors of one shape, which tfmot knows; else a function."""

    def merged(a, b):
        if type(a) is type(b) and a.shape == b.shape:
            return layer()([a, b])
        return function(a, b)

    return merged


def _reshaped(x, newshape):
    return tf.reshape(x, [-1 if size is None else size for size in newshape])


# A function takes what the operation was called with, and those attributes of
# the operation that it has parameters for.
OPERATIONS = {
    np3.Add: _merge(tf_keras.layers.Add, tf.add),
    np3.Subtract: _merge(tf_keras.layers.Subtract, tf.subtract),
    np3.Multiply: _merge(tf_keras.layers.Multiply, tf.multiply),
    np3.Maximum: _merge(tf_keras.layers.Maximum, tf.maximum),
    np3.Minimum: _merge(tf_keras.layers.Minimum, tf.minimum),
    np3.Divide: tf.divide,
    np3.TrueDivide: tf.divide,
    np3.Power: tf.pow,
    np3.Matmul: tf.matmul,
    np3.GetItem: lambda x, key: x[key],
    np3.Absolute: tf.abs,
    np3.Exp: tf.exp,
    np3.Log: tf.math.log,
    np3.Negative: tf.negative,
    np3.Sqrt: tf.sqrt,
    np3.Square: tf.square,
    np3.Tanh: tf.tanh,
    nn.Relu: tf.nn.relu,
    nn.Relu6: tf.nn.relu6,
    nn.Sigmoid: tf.sigmoid,
    nn.Silu: lambda x: tf.nn.silu(x),
    nn.Softmax: tf.nn.softmax,
    nn.Gelu: tf.nn.gelu,
    np3.Max: tf.reduce_max,
    np3.Mean: tf.reduce_mean,
    np3.Min: tf.reduce_min,
    np3.Sum: tf.reduce_sum,
    np3.Concatenate: tf.concat,
    np3.ExpandDims: tf.expand_dims,
    np3.Reshape: _reshaped,
    np3.Squeeze: lambda x, axis: tf.squeeze(x, axis),
    np3.Transpose: lambda x, axes: tf.transpose(x, axes),
    _keras.CustomScaleLayer: lambda xs, scale: xs[0] + xs[1] * scale,
}


def operation_like(operation):
    """A function of tensors of tf_keras that computes what an operation does.

    Raises:
        ValueError: there is none.
    """
    function = OPERATIONS.get(type(operation))
    if function is None:
        raise refusal(operation, "there is no entry for this operation.")
    settings = {
        key: value
        for key, value in vars(operation).items()
        if key in inspect.signature(function).parameters and key != "name"
    }
    return functools.partial(function, **settings)


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
