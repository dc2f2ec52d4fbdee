"""What the tests of training for low rank train."""

import keras
import numpy as np
from keras import layers

from keras_redundancy import _keras
from keras_redundancy.low_rank.factorized import Factorized
from tests import models


def mlp(width=12, dropout=None, **options):
    parts = [keras.Input((8,))]
    for name in ("one", "two"):
        parts.append(layers.Dense(width, "relu", name=name, **options))
        if dropout:
            parts.append(layers.Dropout(dropout))
    return keras.Sequential([*parts, layers.Dense(3, name="last")])


def data(count=256, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 8)).astype("float32")
    y = np.argmax(x @ rng.normal(size=(8, 3)), axis=1)
    return x, y


def compiled(model, optimizer="adam", **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **options)
    return model


def factorized_layers(model):
    return [
        layer
        for layer in _keras.flat_layers(model)
        if isinstance(layer, Factorized)
    ]


def tied(layer, side, pairs):
    """Make vectors of W multiples of others: (number, of which, ratio)."""
    kernel = models.numpy(layer.kernel).copy()
    vectors = np.moveaxis(kernel, -2 if side == "input" else -1, 0)
    for number, other, ratio in pairs:
        vectors[number] = ratio * vectors[other]
    layer.kernel.assign(kernel)


def turned(vector, one_minus_cos, rng):
    """A unit vector at an angle to another one."""
    unit = vector / np.linalg.norm(vector)
    other = rng.normal(size=len(vector))
    other -= (other @ unit) * unit
    other /= np.linalg.norm(other)
    cos = 1 - one_minus_cos
    return cos * unit + np.sqrt(1 - cos**2) * other


def joined(fusion, array, axis):
    """A copy of `array` in which a `Fusion` has joined two columns."""
    result = array.copy()
    fusion.join(result, axis)
    return result
