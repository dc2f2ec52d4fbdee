"""Reducing Duplicate Filters in Deep Neural Networks.

RoyChowdhury, Sharma and Learned-Miller (2017): perceptrons of 100, 500 and
1,000 units on CIFAR-10 and a convolutional network learn the same filter more
than once. What is measured is their first hidden layer.

    python examples/papers/duplicate_filters.py --figure 3 --data FOLDER
    python examples/papers/duplicate_filters.py --table 1 --data FOLDER

Figures and tables are numbered by this script, not as in the paper:
"""

import functools

import drawing
import keras
import numpy as np
from duplicate_networks import convolutional, perceptron, watched
from experiments import Paper, Shown, Table, accuracy, caption, spread
from scipy import stats

import keras_redundancy as kr
from keras_redundancy.numbers.clustering import cluster_filters
from keras_redundancy.numbers.similarity import cosine_similarity

WIDTHS = (100, 500, 1000)
TAUS = tuple(n / 20 for n in range(6, 20))
GROUP_TAUS = (0.95, 0.9, 0.8)
DROPOUTS = (0.0, 0.2, 0.5, 0.8)
DECAYS = (0.001, 0.01, 0.018)
# Components over units at tau 0.9, without dropout.
COMPONENTS_IN_PAPER = {100: "91/100", 500: "277/500", 1000: "356/1000"}
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
METHODS = {
    "duplicates merged": {
        "select": kr.Clusters(linkage="single", keep="mean"),
        "absorb": "merge",
    },
    "L1 norm, dropped": {"select": "l1", "absorb": "drop"},
}

paper = Paper("duplicate_filters", __doc__)
paper.argument("--widths", type=int, nargs="+", help="of the first layer")
paper.argument("--filters", type=int, default=64, help="of the CNN")
paper.argument("--decay", type=float, default=0.001, help="weight decay")
paper.argument("--tau", type=float, default=0.9)
OF_CIFAR = {"dataset": "cifar10", "epochs": 60, "widths": WIDTHS}


def perceptrons(run, units, dropout=0.0, decay=None):
    """A `Result` for each seed."""
    decay = run.args.decay if decay is None else decay
    return run.seeds(
        perceptron,
        units=units,
        dropout=dropout,
        decay=decay,
        epochs=run.args.epochs,
    )


def first_layer(model, tau=0.9, **options):
    """The report of the first layer: duplicates are connected components."""
    report = kr.analyze(model, tau, linkage="single", **options)
    return next(x for x in report.layers if x.layer == "first")


def of_widths(run):
    """{units: the networks of all seeds}."""
    return {
        units: [x.model for x in perceptrons(run, units)]
        for units in run.args.widths
    }


def cosine_kurtosis(filters):
    """Of the cosines of all pairs of units: 3 for a normal distribution."""
    pairs = np.triu_indices(filters.shape[1], 1)
    return stats.kurtosis(cosine_similarity(filters)[pairs], fisher=False)


def norm_spread(filters, clusters=None):
    """Standard deviation of the filters' norms over their mean.

    With an integer for each unit, deviations are those from the mean norm of
    the unit's own cluster, and units alone in their cluster are left out.
    """
    norms = np.linalg.norm(filters, axis=0)
    labels = np.zeros(len(norms), int) if clusters is None else clusters
    sizes = np.bincount(labels)
    means = np.bincount(labels, norms) / np.maximum(sizes, 1)
    with_others = sizes[labels] > 1
    if not with_others.any():
        return 0.0
    deviations = (norms - means[labels])[with_others]
    return np.sqrt(np.mean(deviations**2)) / np.mean(norms[with_others])


def by_width(found, plot, **options):
    """A panel for each of `of_widths`: the first layer of the first network."""
    figure, axes = drawing.panels(len(found))
    for panel, (units, models) in zip(axes, found.items(), strict=True):
        plot(kr.analyze(models[0]), ["first"], axes=panel)
        panel.set(title=f"{units} units", **options)
    return figure


# --- figures ----------------------------------------------------------------


@paper.figure(1, **OF_CIFAR)
def cosines(run):
    """distribution of cosines, kurtosis and norms by width"""
    columns = {
        "kurtosis": lambda x: cosine_kurtosis(x.filters),
        "mean norm": lambda x: np.linalg.norm(x.filters, axis=0).mean(),
        "spread of norms": lambda x: norm_spread(x.filters),
    }
    found = of_widths(run)
    rows = []
    for units, models in found.items():
        reports = [first_layer(model, columns=columns) for model in models]
        own = ([x.own[name] for x in reports] for name in columns)
        largest = [x.max_similarity for x in reports]
        rows.append([str(units), *map(spread, own), spread(largest)])
    header = ["units", *columns, "largest cosine"]
    title = "Cosines and norms of the first layer"
    below = caption(run)

    histograms = kr.plots.similarity_histograms
    draw = functools.partial(by_width, found, histograms, yscale="log")
    return Shown([Table(title, header, rows, below)], draw)


