"""Shapes of what the steps work on, and layers that suit them."""

import contextlib

import keras
import numpy as np
from keras import layers, ops

SIZE = 4
LENGTH = 6
MOST_CHANNELS = 24
JAX = keras.backend.backend() == "jax"
# Whether convolutions pad by a layer of their own, see `padding_apart`.
APART = [False]


def of_rank(x, kind):
    """The class `kind`, as "Conv{}D", for as many position axes as `x` has."""
    return getattr(layers, kind.format(len(x.shape) - 2))


@contextlib.contextmanager
def padding_apart():
    """Have convolutions padded by layers before them.

    What they read is then constant where it looks so: a border that only the
    convolution adds is not seen by what calibrates on its inputs.
    """
    APART[0] = True
    try:
        yield
    finally:
        APART[0] = False


def convolution(x, width, size=3, **options):
    options = {"padding": "same", **options}
    if APART[0] and options["padding"] == "same":
        reach = (size - 1) * options.get("dilation_rate", 1)
        if reach:
            x = of_rank(x, "ZeroPadding{}D")(reach // 2)(x)
        options["padding"] = "valid"
    return of_rank(x, "Conv{}D")(width, size, **options)(x)


def like(x, y):
    """A convolution of `y` with as many channels as `x`."""
    return convolution(y, x.shape[-1], 1)


def even(x):
    """`x`, or a convolution of it with an even number of channels."""
    return convolution(x, x.shape[-1] + 1, 1) if x.shape[-1] % 2 else x


def array(*shape):
    values = np.random.default_rng(sum(shape)).normal(size=shape)
    return values.astype("float32")


def positions_of(x):
    """The axes between batch and channels."""
    return list(range(1, len(x.shape) - 1))


def sequence_of(x):
    """(batch, positions, channels)."""
    return layers.Reshape((-1, x.shape[-1]))(x)


def mean_of(x):
    """(batch, channels): the mean over positions."""
    return ops.mean(x, axis=positions_of(x))


def halves_in_turn(x):
    """The two halves of the channels in turn: 0 4 1 5 2 6 3 7."""
    shape = x.shape[1:]
    x = layers.Reshape((*shape[:-1], 2, shape[-1] // 2))(even(x))
    return layers.Reshape(shape)(ops.swapaxes(x, -1, -2))
