"""NoiseOut: A Simple yet Effective Method to Prune Dense Layers.

Babaeizadeh, Smaragdis and Campbell (2016): random targets for additional
outputs correlate the units behind them, and of two correlated units one goes.

    python examples/papers/noiseout.py --figure 2 --seeds 100 --plot toy.png
    python examples/papers/noiseout.py --table 1 --data FOLDER --seeds 3
    python examples/papers/noiseout.py --table 1 --data FOLDER --max-drop 0.2

LeNet networks are cut after each epoch in which the accuracy on held-out
images is at least the floor: unit by unit, until it falls below, and then they
are trained on (algorithm 1). By default units go in steps that double as long
as the floor holds, and are halved where it does not: --one-by-one takes single
units. "package" is `kr.prune` with data in place of merging the most
correlated units, a hundredth of the parameters at a time.

Figure 3 has the paper's number; the others are numbered by this script:
"""

import drawing
import keras
import numpy as np
from experiments import Paper, Shown, Table, accuracy, caption, spread
from keras import layers
from lenet_networks import (
    NOISE_OUTPUTS,
    NOISES,
    cut_at_once,
    lenet,
    of_sizes,
    trained_lenet300,
)

import keras_redundancy as kr

SETTINGS = ("never cut", *NOISES, "package")
# How many times smaller the paper's networks are.
IN_PAPER = {
    "lenet300": {"none": "16.7", "binomial": "23.75"},
    "lenet5": {"gaussian": "44 (its best)"},
}
FLOORS = {"lenet300": 96.95, "lenet5": 99.05}
# Units that leave LeNet-300-100 as many parameters as the paper does.
PAPER_SIZES = {16.7: (20, 9), 23.75: (14, 9)}
# Of LeNet-300-100 before it is cut at once.
TEACHER_EPOCHS = 20

paper = Paper("noiseout", __doc__)
paper.argument("--distribution", default="gaussian", help="figures 2 and 3")
paper.argument("--rate", type=float, default=0.003, help="figure 2")
paper.argument("--weight", type=float, default=0.01, help="of noise (LeNet)")
paper.argument("--floor", type=float, help="percent; default: the paper's")
paper.argument(
    "--max-drop",
    type=float,
    help="in place of --floor, points below the best of the first --start "
    "epochs",
)
paper.argument("--start", type=int, default=1, help="epochs before a cut")
paper.argument("--patience", type=int, default=10)
paper.argument("--one-by-one", action="store_true")
paper.argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)


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
                found.append(float(abs(np.corrcoef(h.T)[0, 1])))
        self.found.append(found)