@paper.figure(2, **{**OF_CIFAR, "widths": [500]})
def groups(run):
    """groups of duplicate filters at tau 0.95, 0.9 and 0.8, as pictures"""
    (units,) = run.args.widths
    model = perceptrons(run, units)[0].model
    _, filters = kr.analyze(model).by_title["first"]
    rows = []
    for tau in GROUP_TAUS:
        labels = cluster_filters(filters, tau, "single")
        sizes = np.bincount(labels)
        rows.append([f"{tau:g}", int((sizes > 1).sum()), int(sizes.max())])
    header = ["tau", "groups of several units", "units of the largest"]
    title = "Groups of the first layer"
    below = caption(run, f"{units} units")

    def draw():
        figure, axes = drawing.panels(len(GROUP_TAUS), width=5, height=5)
        for panel, tau in zip(axes, GROUP_TAUS, strict=True):
            kr.plots.filters_by_cluster(
                model,
                "first",
                tau,
                linkage="single",
                shape=run.data.shape,
                clusters=8,
                units=8,
                axes=panel,
            )
        return figure

    return Shown([Table(title, header, rows, below)], draw)


@paper.figure(3, **OF_CIFAR)
def shares(run):
    """share of duplicate filters against tau, by width"""
    found = {}
    for units, models in of_widths(run).items():
        found[units] = []
        for model in models:
            reports = kr.redundancy(model, TAUS, linkage="single").reports
            layers_found = (x.by_title["first"][0] for x in reports)
            found[units].append([100 * x.n_r / x.n for x in layers_found])
    rows = [
        [str(units), *(spread(x, 1) for x in np.transpose(values))]
        for units, values in found.items()
    ]
    header = ["units", *(f"{tau:g}" for tau in TAUS)]
    title = "Duplicates in the first layer at tau, %"
    below = caption(run)

    def draw():
        figure, (axes,) = drawing.panels(1, width=6, height=4)
        for units, values in found.items():
            drawing.line(axes, TAUS, values, f"{units} units")
        drawing.finish(axes, xlabel="tau", ylabel="duplicates, %")
        return figure

    return Shown([Table(title, header, rows, below)], draw)


@paper.figure(4, **OF_CIFAR)
def singular_values(run):
    """singular values of the first layer, with the 99 % mark"""
    found = of_widths(run)
    rows = []
    for units, models in found.items():
        reports = [first_layer(model) for model in models]
        held = [x.energy_rank for x in reports]
        shares = [100 * x.energy_rank / units for x in reports]
        effective = [x.effective_rank for x in reports]
        rows.append(
            [str(units), spread(held, 0), spread(shares, 1), spread(effective)]
        )
    header = ["units", "99 % rank", "of the units, %", "effective rank"]
    title = "Rank of the first layer"
    below = caption(run)

    draw = functools.partial(by_width, found, kr.plots.singular_values)
    return Shown([Table(title, header, rows, below)], draw)


