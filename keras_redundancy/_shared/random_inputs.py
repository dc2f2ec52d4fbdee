"""Values to run a model on where only its shapes matter."""

import keras
import numpy as np


def random_input(rng: np.random.Generator, shape: tuple, dtype) -> np.ndarray:
    """Random floats; zeros for an input of integers; empty text for strings."""
    dtype = keras.backend.standardize_dtype(dtype)
    if dtype == "string":
        return np.full(shape, "", object)
    if keras.backend.is_float_dtype(dtype):
        return rng.normal(size=shape).astype("float32")
    return np.zeros(shape, dtype)