def linear(data, depth, noise, distribution, rate, epochs, runs):
    """Train networks of linear units to add two numbers, `runs` times.

    Args:
        noise: "none", "last" (noise outputs behind the last hidden layer) or
            "each".
    """
    x = np.random.default_rng(0).normal(size=(256, 2)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    inputs = h = keras.Input((2,))
    for number in range(1, depth + 1):
        h = layers.Dense(2)(h)
        if noise == "each" or (noise == "last" and number == depth):
            h = kr.NoiseOutputs(NOISE_OUTPUTS, distribution)(h)
    model = keras.Model(inputs, layers.Dense(1)(h))
    model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
    found, errors = [], []
    for seed in range(runs):
        keras.utils.set_random_seed(seed)
        model.set_weights(keras.models.clone_model(model).get_weights())
        watch = Correlations(x)
        model.fit(x, y, 16, epochs, verbose=0, callbacks=[watch])
        found.append(watch.found)
        errors.append(float(np.mean((model.predict(x, verbose=0) - y) ** 2)))
    return {"correlations": found, "errors": errors}


@paper.figure(2, dataset="digits", epochs=150)
def two_units(run):
    """|correlation| of two linear units, with and without noise outputs"""
    args = run.args
    found = {
        (name, noise): run.one(
            linear,
            depth=depth,
            noise=noise,
            distribution=args.distribution,
            rate=args.rate,
            epochs=args.epochs,
            runs=args.seeds,
        )
        for depth, name, noises in (
            (1, "2-2-1", ("none", "last")),
            (5, "2-2-2-2-2-2-1", ("none", "last", "each")),
        )
        for noise in noises
    }
    rows = []
    for (name, noise), result in found.items():
        last = np.median(np.array(result["correlations"])[:, -1], axis=0)
        by_layer = ", ".join(f"{x:.3f}" for x in last)
        error = float(np.median(result["errors"]))
        rows.append([name, noise, by_layer, f"{error:.4f}"])
    header = ["network", "noise behind", "|correlation| by layer", "error"]
    below = f"{args.epochs} epochs, medians of {args.seeds} runs"
    table = Table("Two linear units", header, rows, below)
    return Shown([table], lambda: _draw_two_units(found))


def _draw_two_units(found):
    names = list(dict.fromkeys(name for name, _ in found))
    figure, axes = drawing.panels(len(names), sharey=True)
    for panel, name in zip(axes, names, strict=True):
        for noise, label, color in (
            ("none", "no noise", "tab:gray"),
            ("last", "noise outputs behind the last", "tab:red"),
            ("each", "behind each hidden layer", "tab:blue"),
        ):
            if (name, noise) not in found:
                continue
            values = np.array(found[name, noise]["correlations"])
            values = values.transpose(1, 0, 2).reshape(values.shape[1], -1)
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
            epochs = np.arange(1, len(middle) + 1)
            panel.plot(epochs, middle, color=color, label=label)
            panel.fill_between(epochs, low, high, color=color, alpha=0.2)
        drawing.finish(panel, title=name, xlabel="epoch", ylim=(0, 1.02))
    axes[0].set_ylabel("|correlation| of hidden units")
    return figure


# --- discriminators ---------------------------------------------------------


def two_classes(count, seed=0):
    """Points in the plane in two interleaved half circles, shape (n, 2)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    angles = rng.uniform(0, np.pi, count)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x[labels == 1] = [1.0, 0.4] - x[labels == 1]
    x += rng.normal(0, 0.12, x.shape)
    return x.astype("float32"), labels


def discriminators(data, units, noise, epochs, seed):
    """Train a network of one hidden layer to tell two classes apart."""
    x, y = two_classes(512)
    parts = [keras.Input((2,)), layers.Dense(units, "tanh", name="hidden")]
    if noise != "none":
        parts.append(kr.NoiseOutputs(NOISE_OUTPUTS, noise, weight=0.01))
    model = keras.Sequential([*parts, layers.Dense(2)])
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit(x, y, 32, epochs, verbose=0)
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)
    cosines = np.abs(np.corrcoef(hidden.predict(x, verbose=0).T))
    pairs = cosines[np.triu_indices(units, 1)]
    small = kr.merge_correlated(kr.strip(model), x, threshold=0.9)
    places = np.linspace(-2, 3, 60, dtype="float32")
    grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    logits = model.predict(grid, verbose=0)
    kernel, bias = model.get_layer("hidden").get_weights()
    return {
        "accuracy": accuracy(model, (x, y)),
        "accuracy after": accuracy(small, (x, y)),
        "units after": small.get_layer("hidden").units,
        "correlation": float(pairs.mean()),
        "lines": np.vstack([kernel, bias]).T.tolist(),
        "places": places.tolist(),
        "margin": (logits[:, 1] - logits[:, 0]).reshape(60, 60).tolist(),
    }


@paper.figure(3, dataset="digits", epochs=200)
def decision_lines(run):
    """the lines that hidden units draw, with and without noise outputs"""
    units = 10
    found = {
        noise: run.seeds(
            discriminators, units=units, noise=noise, epochs=run.args.epochs
        )
        for noise in ("none", run.args.distribution)
    }
    names = ("correlation", "accuracy", "units after", "accuracy after")
    rows = [
        [noise, *(spread([x[name] for x in results]) for name in names)]
        for noise, results in found.items()
    ]
    header = ["noise", "mean |correlation|", "accuracy, %"]
    header += ["units above 0.9 merged", "accuracy then, %"]
    args = run.args
    below = f"{units} units, {args.epochs} epochs, {args.seeds} seeds"
    table = Table("Two half circles of points", header, rows, below)
    return Shown([table], lambda: _draw_lines(found))


def _draw_lines(found):
    x, y = two_classes(512)
    figure, axes = drawing.panels(len(found), sharey=True)
    for panel, (noise, results) in zip(axes, found.items(), strict=True):
        panel.scatter(*x.T, c=y, s=4, cmap="coolwarm", alpha=0.5)
        result = results[0]
        places = np.array(result["places"])
        panel.contour(places, places, result["margin"], [0], colors="black")
        for a, b, c in result["lines"]:
            # a x + b y + c = 0, drawn over the longer side.
            if abs(b) > abs(a):
                panel.plot(places, -(a * places + c) / b, "tab:green", lw=0.8)
            else:
                panel.plot(-(b * places + c) / a, places, "tab:green", lw=0.8)
        title = "no noise" if noise == "none" else f"{noise} noise outputs"
        panel.set(xlim=(-1.6, 2.6), ylim=(-1.2, 1.6), title=title)
    return figure


# --- LeNet ------------------------------------------------------------------


def floor_of(args, network):
    """Accuracy to hold, in percent; None if --max-drop decides."""
    if args.max_drop is not None:
        return None
    return FLOORS[network] if args.floor is None else args.floor


def lenets(run, network, by):
    """A `Result` for each seed."""
    args = run.args
    rule = {
        "floor": floor_of(args, network),
        "max_drop": args.max_drop,
        "start": args.start,
        "patience": args.patience,
        "one_by_one": args.one_by_one,
    }
    return run.seeds(
        lenet,
        network=network,
        by=by,
        weight=args.weight if by in NOISES[1:] else None,
        rule=rule if by != "never cut" else None,
        epochs=args.epochs,
    )


def compression(run, network):
    """A `Shown` of what is left by each kind of noise, and of the cuts."""
    args = run.args
    found = {by: lenets(run, network, by) for by in args.settings}
    rows = [
        [
            by,
            ", ".join("-".join(map(str, x["hidden"])) for x in results),
            spread([x["parameters"] for x in results], 0),
            spread([x["before"] / x["parameters"] for x in results], 1),
            IN_PAPER[network].get(by),
            spread([x["accuracy"] for x in results]),
            spread([x["epoch"] for x in results], 0),
        ]
        for by, results in found.items()
    ]
    header = ["noise, or cut by", "units left", "parameters"]
    header += ["times smaller", "the paper", "test accuracy, %", "epoch"]
    floor = f"floor {args.max_drop} points below the first epochs' best"
    if args.max_drop is None:
        floor = f"floor {floor_of(args, network):g} % on held-out images"

    def draw():
        figure, (axes,) = drawing.panels(1, width=6, height=4)
        for by, results in found.items():
            history = results[0]["history"]
            axes.plot(range(1, len(history) + 1), history, label=by)
        axes.set_yscale("log")
        drawing.finish(axes, xlabel="epoch", ylabel="parameters")
        return figure

    table = Table(network, header, rows, caption(run, floor))
    return Shown([table], draw)


@paper.table(
    1, picture=True, dataset="mnist", epochs=60, floor=FLOORS["lenet300"]
)
def lenet300_table(run):
    """LeNet-300-100 on MNIST: what is left at the paper's accuracy"""
    return compression(run, "lenet300")


@paper.table(
    2, picture=True, dataset="mnist", epochs=30, floor=FLOORS["lenet5"]
)
def lenet5_table(run):
    """LeNet-5 on MNIST: what is left at the paper's accuracy"""
    return compression(run, "lenet5")


@paper.table(3, dataset="mnist", epochs=60)
def at_once(run):
    """LeNet-300-100 cut at once as far as in the paper, and trained on"""
    epochs = run.args.epochs
    teachers = run.seeds(trained_lenet300, epochs=TEACHER_EPOCHS)
    found = {"before": teachers}
    for times, sizes in PAPER_SIZES.items():
        name = f"{times:g} times smaller"
        found[f"{name}, the paper's sizes, from scratch"] = run.seeds(
            of_sizes, sizes=sizes, epochs=epochs
        )
        for way in ("from scratch", "fitted", "distilled"):
            found[f"{name}, kr.prune, {way}"] = [
                run.one(
                    cut_at_once,
                    {"model": teacher.model},
                    share=1 / times,
                    way=way,
                    epochs=epochs,
                    seed=seed,
                )
                for seed, teacher in enumerate(teachers)
            ]
    rows = [
        [
            name,
            ", ".join("-".join(map(str, x["hidden"])) for x in results),
            spread([x["parameters"] for x in results], 0),
            spread([x["held-out"] for x in results]),
            spread([x["test"] for x in results]),
        ]
        for name, results in found.items()
    ]
    header = ["network", "units left", "parameters"]
    header += ["held-out images, %", "test, %"]
    return Shown([Table("LeNet-300-100", header, rows, caption(run))])


@paper.figure(4, dataset="mnist", epochs=30)
def last_neurons(run):
    """the units that stay in the dense layer of LeNet-5"""
    result = lenets(run, "lenet5", run.args.distribution)[0]
    model = result.model
    *_, dense, logits = (x for x in model.layers if hasattr(x, "kernel"))
    read = keras.Model(model.inputs, dense.output)
    images, labels = run.data.test
    values = read.predict(images, verbose=0)
    means = np.array(
        [values[labels == x].mean(axis=0) for x in range(run.data.classes)]
    )
    rows = [[f"unit {n + 1}", *column] for n, column in enumerate(means.T)]
    header = ["mean activation", *map(str, range(run.data.classes))]
    title = f"{len(rows)} units are left before the logits, by digit"
    below = caption(run, f"{result['accuracy']:.2f} % on test images, seed 0")

    def draw():
        figure, axes = drawing.panels(2)
        weights = logits.get_weights()[0]
        largest = abs(weights).max()
        for panel, matrix, name, least, colors in (
            (axes[0], means.T, "mean activation", 0, "viridis"),
            (axes[1], weights, "weight of the logit", -largest, "RdBu_r"),
        ):
            count, digits = matrix.shape
            image = panel.imshow(
                matrix,
                aspect="auto",
                cmap=colors,
                vmin=least,
                vmax=abs(matrix).max(),
                extent=(-0.5, digits - 0.5, count + 0.5, 0.5),
            )
            panel.set(title=name, xlabel="digit", ylabel="unit")
            for axis in (panel.xaxis, panel.yaxis):
                axis.get_major_locator().set_params(integer=True)
            figure.colorbar(image)
        return figure

    return Shown([Table(title, header, rows, below)], draw)


if __name__ == "__main__":
    paper.main()
