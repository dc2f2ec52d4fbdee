"""Descriptions of models, data and functions, to compare two trainings.

A description is JSON. It is the same in every process: it has no addresses,
and no names with a counter, such as "dense_3".
"""

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sized

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.configured import Configured

# Of arrays with more bytes, evenly spaced rows are hashed.
MOST_BYTES = 2**26
# Entries of configs that do not change what is computed.
LEFT_OUT = ("name", "seed")
COMPILED_WITH = ("optimizer", "loss", "loss_weights", "metrics")
COMPILED_WITH += ("weighted_metrics",)
LONGEST = 60


def describe(value):
    """The description of a value.

    Numbers and strings describe themselves; mappings and lists are described
    entry by entry, arrays by dtype, shape and a hash, functions by name and
    code, Keras objects by their configs, all others by their class.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [describe(x) for x in value]
    if keras.ops.is_tensor(value) or isinstance(value, keras.Variable):
        return _words_of_array(keras.ops.convert_to_numpy(value))
    if hasattr(value, "tocsr"):  # A sparse array of SciPy.
        kept = value.tocsr()
        return [describe(x) for x in (kept.indptr, kept.indices, kept.data)]
    if hasattr(value, "__array__"):
        return _words_of_array(np.asarray(value))
    if isinstance(value, functools.partial):
        return describe([value.func, value.args, value.keywords])
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}{_code_of(value)}"
    return _words_of_object(value)


def words_of_model(model) -> dict:
    """The description of a model: layers, weights, `compile` arguments."""
    layers = [
        _words_of_layer(layer)
        for layer in _keras.flat_layers(model)
        if not _keras.is_model(layer)
    ]
    known = hashlib.sha256()
    for variable in model.weights:
        known.update(describe(variable).encode())
    arguments = _keras.compile_arguments(model) or {}
    return {
        "layers": f"{len(layers)} [{_short(repr(layers).encode())}]",
        "weights": f"{model.count_params():,} [{known.hexdigest()[:12]}]",
    } | {name: describe(arguments.get(name)) for name in COMPILED_WITH}


def differences(before, now, name: str = "") -> list[str]:
    """The differences of two descriptions, each as "name was A, is B"."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            words
            for key in before | now
            for words in differences(
                before.get(key, "not given"),
                now.get(key, "not given"),
                f"{name}[{key!r}]" if name else key,
            )
        ]
    return [f"{name} was {_shown(before)}, is {_shown(now)}"]


def _words_of_array(array):
    rows = array
    if array.nbytes > MOST_BYTES and len(array) > 1:
        count = max(1, MOST_BYTES * len(array) // array.nbytes)
        rows = array[np.linspace(0, len(array) - 1, count).astype(int)]
    if array.dtype.hasobject:
        content = repr(rows.tolist()).encode()
    else:
        content = rows.tobytes()
    return f"{array.dtype} {array.shape} [{_short(content)}]"


def _words_of_object(value):
    kind = type(value).__qualname__
    if isinstance(value, Configured):
        return {"class": kind, **describe(value.get_config())}
    if hasattr(value, "get_config"):
        config = describe(_keras.get_config(value))
        return {"class": kind, **_without_names(config)}
    if hasattr(value, "element_spec"):  # A tf.data.Dataset.
        return f"{kind} of {value.element_spec}"
    if isinstance(value, Sized):
        with contextlib.suppress(TypeError):  # PyTorch's loaders of streams.
            return f"{kind} of length {len(value)}"
    return kind


def _words_of_layer(layer):
    if isinstance(layer, keras.layers.Lambda):  # Its config has line numbers.
        return describe(["Lambda", layer.function, layer.arguments])
    return _words_of_object(layer)


def _without_names(words):
    if isinstance(words, list):
        return [_without_names(x) for x in words]
    if not isinstance(words, dict):
        return words
    return {k: _without_names(v) for k, v in words.items() if k not in LEFT_OUT}


def _code_of(function):
    """A hash of what a Python function does, but for what it closes over."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    return f" [{_short(repr(_parts_of(code)).encode())}]"


def _parts_of(code):
    parts = [code.co_code, code.co_names]
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            parts.append(_parts_of(constant))
        elif not isinstance(constant, frozenset):  # It has no order.
            parts.append(constant)
    return parts


def _short(content: bytes):
    return hashlib.sha256(content).hexdigest()[:12]


def _shown(words):
    text = words if isinstance(words, str) else repr(words)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
