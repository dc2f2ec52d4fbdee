"""On Correlation of Features Extracted by Deep Neural Networks.

Ayinde, Inanc and Zurada (2019): how many features of a layer are redundant, by
width, depth, activation and initialiser, and in VGG networks.

    python examples/papers/correlation.py --figure 1 --data FOLDER --seeds 1
    python examples/papers/correlation.py --figure 2 --data FOLDER --plot a.png

Figures and tables are numbered in the order in which the paper reports them:
"""

import drawing
import keras
import numpy as np
import vgg_networks
from experiments import DECAY, Paper, Run, Shown, Table, caption, fitted, spread
from keras import layers

import keras_redundancy as kr

TAUS = tuple(n / 10 for n in range(1, 10))
PRINTED_TAUS = (0.5, 0.6, 0.7)
ACTIVATIONS = ("sigmoid", "tanh", "relu", "elu", "selu")
INITIALIZERS = (
    *("normal", "uniform", "glorot_normal", "he_normal", "orthogonal"),
)
DEPTHS = (1, 2, 3, 4)
# Percent of redundant filters at tau 0.4, 0.5, 0.6, 0.7, and accuracy.
VGG_TAUS = (0.4, 0.5, 0.6, 0.7)
VGG_IN_PAPER = {
    11: (34.0, 24.1, 17.7, 12.8, 92.09),
    13: (37.8, 26.9, 19.1, 12.9, 93.65),
    16: (58.8, 52.6, 45.5, 37.2, 93.51),
    19: (72.4, 68.3, 64.5, 60.3, 93.24),
}

paper = Paper("correlation", __doc__)
paper.argument("--widths", type=int, nargs="+", help="of hidden layers")
paper.argument("--depths", type=int, nargs="+", help="hidden layers")
paper.argument("--scale", type=float, default=1.0, help="of a VGG's widths")
paper.argument("--decay", type=float, default=DECAY, help="of a VGG's weights")


def initializer_of(name):
    """N(0, 0.01) and U(-0.01, 0.01) are the paper's; others are Keras's."""
    if name == "normal":
        return keras.initializers.RandomNormal(0.0, 0.01)
    if name == "uniform":
        return keras.initializers.RandomUniform(-0.01, 0.01)
    return name


def build(data, units, depth, activation, initializer):
    def dense(units, activation=None):
        made = initializer_of(initializer)
        return layers.Dense(units, activation, kernel_initializer=made)

    hidden = (dense(units, activation) for _ in range(depth))
    return keras.Sequential(
        [
            keras.Input(data.shape),
            layers.Flatten(),
            *hidden,
            dense(data.classes),
        ]
    )


def redundant(model, taus):
    """n_r of each hidden layer, a list for each tau."""
    found = kr.redundancy(model, taus)
    return [[x.n_r for x in report.layers[:-1]] for report in found.reports]


def perceptron(data, units, depth, activation, initializer, epochs, seed):
    """Train a perceptron; its redundant features and test accuracy."""
    model = build(data, units, depth, activation, initializer)
    before = redundant(model, TAUS)
    history = fitted(model, data, epochs)
    return {
        "taus": TAUS,
        "n_r": redundant(model, TAUS),
        "n_r before training": before,
        "accuracy": history["val_accuracy"][-1],
    }


def mean_redundant(result, tau):
    """n_r at `tau`, averaged over the hidden layers."""
    return float(np.mean(result["n_r"][result["taus"].index(tau)]))


def perceptrons(run: Run, units, depth, activation, initializer):
    return run.seeds(
        perceptron,
        units=units,
        depth=depth,
        activation=activation,
        initializer=initializer,
        epochs=run.args.epochs,
    )


WIDTHS = (100, 200, 300, 500, 700, 1000)


@paper.figure(1, dataset="mnist", epochs=20, widths=WIDTHS, depths=DEPTHS)
def widths_and_depths(run):
    """average n_r against tau, by width, for 1 to 4 hidden layers"""
    args = run.args
    found = {
        (depth, units): perceptrons(run, units, depth, "relu", "normal")
        for depth in args.depths
        for units in args.widths
    }
    rows = []
    for (depth, units), results in found.items():
        shown = (
            spread([mean_redundant(x, tau) for x in results], 1) for tau in TAUS
        )
        accuracies = spread([x["accuracy"] for x in results])
        rows.append([str(depth), str(units), *shown, accuracies])
    header = ["layers", "units", *(f"{tau:g}" for tau in TAUS), "accuracy, %"]
    title = "Average n_r of the hidden layers at tau"
    table = Table(title, header, rows, caption(run, "ReLU"))

    def draw():
        figure, axes = drawing.panels(len(args.depths), columns=2)
        for panel, depth in zip(axes, args.depths, strict=True):
            for units in args.widths:
                values = [
                    [mean_redundant(x, tau) for tau in TAUS]
                    for x in found[depth, units]
                ]
                drawing.line(panel, TAUS, values, f"{units} units")
            title = f"{depth} hidden layer{'s' * (depth > 1)}"
            drawing.finish(panel, title=title, xlabel="tau", ylabel="n_r")
        return figure

    return Shown([table], draw)


