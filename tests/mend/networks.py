"""Networks to distil, and data for them."""

import keras
from keras import layers, losses

from tests import models

# Small models learn at a greater rate than the default one.
QUICK = {"epochs": 15, "learning_rate": 5e-3, "batch_size": 32, "verbose": 0}


def classifier():
    return models.randomized(models.mlp())


def logits():
    inputs = keras.Input((12,))
    x = layers.Dense(16, activation="relu", name="hidden")(inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    model.compile(
        keras.optimizers.SGD(0.1),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def several():
    """Two inputs by name; probabilities and values by name."""
    a, b = keras.Input((6,), name="a"), keras.Input((8,), name="b")
    x = layers.Concatenate()([a, b])
    x = layers.Dense(20, activation="relu", name="hidden")(x)
    outputs = {
        "share": layers.Dense(1, activation="sigmoid")(x),
        "value": layers.Dense(4)(x),
    }
    return models.randomized(keras.Model({"a": a, "b": b}, outputs))


def convolutions():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(12, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return models.randomized(keras.Model(inputs, layers.Dense(3)(x)))


def noisy():
    inputs = x = keras.Input((20,))
    for units in (40, 30):
        x = layers.Dropout(0.5)(layers.Dense(units)(x))
        x = layers.GaussianNoise(1.0)(layers.ReLU()(x))
    return models.randomized(keras.Model(inputs, layers.Dense(5)(x)))


def ends_in(*ends, loss=None):
    inputs = x = keras.Input((12,))
    for layer in ends:
        x = layer(x)
    model = models.randomized(keras.Model(inputs, x))
    if loss:
        model.compile("sgd", loss)
    return model


class Numbered(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // 32

    def __getitem__(self, number):
        chosen = slice(32 * number, 32 * (number + 1))
        return self.x[chosen], self.y[chosen]
