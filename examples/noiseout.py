"""NoiseOut: prune correlated units while training, with noise to correlate.

    python examples/noiseout.py toy --runs 100 --plot noiseout.png
    python examples/noiseout.py lenet300 --data FOLDER --seeds 3
    python examples/noiseout.py lenet5 --data FOLDER --seeds 3

The first one trains networks of linear units, 2-2-1 and 2-2-2-2-2-2-1, to add
two numbers: without noise, with 512 noise outputs behind the last hidden layer
as in the paper, and behind each. It prints (with --plot, draws) the correlation
of the two units of each hidden layer, in the median of the runs.

The others train LeNet-300-100 or LeNet-5 (convolutions of 20 and 50 filters,
500 units) on MNIST, and cut while they train: after --start epochs, a tenth of
all units after each epoch in which the accuracy on held-out images is what the
network reached in these epochs. "none" and the three kinds of noise merge the
most correlated units; "package", without noise, takes a tenth of the parameters
by `kr.prune`, greedily and with least squares. (Other shares by --share.) It
prints what is left at the last cut that held, and the accuracy on the test set,
beside the paper's numbers and a network that is trained for --epochs and never
cut.

The last 5,000 images of the training set are held out; they alone say when to
cut. Results are kept in --out, and what is there is not made again.
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

NOISE_OUTPUTS = 512
NOISES = ("none", "gaussian", "constant", "binomial")
SAMPLES = 2000
# Parameters left over parameters before, of the paper.
PAPER = {
    "lenet300": {"none": "16.7", "binomial": "23.75"},
    "lenet5": {"best": "44"},
}


# --- two units --------------------------------------------------------------


class Correlations(keras.callbacks.Callback):
    """|Correlation| of the two units of each layer, after each epoch."""

    def __init__(self, x):
        super().__init__()
        self.x, self.found = x, []

    def on_epoch_end(self, epoch, logs=None):
        h, found = self.x, []
        for layer in self.model.layers:
            if isinstance(layer, layers.Dense) and layer.units == 2:
                kernel, bias = layer.get_weights()
                h = h @ kernel + bias
                found.append(abs(np.corrcoef(h.T)[0, 1]))
        self.found.append(found)


def toy(depth, noise, args):
    """|Correlation|, shape (runs, epochs, hidden layers), and squared error."""
    x = np.random.default_rng(0).normal(size=(256, 2)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    inputs = h = keras.Input((2,))
    for number in range(1, depth + 1):
        h = layers.Dense(2)(h)
        if noise == "each" or (noise == "last" and number == depth):
            h = kr.NoiseOutputs(NOISE_OUTPUTS, args.distribution)(h)
    model = keras.Model(inputs, layers.Dense(1)(h))
    model.compile(keras.optimizers.SGD(args.rate), "mse")
    found, errors = [], []
    for seed in range(args.runs):
        keras.utils.set_random_seed(seed)
        model.set_weights(keras.models.clone_model(model).get_weights())
        watch = Correlations(x)
        epochs = args.epochs or 150
        model.fit(x, y, 16, epochs, verbose=0, callbacks=[watch])
        found.append(watch.found)
        error = model.predict(x, verbose=0) - y
        errors.append(float(np.mean(error**2)))
    return np.array(found), np.array(errors)


def show_toy(args):
    rows, curves = [], {}
    for depth, name in ((1, "2-2-1"), (5, "2-2-2-2-2-2-1")):
        for noise in ("none", "last", "each")[: 2 if depth == 1 else 3]:
            found, errors = toy(depth, noise, args)
            curves[name, noise] = found
            last = np.median(found[:, -1], axis=0)
            rows.append(
                [
                    name,
                    noise,
                    ", ".join(f"{x:.3f}" for x in last),
                    f"{np.median(errors):.4f}",
                ]
            )
            print(*rows[-1], sep=" | ", flush=True)
    header = [
        "network",
        "noise behind layer",
        "|correlation| by layer",
        "squared error",
    ]
    title = f"Median of {args.runs} runs"
    print(Table(title, header, rows))
    if args.plot:
        draw(curves, args.plot)


def draw(curves, path):
    """`curves`: {(network, noise): array (runs, epochs, layers)}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    names = list(dict.fromkeys(name for name, _ in curves))
    for axes, name in zip(
        figure.subplots(1, len(names), sharey=True), names, strict=True
    ):
        for noise, label, color in (
            ("none", "no noise", "tab:gray"),
            ("last", "noise outputs behind the last", "tab:red"),
            ("each", "behind each hidden layer", "tab:blue"),
        ):
            if (name, noise) not in curves:
                continue
            found = curves[name, noise]
            found = found.transpose(1, 0, 2).reshape(found.shape[1], -1)
            low, middle, high = np.quantile(found, (0.25, 0.5, 0.75), axis=1)
            epochs = np.arange(1, len(middle) + 1)
            axes.plot(epochs, middle, color=color, label=label)
            axes.fill_between(epochs, low, high, color=color, alpha=0.2)
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.axes[0].set_ylabel("|correlation| of hidden units")
    figure.axes[0].set_ylim(0, 1.02)
    figure.savefig(path, dpi=120)


# --- LeNet ------------------------------------------------------------------


def lenet300(shape, classes, noise, weight):
    return _network(
        [
            keras.Input(shape),
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
        ],
        classes,
        noise,
        weight,
    )


