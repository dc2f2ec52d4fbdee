"""What does `fit_and_prune` cost beside `fit`?

    python examples/benchmarks/fit_and_prune.py
    python examples/benchmarks/fit_and_prune.py --data FOLDER --dataset mnist

Trains LeNet-300-100 in turns, --repeats times: with `fit`; with
`fit_and_prune` that never cuts; and with one that keeps a checkpoint after
each epoch. A ratio is that of the median times of an epoch, without the first
one, in the same turn. Then it cuts after each epoch, and prints what choosing
and building took, and the first step after it, which is compiled anew.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import example_data
import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

BATCH = 128


class Clock(keras.callbacks.Callback):
    """When epochs end."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_epoch_end(self, epoch, logs=None):
        self.times.append(time.perf_counter())

    @property
    def epoch(self):
        """Seconds from the end of one to the end of the next, the median."""
        return float(np.median(np.diff(self.times)))


def network(shape, classes):
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(classes),
        ]
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def plain(model, data, held_out, epochs, clock):
    x, y = data
    options = {"validation_data": held_out, "callbacks": [clock], "verbose": 0}
    model.fit(x, y, BATCH, epochs, **options)


def driven(model, data, held_out, epochs, clock, checkpoint=None, prune=None):
    return kr.fit_and_prune(
        model,
        *data,
        prune=prune or (lambda model: None),
        floor=1.0 if prune is None else 0.0,
        patience=epochs,
        epochs=epochs,
        batch_size=BATCH,
        validation_data=held_out,
        callbacks=[clock],
        checkpoint=checkpoint,
        verbose=0,
    )


def kept(model, data, held_out, epochs, clock):
    with tempfile.TemporaryDirectory() as folder:
        driven(model, data, held_out, epochs, clock, Path(folder) / "run")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", help="folder with NAME.npz files")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    data, held_out = example_data.load(args.dataset, args.data)
    shape, classes = data[0].shape[1:], int(data[1].max()) + 1
    kinds = {
        "fit": plain,
        "fit_and_prune": driven,
        "with a checkpoint after each epoch": kept,
    }
    times = {name: [] for name in kinds}
    warnings.filterwarnings("ignore", message=".*never held the floor")
    for _ in range(args.repeats):
        for name, run in kinds.items():
            clock = Clock()
            run(network(shape, classes), data, held_out, args.epochs, clock)
            times[name].append(clock.epoch)
    base = np.array(times["fit"])
    rows = [
        (name, 1000 * float(np.median(t)), float(np.median(t / base)))
        for name, t in times.items()
    ]
    header = ("", "ms an epoch", "ratio")
    print(Table("Time of an epoch without cuts", header, rows))
    driven(
        network(shape, classes),
        data,
        held_out,
        args.epochs,
        Clock(),
        prune={"ratio": 0.2},
    ).render()


if __name__ == "__main__":
    main()
