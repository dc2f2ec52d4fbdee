"""Inputs to run a model on, and how much two outputs differ."""

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy.calibration.data import Samples, batches

OPEN_SIZE = 32


def random_inputs(model, count: int) -> list[np.ndarray]:
    """Random values for each input of a model; open sizes are 32.

    Integers, and what an Embedding reads, are below the smallest number of
    words of an Embedding.

    Args:
        model: a functional or Sequential model.
        count: the number of samples.
    """
    rng = np.random.default_rng(0)
    words = [
        layer.input_dim
        for layer in _keras.flat_layers(model)
        if isinstance(layer, keras.layers.Embedding)
    ]
    found = []
    for x in _keras.graph_of(model).inputs:
        shape = (count, *(size or OPEN_SIZE for size in x.shape[1:]))
        dtype = keras.backend.standardize_dtype(x.dtype)
        if keras.backend.is_float_dtype(dtype) and not words:
            found.append(rng.normal(size=shape).astype("float32"))
        else:
            most = min(words, default=2)
            found.append(rng.integers(0, most, shape).astype(dtype))
    return found


def first(model, data, count: int) -> list[np.ndarray]:
    """The first samples of some data: an array for each input of a model.

    Raises:
        TypeError, ValueError: `data` does not fit the model, or is empty.
    """
    batch = next(batches(model, Samples(data, steps=1), count))
    return [x[:count] for x in batch]


def difference(wanted: list, given: list) -> float:
    """The largest difference of outputs, as a share of the largest output."""
    return max(
        float(
            np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), 1e-12)
        )
        for a, b in zip(wanted, given, strict=True)
    )