def lenet5(shape, classes, noise, weight):
    padding = "valid" if shape[0] > 20 else "same"
    options = {"padding": padding, "activation": "relu"}
    return _network(
        [
            keras.Input(shape),
            layers.Conv2D(20, 5, **options),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, **options),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, activation="relu"),
        ],
        classes,
        noise,
        weight,
    )


def _network(parts, classes, noise, weight):
    if noise != "none":
        parts.append(kr.NoiseOutputs(NOISE_OUTPUTS, noise, weight=weight))
    model = keras.Sequential([*parts, layers.Dense(classes)], name="lenet")
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


NETWORKS = {"lenet300": lenet300, "lenet5": lenet5}


def hidden(model):
    """How many units and filters each hidden layer has."""
    *inner, _ = (x for x in model.layers if hasattr(x, "kernel"))
    return [x.kernel.shape[-1] for x in inner if x.name != "noise_outputs"]


def cutter(cuts, share, images):
    """A function that takes a share of all units, or parameters, away."""

    def correlated(model):
        hidden_units = sum(space.size for space in kr.trace(model).prunable)
        count = max(1, int(share * hidden_units))
        return kr.merge_correlated(model, images, count=count, optimizer=True)

    def package(model):
        # What a round would fit is about to be trained anyway.
        options = {"target": {"params": 1 - share}, "rounds": 0}
        return kr.prune(model, data=images, optimizer=True, **options)

    return package if cuts == "package" else correlated


def train(name, setting, seed, data, args):
    """What one training and its cuts came to, a dictionary."""
    (x, y), held_out, test = data
    keras.utils.set_random_seed(seed)
    noise = setting if setting in NOISES else "none"
    classes = int(y.max()) + 1
    shape = x.shape[1:]
    model = NETWORKS[name](shape, classes, noise, args.weight)
    before = kr.strip(model).count_params()
    if setting == "never cut":
        model.fit(x, y, 128, args.epochs or 60, verbose=0)
        small, epochs, history = model, args.epochs or 60, None
    else:
        found = kr.fit_and_prune(
            model,
            x,
            y,
            prune=cutter(setting, args.share, x[:SAMPLES]),
            epochs=args.epochs or 60,
            max_drop=args.max_drop,
            start=args.start,
            patience=args.patience,
            validation_data=held_out,
            batch_size=128,
            verbose=0,
        )
        small, epochs = found.model, found.epoch
        history = {
            "parameters": found.history.history["parameters"],
            "accuracy": found.history.history["val_accuracy"],
        }
    _, accuracy = small.evaluate(*test, verbose=0)
    return {
        "hidden": hidden(kr.strip(small)),
        "before": before,
        "parameters": kr.strip(small).count_params(),
        "accuracy": 100 * accuracy,
        "epoch": epochs,
        "history": history,
    }


def show_lenet(args):
    (x, y), test = example_data.load(args.dataset, args.data)
    held_out = min(5000, len(x) // 6)
    data = (
        (x[:-held_out], y[:-held_out]),
        (x[-held_out:], y[-held_out:]),
        test,
    )
    numbers = (args.epochs or 60, args.start, args.share, args.max_drop)
    name = "-".join(["noiseout", args.network, *(f"{x:g}" for x in numbers)])
    path, known = args.out / f"{name}.json", {}
    if path.exists():
        known = json.loads(path.read_text())
    rows = []
    for setting in args.settings:
        found = []
        for seed in range(args.seeds):
            key = f"{setting} / {seed}"
            if setting in NOISES[1:]:
                key += f" / {args.weight:g}"
            if key not in known:
                print(f"training {key}", flush=True)
                known[key] = train(args.network, setting, seed, data, args)
                path.write_text(json.dumps(known, indent=1))
            found.append(known[key])
        row = [
            setting,
            ", ".join("-".join(map(str, x["hidden"])) for x in found),
            spread([x["parameters"] for x in found], 0),
            spread([x["before"] / x["parameters"] for x in found], 1),
            PAPER[args.network].get(setting, ""),
            spread([x["accuracy"] for x in found]),
            spread([x["epoch"] for x in found], 0),
        ]
        rows.append(row)
        print(*row, sep=" | ", flush=True)
    header = [
        "noise or cuts",
        "units left",
        "parameters",
        "times smaller",
        "paper",
        "test accuracy, %",
        "epoch",
    ]
    title = f"{args.network}: cut while trained on {args.dataset}"
    print(Table(title, header, rows))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("network", choices=["toy", *NETWORKS])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data", help="folder with NAME.npz files")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="150 for toy, else 60")
    parser.add_argument("--start", type=int, default=10)
    parser.add_argument("--patience", type=int, default=10)
    parser.add_argument("--max-drop", type=float, default=0.002)
    parser.add_argument("--share", type=float, default=0.1, help="in each cut")
    parser.add_argument("--weight", type=float, default=0.01, help="of noise")
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=[*NOISES, "package", "never cut"],
        default=["never cut", *NOISES, "package"],
    )
    parser.add_argument("--runs", type=int, default=100, help="of toy")
    parser.add_argument("--distribution", default="gaussian", help="of toy")
    parser.add_argument("--rate", type=float, default=0.003, help="of toy")
    parser.add_argument("--plot", type=Path, help="a picture of toy to draw")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    show_toy(args) if args.network == "toy" else show_lenet(args)


if __name__ == "__main__":
    main()
