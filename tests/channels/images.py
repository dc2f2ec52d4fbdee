"""Models on images, around what is done with their channels."""

import keras
import numpy as np
from keras import layers, ops

from tests.rule_checks import assert_copies_go


def convolution(name, width=12, **options):
    options = {"padding": "same", "activation": "relu", **options}
    return layers.Conv2D(width, 3, name=name, **options)


def image_model(between, **options):
    """`between` takes an image of 5 x 5 positions and 12 channels."""
    inputs = keras.Input((5, 5, 4), **options)
    x = layers.Flatten()(between(convolution("a")(inputs)))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def pair_model(combine, **options):
    """`combine` takes two such images."""
    inputs = keras.Input((5, 5, 4), **options)
    x, y = convolution("a")(inputs), convolution("b")(inputs)
    x = layers.Flatten()(combine(x, y))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def assert_followed(model, tmp_path=None, frozen=(), **options):
    """Copies go, and no unit stays but those of the output and `frozen`.

    Returns:
        {names of the producers: units} of what can go.
    """
    graph = assert_copies_go(model, tmp_path, **options)
    stays = {s.name for s in graph.spaces if s.frozen and s.producers}
    assert stays == {"top", *frozen}
    return {
        "".join(sorted(layer.name for layer in s.producers)): s.size
        for s in graph.prunable
    }


def thin(x, name="thin", **options):
    return layers.Conv2D(1, 1, name=name, **options)(x)


def vector(x, width=12, name="v"):
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(width, activation="sigmoid", name=name)(x)


def array(*shape, dtype="float32"):
    values = np.random.default_rng(5).normal(size=shape)
    return (values > 0) if dtype == "bool" else values.astype(dtype)


def shuffled(x, groups, axis=-1):
    """The channels of the groups in turn: 0 4 8 1 5 9 ... for 3 groups."""
    *positions, channels = x.shape[1:]
    x = layers.Reshape((*positions, groups, channels // groups))(x)
    x = ops.swapaxes(x, -1, -2)
    return layers.Reshape((*positions, channels))(x)
