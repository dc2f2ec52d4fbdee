"""Losses that layers and regularizers add."""

import keras
from keras import ops


def as_loss(penalty):
    """A penalty in `keras.config.floatx()`, the dtype of Keras's losses.

    Keras adds up losses of one dtype only, and a layer's own policy may have
    another one.
    """
    return ops.cast(penalty, keras.config.floatx())
