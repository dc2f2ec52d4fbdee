"""A model with planted copies, and how like the original its answers are."""

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from tests import models

QUIET = {"verbose": False}


def planted():
    """Two hidden layers, of which 4 of 12 and 2 of 8 units are copies."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(12, activation="relu", name="first"),
            layers.Dense(8, activation="relu", name="second"),
            layers.Dense(3, name="last"),
        ]
    )
    models.randomized(model)
    first, second = kr.trace(model).prunable
    models.copy_units(first, [0, 0, 1, 2], [4, 5, 6, 7])
    models.copy_units(second, [0, 1], [2, 3])
    return model


class Likeness:
    """Minus the distance to what the original answers; counts its calls."""

    def __init__(self, model):
        self.data = models.random_inputs(model, batch=64)
        self.wanted = models.outputs(model, self.data)
        self.seen = []

    def __call__(self, model):
        self.seen.append([layer.output.shape[-1] for layer in model.layers])
        answers = models.outputs(model, self.data)
        return -float(np.abs(answers[0] - self.wanted[0]).mean())