def by_depth(run, title, varied, settings):
    """A `Shown` of n_r against depth; `settings`: {name: settings}."""
    depths = run.args.depths
    (units,) = run.args.widths
    found = {
        name: [perceptrons(run, units, depth, *of_it) for depth in depths]
        for name, of_it in settings.items()
    }
    rows = [
        [
            name,
            str(depth),
            *(
                spread([mean_redundant(x, tau) for x in results], 1)
                for tau in PRINTED_TAUS
            ),
            spread([x["accuracy"] for x in results]),
        ]
        for name, lists in found.items()
        for depth, results in zip(depths, lists, strict=True)
    ]
    header = [varied, "layers"]
    header += [f"n_r at {tau:g}" for tau in PRINTED_TAUS]
    header.append("accuracy, %")

    def draw():
        figure, axes = drawing.panels(len(PRINTED_TAUS), sharey=True)
        for panel, tau in zip(axes, PRINTED_TAUS, strict=True):
            for name, lists in found.items():
                values = [
                    [mean_redundant(x, tau) for x in results]
                    for results in lists
                ]
                drawing.line(panel, depths, np.transpose(values), name)
            title = f"tau = {tau:g}"
            drawing.finish(panel, title=title, xlabel="layers", legend=False)
            panel.set_xticks(depths)
        axes[0].set_ylabel("average n_r")
        named = axes[0].get_legend_handles_labels()
        figure.legend(*named, loc="outside right center", fontsize="small")
        return figure

    below = caption(run, f"{units} units")
    return Shown([Table(title, header, rows, below)], draw)


@paper.figure(2, dataset="mnist", epochs=20, widths=[1000], depths=DEPTHS)
def activations(run):
    """average n_r against depth for five activations, N(0, 0.01) weights"""
    settings = {name: (name, "normal") for name in ACTIVATIONS}
    return by_depth(run, "Average n_r by activation", "activation", settings)


@paper.figure(3, dataset="mnist", epochs=20, widths=[1000], depths=DEPTHS)
def initializers(run):
    """average n_r against depth for five initialisers, sigmoid"""
    settings = {name: ("sigmoid", name) for name in INITIALIZERS}
    return by_depth(run, "Average n_r by initialiser", "initialiser", settings)


def kept_perceptron(data, units, depth, activation, initializer, epochs, seed):
    """Train a perceptron and keep it."""
    model = build(data, units, depth, activation, initializer)
    history = fitted(model, data, epochs)
    return model, {"accuracy": history["val_accuracy"][-1]}


@paper.figure(4, dataset="mnist", epochs=20, widths=[1000], depths=DEPTHS)
def embeddings(run):
    """t-SNE of the last hidden layer's activations, one and four layers"""
    (units,) = run.args.widths
    depths = (1, 4)
    found = [
        run.one(
            kept_perceptron,
            units=units,
            depth=depth,
            activation="relu",
            initializer="normal",
            epochs=run.args.epochs,
            seed=0,
        )
        for depth in depths
    ]
    rows = [[str(d), x["accuracy"]] for d, x in zip(depths, found, strict=True)]
    header = ["layers", "accuracy, %"]
    title = "Networks of the t-SNE of 1,000 test images"
    table = Table(title, header, rows, caption(run, f"{units} units"))

    def draw():
        x, y = (part[:1000] for part in run.data.test)
        figure, axes = drawing.panels(2, width=5, height=4.5)
        for panel, depth, result in zip(axes, depths, found, strict=True):
            kr.plots.activations(result.model, x, y, axes=panel)
            panel.set_title(f"{depth} hidden layer{'s' * (depth > 1)}")
        return figure

    return Shown([table], draw)


def filter_shares(model):
    """Percent of redundant filters at each of `VGG_TAUS`, mean of layers."""
    found = []
    for report in kr.redundancy(model, VGG_TAUS).reports:
        filters = [x for x in report.layers if x.kind == "Conv2D"]
        found.append(100 * float(np.mean([x.n_r / x.n for x in filters])))
    return found


@paper.table(1, dataset="cifar10", epochs=200)
def vgg_shares(run):
    """average share of redundant filters of VGG-11 to VGG-19, CIFAR-10"""
    rows = []
    for depth, printed in VGG_IN_PAPER.items():
        found = run.seeds(
            vgg_networks.vgg,
            depth=depth,
            scale=run.args.scale,
            decay=run.args.decay,
            epochs=run.args.epochs,
        )
        shares = np.transpose([filter_shares(x.model) for x in found])
        rows.append(
            [
                f"VGG-{depth}",
                *map(spread, shares),
                spread([x["accuracy"] for x in found]),
            ]
        )
        rows.append(["the paper", *(f"{x:g}" for x in printed)])
    header = ["network", *(f"tau {tau:g}" for tau in VGG_TAUS), "accuracy, %"]
    below = vgg_networks.described(run)
    table = Table("Redundant filters, %", header, rows, below)
    return Shown([table])


if __name__ == "__main__":
    paper.main()
