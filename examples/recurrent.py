"""Recurrent networks: how many answers stay the same after a cut.

    python examples/recurrent.py
    python examples/recurrent.py --networks lstm gru --seeds 3 --out FOLDER

Trains three networks on the sources of Python's standard library, so nothing
is downloaded: an LSTM and a GRU that say from which module 48 characters are,
and a model with two LSTMs that says at each step which character comes next.
Then it cuts half and 70 % of the multiply-adds, in five ways:

    l1          units with small weights are dropped (Li et al., 2017)
    merge       similar units are merged, without data
    data        what stays is chosen with data, and consumers are refitted
    mended      the same, and kernels and recurrent kernels are fitted anew
    distilled   the same, and then all weights are trained to answer alike

The data are 1,024 pieces of text without labels. The table shows on which
share of other pieces the smaller network gives the answer of the original:
the first 80 % of each file are trained on, the rest is tested on. Trained
networks are kept in --out, and those that are there are not trained again.
"""

import argparse
import os
import sysconfig
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from example_tables import spread
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

MODULES = (
    *("argparse", "doctest", "inspect", "pickle", "tarfile", "turtle"),
    *("typing", "pdb"),
)
LETTERS = 97  # Of ASCII what can be printed, the new line, and all others.
STEPS = 48
CUTS = (0.5, 0.3)
METHODS = {
    "l1": {"select": "l1", "absorb": "drop"},
    "merge": {"select": "clusters"},
    "data": {"mend": kr.Mend(rounds=0)},
    "mended": {},
    "distilled": {"mend": kr.Distill(epochs=16)},
}


# --- text -------------------------------------------------------------------


def texts():
    """For each module its letters as integers, shape (letters,)."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = []
    for name in MODULES:
        text = (folder / f"{name}.py").read_text("utf-8")
        codes = np.array([ord(letter) for letter in text]) - 31
        codes[codes == ord("\n") - 31] = 0
        found.append(np.where((codes < 0) | (codes >= 96), 96, codes))
    return found


def pieces(count, rng, test=False):
    """Random pieces of text, and the numbers of the modules they are from."""
    label = rng.integers(len(MODULES), size=count)
    known, x = texts(), np.empty((count, STEPS + 1), "int32")
    for row, number in enumerate(label):
        text = known[number]
        border = int(0.8 * len(text))
        text = text[border:] if test else text[:border]
        start = rng.integers(len(text) - STEPS)
        x[row] = text[start : start + STEPS + 1]
    return x, label


# --- networks ---------------------------------------------------------------


def network(name, units):
    x = inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(LETTERS, 32)(x)
    if name == "letters":
        for _ in range(2):
            x = layers.LSTM(units, return_sequences=True)(x)
        outputs = layers.Dense(LETTERS, activation="softmax")(x)
    else:
        x = {"lstm": layers.LSTM, "gru": layers.GRU}[name](units)(x)
        outputs = layers.Dense(len(MODULES), activation="softmax")(x)
    return keras.Model(inputs, outputs, name=name)


def trained(name, seed, args):
    """A trained network: from `--out`, or made and kept there."""
    path = Path(args.out) / f"{name}_{args.units}_{args.epochs}_{seed}.keras"
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(seed)
    model = network(name, args.units)
    x, label = pieces(args.samples, np.random.default_rng(seed))
    target = x[:, 1:] if name == "letters" else label
    steps = args.epochs * -(-args.samples // 64)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    optimizer = keras.optimizers.Adam(rate, clipnorm=1.0)
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(x[:, :-1], target, 64, args.epochs, verbose=args.verbose)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def answers(model, x):
    return model.predict(x, batch_size=256, verbose=0).argmax(axis=-1)


def results(name, seed, args):
    """The accuracy, and {(method, share left): agreement}, in percent."""
    model = trained(name, seed, args)
    rng = np.random.default_rng(1000 + seed)
    data = pieces(args.data, rng)[0][:, :-1]
    test, label = pieces(args.test, rng, test=True)
    target = test[:, 1:] if name == "letters" else label
    before = answers(model, test[:, :-1])
    found = {}
    for share in CUTS:
        for method in args.methods:
            options = METHODS[method]
            if method not in ("l1", "merge"):
                options = {**options, "data": data}
            small = kr.prune(model, target={"flops": share}, **options)
            after = answers(small, test[:, :-1])
            found[method, share] = 100 * (before == after).mean()
            print(f"{name} {seed} {method} {share}: {found[method, share]:.1f}")
    return 100 * (before == target).mean(), found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = ("lstm", "gru", "letters")
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=tuple(METHODS)
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16000)
    parser.add_argument("--data", type=int, default=1024)
    parser.add_argument("--test", type=int, default=2048)
    parser.add_argument("--out", default="recurrent_networks")
    parser.add_argument("--verbose", type=int, default=2)
    args = parser.parse_args()
    rows = []
    for name in args.networks:
        runs = [results(name, seed, args) for seed in range(args.seeds)]
        accuracies, found = zip(*runs, strict=True)
        for share in CUTS:
            cells = [
                spread([run[method, share] for run in found], 1)
                for method in args.methods
            ]
            cut = f"{1 - share:.0%}"
            rows.append([name, spread(accuracies, 1), cut, *cells])
    header = ("network", "accuracy, %", "cut", *args.methods)
    title = "Answers that stay the same, % of the original's"
    print(f"\n{Table(title, header, rows)}")


if __name__ == "__main__":
    main()
