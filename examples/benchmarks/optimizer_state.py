"""What is it worth to go on with the optimizer's state after a cut?

    python examples/benchmarks/optimizer_state.py
    python examples/benchmarks/optimizer_state.py --data FOLDER --dataset mnist

Trains an MLP and a small convolutional network with Adam, takes half of all
units away in the middle, and trains 50 steps on: with the state of the
optimizer carried over (`optimizer=True`) and with a fresh one, on the same
batches. Prints the mean training loss of these steps, in the median of the
runs, and in how many the state was worth something.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import example_data
import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

BATCH, STEPS = 64, 50
CUTS = {
    "L1, merge": {},
    "L1, drop": {"absorb": "drop"},
    "greedy, least squares": {"rounds": 0},
}


def mlp(shape, classes):
    return [
        keras.Input(shape),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(64, activation="relu"),
        layers.Dense(classes),
    ]


def convolutions(shape, classes):
    return [
        keras.Input(shape),
        layers.Conv2D(16, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(classes),
    ]


def losses(model, batches):
    """The mean loss of some training steps, each before it is taken."""
    return float(np.mean([model.train_on_batch(*b) for b in batches]))


def one_run(build, cut, seed, data, epochs):
    """Mean losses with the state carried over, and with a fresh one."""
    x, y = data
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(build(x.shape[1:], int(y.max()) + 1))
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit(x, y, BATCH, epochs, verbose=0)
    options = {"ratio": 0.5, **cut}
    if "rounds" in cut:
        options["data"] = x[:2000]
    order = np.random.default_rng(seed).permutation(len(x))
    order = np.resize(order, STEPS * BATCH).reshape(STEPS, BATCH)
    found = []
    for optimizer in (True, False):
        small = kr.prune(model, optimizer=optimizer, **options)
        found.append(losses(small, [(x[i], y[i]) for i in order]))
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", help="folder with NAME.npz files")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    data, _ = example_data.load(args.dataset, args.data)
    rows = []
    for build in (mlp, convolutions):
        for name, cut in CUTS.items():
            found = np.array(
                [
                    one_run(build, cut, seed, data, args.epochs)
                    for seed in range(args.runs)
                ]
            )
            carried, fresh = np.median(found, axis=0)
            better = int((found[:, 0] < found[:, 1]).sum())
            ratio = float(np.median(found[:, 0] / found[:, 1]))
            row = (build.__name__, name, carried, fresh, ratio)
            rows.append((*row, f"{better} of {args.runs}"))
            print(*rows[-1], sep=" | ", flush=True)
    header = ("network", "cut", "carried over", "fresh", "ratio", "better in")
    title = f"Mean loss of {STEPS} steps after a cut, median of runs"
    print(Table(title, header, rows))


if __name__ == "__main__":
    main()