@paper.figure(5, **OF_CIFAR)
def svcca(run):
    """SVCCA of the first layers of the widths, a matrix"""
    found = of_widths(run)
    samples = run.data.held_out[0]
    hidden = [
        keras.Model(
            models[0].inputs, models[0].get_layer("first").output
        ).predict(samples, verbose=0)
        for models in found.values()
    ]
    matrix = [[float(kr.svcca(A, B).mean()) for B in hidden] for A in hidden]
    names = [f"{units} units" for units in found]
    rows = [[name, *row] for name, row in zip(names, matrix, strict=True)]
    title = "Mean SVCCA correlation of first layers"
    below = caption(run)

    def draw():
        figure, (axes,) = drawing.panels(1, width=4.5, height=4)
        image = axes.imshow(matrix, vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        figure.colorbar(image, label="mean correlation")
        return figure

    return Shown([Table(title, ["", *names], rows, below)], draw)


@paper.figure(6, **{**OF_CIFAR, "widths": [500]})
def over_training(run):
    """similarity matrices of the first layer over training"""
    (units,) = run.args.widths
    epochs, decay = run.args.epochs, run.args.decay
    found = run.one(watched, units=units, decay=decay, epochs=epochs, seed=0)
    rows = [
        [int(epoch), *(v[int(epoch) - 1] for v in found["measures"].values())]
        for epoch in found["matrices"]
    ]
    header = ["after epoch", "n_r at 0.9", "mean cosine", "largest cosine"]
    title = "First layer over training"
    below = caption(run)

    def draw():
        figure, axes = drawing.panels(len(found["matrices"]), width=3.2)
        for panel, (epoch, matrix) in zip(
            axes, found["matrices"].items(), strict=True
        ):
            panel.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
            panel.set(title=f"after epoch {epoch}", xticks=[], yticks=[])
        return figure

    return Shown([Table(title, header, rows, below)], draw)


@paper.figure(7, **{**OF_CIFAR, "widths": [500]})
def norms(run):
    """norms of the filters within groups of duplicates"""
    (units,) = run.args.widths
    tau = run.args.tau
    report = kr.analyze(perceptrons(run, units)[0].model, tau, linkage="single")
    _, filters = report.by_title["first"]
    labels = cluster_filters(filters, tau, "single")
    with_others = np.bincount(labels)[labels] > 1
    row = [
        f"{tau:g}",
        int(with_others.sum()),
        norm_spread(filters),
        norm_spread(filters, labels),
    ]
    header = ["tau", "units with duplicates", "spread of all", "within groups"]
    title = "Standard deviation of norms over their mean"
    below = caption(run, f"{units} units", "seed 0")

    def draw():
        figure, (axes,) = drawing.panels(1, width=6, height=4)
        kr.plots.norms_by_cluster(report, "first", axes=axes)
        return figure

    return Shown([Table(title, header, [row], below)], draw)


def against_reduction(run, results, title):
    """A `Shown` of accuracy against the share of multiply-adds left."""

    def score(model):
        return accuracy(model, run.data.test)

    found = [
        kr.compare(x.model, score, METHODS, shares=SHARES, verbose=False)
        for x in results
    ]
    scores = {
        name: [[trial.score for trial in x.trials[name]] for x in found]
        for name in METHODS
    }
    rows = [
        [name, *(spread(x, 1) for x in np.transpose(values))]
        for name, values in scores.items()
    ]
    header = ["accuracy, %", *(f"{1 - share:.0%} cut" for share in SHARES)]
    uncut = spread([x.base for x in found])
    title = f"{title}, {uncut} % uncut"
    below = caption(run, f"{uncut} % uncut")

    def draw():
        figure, (axes,) = drawing.panels(1, width=6, height=4)
        for name, values in scores.items():
            cuts = [100 * (1 - share) for share in SHARES]
            drawing.line(axes, cuts, values, name)
        label = "multiply-adds cut, %"
        drawing.finish(axes, xlabel=label, ylabel="accuracy, %")
        return figure

    return Shown([Table(title, header, rows, below)], draw)


@paper.figure(8, **{**OF_CIFAR, "widths": [500]})
def reduced_perceptron(run):
    """accuracy against reduction, duplicates merged beside L1: the MLP"""
    (units,) = run.args.widths
    results = perceptrons(run, units)
    return against_reduction(run, results, f"MLP of {units} units")


@paper.figure(9, dataset="cifar10", epochs=60)
def reduced_network(run):
    """accuracy against reduction, duplicates merged beside L1: the CNN"""
    args = run.args
    results = run.seeds(
        convolutional,
        filters=args.filters,
        decay=args.decay,
        epochs=args.epochs,
    )
    return against_reduction(run, results, f"CNN of {args.filters} filters")


# --- tables -----------------------------------------------------------------


@paper.table(1, **OF_CIFAR)
def components(run):
    """connected components over units, by dropout"""
    tau = run.args.tau
    rows = []
    for units in run.args.widths:
        row = [str(units)]
        for dropout in DROPOUTS:
            results = perceptrons(run, units, dropout)
            found = [first_layer(x.model, tau).n_f for x in results]
            row.append(f"{spread(found, 0)} / {units}")
        rows.append([*row, COMPONENTS_IN_PAPER.get(units)])
    header = ["units", *(f"dropout {x:g}" for x in DROPOUTS), "paper, without"]
    title = f"Components of the first layer at tau {tau:g}"
    below = caption(run)
    return Shown([Table(title, header, rows, below)])


@paper.table(2, **OF_CIFAR)
def decays(run):
    """accuracies and components by weight decay"""
    rows = []
    for units in run.args.widths:
        for decay in DECAYS:
            found = perceptrons(run, units, decay=decay)
            left = [first_layer(x.model, run.args.tau).n_f for x in found]
            rows.append(
                [
                    str(units),
                    f"{decay:g}",
                    spread([x["training accuracy"] for x in found]),
                    spread([x["accuracy"] for x in found]),
                    spread(left, 0),
                ]
            )
    header = ["units", "weight decay", "training, %", "test, %", "components"]
    return Shown([Table("Accuracies", header, rows, caption(run))])


@paper.table(3, **OF_CIFAR)
def complexities(run):
    """trace complexity of the first layer, by width and weight decay"""
    rows = []
    for units in run.args.widths:
        row = [str(units)]
        for decay in DECAYS:
            models = [x.model for x in perceptrons(run, units, decay=decay)]
            found = [first_layer(model).trace_complexity for model in models]
            row.append(spread(found, 4))
        rows.append(row)
    header = ["units", *(f"decay {x:g}" for x in DECAYS)]
    return Shown(
        [
            Table(
                "Trace complexity of the first layer",
                header,
                rows,
                caption(run),
            )
        ]
    )


if __name__ == "__main__":
    paper.main()
