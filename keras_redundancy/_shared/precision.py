"""Sums and losses are computed in float32 at least."""

import keras
from keras import ops


def as_loss(penalty):
    """A penalty in `keras.config.floatx()`, the dtype of Keras's losses.

    Keras adds up losses of one dtype only, and a layer's own policy may have
    another one.
    """
    return ops.cast(penalty, keras.config.floatx())


def wide(dtype) -> str:
    """The dtype for sums and factors: float32, or float64 for float64."""
    return keras.backend.result_type(dtype, "float32")


def widened(x):
    """A tensor in the dtype for sums: a float16 cannot hold small squares."""
    return ops.cast(x, wide(x.dtype))
