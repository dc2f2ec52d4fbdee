"""Train for low rank, by the method of Lee et al. (2021).

    python examples/low_rank.py --data FOLDER --epochs 20 --seeds 3
    python examples/low_rank.py --data FOLDER --epochs 6 --strengths 1 10 20 40

The first one trains an MLP 784-500-500-500-500-10 on Fashion-MNIST with Adam:
as it is, with Frobenius normalisation (FN), and with that, the regularizer RaRe
and fusions while it trains (DLRA). It prints the accuracy after the last epoch,
the best one, the epochs until the best one of the plain network of the same
seed is passed, the weights left, and the learned sizes, as the mean and
standard deviation over seeds. The second one does the last of these with
several strengths of RaRe, and prints (with --plot, draws) the weights gone.

The last twelfth of the training images is held out: with --held-out the
accuracy is that on it, which is what settings were chosen by; without it,
that on the test set. Results are kept in --out, and what is there is not made
again.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import example_data
import keras
import numpy as np
from example_tables import spread
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

HIDDEN = (500, 500, 500, 500)
BATCH = 128
KINDS = ("plain", "FN", "FN + DLRA")


def network(images, classes):
    return keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            *(layers.Dense(units, activation="relu") for units in HIDDEN),
            layers.Dense(classes),
        ]
    )


def normalized(model):
    """The same with the kernel of each layer Frobenius normalized."""
    return keras.Sequential(
        [
            keras.Input(model.input_shape[1:]),
            *map(kr.FrobeniusNormalization, model.layers),
        ]
    )


def train(kind, strength, seed, train_data, judge, args):
    """A dictionary of lists, a number for each epoch, and the sizes learned."""
    keras.utils.set_random_seed(seed)
    images, labels = train_data
    model = network(images, int(labels.max()) + 1)
    weights = sum(int(np.prod(x.kernel.shape)) for x in model.layers)
    callbacks = []
    if "DLRA" in kind:
        model = kr.factorize(kr.apply_rare(model, strength))
        callbacks = [kr.callbacks.DynamicLowRank(args.tau_cos, args.tau_euc)]
    if "FN" in kind:
        model = normalized(model)
    model.compile(
        keras.optimizers.Adam(args.rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        images,
        labels,
        batch_size=BATCH,
        epochs=args.epochs,
        validation_data=judge,
        callbacks=callbacks,
        verbose=0,
    ).history
    sizes = callbacks[0].sizes[-1] if callbacks else {}
    return {
        "accuracy": [100 * x for x in history["val_accuracy"]],
        "weights": history.get("factorized_weights", [weights] * args.epochs),
        "all weights": weights,
        "sizes": list(sizes.values()),
    }


class Results:
    """What training gave, kept in a file."""

    def __init__(self, args, train_data, judge):
        self.args, self.data = args, (train_data, judge)
        kind = "held-out" if args.held_out else "test"
        name = f"low-rank-{args.dataset}-{args.epochs}-{args.tau_cos:g}-{kind}"
        self.path = args.out / f"{name}.json"
        self.known = {}
        if self.path.exists():
            self.known = json.loads(self.path.read_text())

    def of(self, kind, strength=None):
        """A list of what `train` returns, one for each seed."""
        return [
            self._one(kind, strength, seed) for seed in range(self.args.seeds)
        ]

    def _one(self, kind, strength, seed):
        key = f"{kind} / {strength} / {seed}"
        if key not in self.known:
            print(f"training {key}", flush=True)
            found = train(kind, strength, seed, *self.data, self.args)
            self.known[key] = found
            self.path.write_text(json.dumps(self.known, indent=1))
        return self.known[key]


def share_gone(result):
    """Percent of the numbers of all kernels."""
    return 100 * (1 - result["weights"][-1] / result["all weights"])


def epochs_to_pass(result, plain):
    """The first epoch, from 1, better than the best of the plain network."""
    best = max(plain["accuracy"])
    better = [x > best for x in result["accuracy"]]
    return 1 + better.index(True) if any(better) else None


def show_kinds(results, strength):
    plain = results.of("plain")
    rows = []
    for kind in KINDS:
        found = results.of(kind, strength if "DLRA" in kind else None)
        passed = [
            epochs_to_pass(one, base)
            for one, base in zip(found, plain, strict=True)
        ]
        row = [
            kind,
            spread([x["accuracy"][-1] for x in found]),
            spread([max(x["accuracy"]) for x in found]),
            spread([1 + int(np.argmax(x["accuracy"])) for x in found], 1),
            ", ".join("never" if x is None else str(x) for x in passed),
            spread([share_gone(x) for x in found]),
        ]
        rows.append(row)
    header = [
        "network",
        "last epoch",
        "best epoch",
        "which",
        "passes plain's best",
        "weights gone, %",
    ]
    print(Table("Accuracy, %", header, rows))
    names = [f"layer {i + 1}" for i in range(len(HIDDEN) + 1)]
    sizes = [
        [f"seed {seed}", *(f"{m} x {n}" for m, n in result["sizes"])]
        for seed, result in enumerate(results.of("FN + DLRA", strength))
    ]
    print(Table("Sizes learned", ["", *names], sizes))


def show_strengths(results, strengths, path):
    header = ["strength", "weights gone, %", "accuracy, %"]
    rows, gone = [], []
    for strength in strengths:
        found = results.of("FN + DLRA", strength)
        gone.append([share_gone(x) for x in found])
        accuracies = [x["accuracy"][-1] for x in found]
        rows.append([f"{strength:g}", spread(gone[-1]), spread(accuracies)])
    print(Table("Strengths of RaRe", header, rows))
    if path:
        draw(strengths, np.array(gone), path)


def draw(strengths, gone, path):
    """Shape of `gone`: (strengths, seeds)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(
        strengths, gone.mean(axis=1), gone.std(axis=1), marker="o", capsize=3
    )
    axes.set_xlabel("strength of RaRe")
    axes.set_ylabel("weights gone, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data", help="folder with NAME.npz files")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--strength", type=float, default=20.0)
    parser.add_argument("--strengths", type=float, nargs="+")
    parser.add_argument("--tau-cos", type=float, default=1e-3)
    parser.add_argument("--tau-euc", type=float, default=0.1)
    parser.add_argument("--plot", type=Path, help="a picture to draw")
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (images, labels), test = example_data.load(args.dataset, args.data)
    held_out = len(images) // 12
    images, flat = images.reshape(len(images), -1), test[0]
    test = flat.reshape(len(flat), -1), test[1]
    train_data = images[:-held_out], labels[:-held_out]
    judge = (images[-held_out:], labels[-held_out:]) if args.held_out else test
    results = Results(args, train_data, judge)
    if args.strengths:
        show_strengths(results, args.strengths, args.plot)
    else:
        show_kinds(results, args.strength)


if __name__ == "__main__":
    main()
