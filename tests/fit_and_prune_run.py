"""A training with cuts, for a process of its own that may be killed.

python -m tests.fit_and_prune_run CHECKPOINT RESULT
"""

import json
import sys

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from tests import models


def data(count=512, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 8)).astype("float32")
    weights = np.random.default_rng(9).normal(size=(8, 3))
    return x, np.argmax(x @ weights, axis=1)


def network(noise=False, optimizer=None, run_eagerly=models.EAGERLY):
    parts = [
        keras.Input((8,)),
        layers.Dense(24, activation="relu", name="one"),
        layers.Dropout(0.1, seed=4),
        layers.Dense(16, activation="relu", name="two"),
    ]
    if noise:
        parts.append(kr.NoiseOutputs(8, seed=1, name="noise"))
    model = keras.Sequential([*parts, layers.Dense(3, name="last")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizer or keras.optimizers.Adam(2e-2)
    options = {"metrics": ["accuracy"], "run_eagerly": run_eagerly}
    model.compile(optimizer, loss, **options)
    return model


def run(model, **options):
    options = {
        "prune": {"ratio": 0.2},
        "epochs": 6,
        "floor": 0.5,
        "batch_size": 128,
        "validation_data": data(256, seed=1),
        "verbose": 0,
        "start": 2,
    } | options
    return kr.fit_and_prune(model, *data(), **options)


def main(checkpoint, result):
    keras.utils.set_random_seed(0)
    options = {"checkpoint": checkpoint, "seed": 3, "floor": 0.4}
    found = run(network(noise=True), **options)
    history = found.history.history
    said = {
        **{name: history[name] for name in ("loss", "val_loss")},
        "epochs": found.history.epoch,
        "sizes": [[cut.before, cut.after] for cut in found.cuts],
        "value": found.value,
        "weights": [float(np.sum(w)) for w in found.model.get_weights()],
    }
    with open(result, "w") as file:
        json.dump(said, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
