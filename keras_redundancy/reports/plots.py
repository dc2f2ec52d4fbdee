"""Pictures of redundancy, with matplotlib.

Each function takes what a function of this package returned, or a model, and
returns a `matplotlib.figure.Figure`: save it with `savefig`.

    kr.plots.redundancy(kr.redundancy(model)).savefig("redundancy.png")

All raise ImportError where matplotlib is not installed.
"""

import keras
import numpy as np

from keras_redundancy._shared.arguments import check_option
from keras_redundancy._shared.extras import needing
from keras_redundancy.numbers import rank
from keras_redundancy.reports import heatmaps


def _check(found, attribute: str, where: str):
    """Raise TypeError unless `found` is what `where` returns."""
    if not hasattr(found, attribute):
        raise TypeError(
            f"This picture is drawn of {where}, but received {found!r}. Call "
            "that first, and pass what it returns."
        )


def redundancy(found, count: str = "n_r"):
    """Draw the redundant units, or clusters, of each layer against tau.

    Args:
        found: what `kr.redundancy` returned.
        count: "n_r" for redundant units, "n_f" for clusters; drawn as shares
            of the layer's units.

    Source: Ayinde, Inanc and Zurada (2019), n_r and n_f against tau.
    """
    check_option("count", count, ("n_r", "n_f"))
    _check(found, "reports", "kr.redundancy(model)")
    figure, axes = _figure()
    for title in found.reports[0].by_title:
        layers = [report.by_title[title][0] for report in found.reports]
        shares = [getattr(layer, count) / layer.n for layer in layers]
        axes.plot(found.taus, shares, marker=".", label=title)
    title = found.reports[0].model
    axes.set(
        xlabel="tau", ylabel=f"{count} / n", title=title, ylim=(-0.02, 1.02)
    )
    return _with_names(figure, axes)


def similarity_histograms(report, layers=None):
    """Draw a histogram of the cosines of all pairs of units, per layer.

    Args:
        report: what `kr.analyze` returned.
        layers: titles of layers in it; default: all with several units.
    """
    figure, axes = _figure()
    edges = np.linspace(-1, 1, 81)
    for title, _, matrix in _chosen(report, layers):
        counts, _ = np.histogram(heatmaps.pairwise(matrix), edges)
        shares = counts / counts.sum()
        axes.stairs(shares, edges, label=title)
    title = report.model
    axes.set(
        xlabel="cosine of two filters", ylabel="share of pairs", title=title
    )
    return _with_names(figure, axes)


def similarity_heatmap(report, layer: str, tau: float | None = None):
    """Draw the cosines of all pairs of units, ordered by cluster.

    Args:
        report: what `kr.analyze` returned.
        layer: title of a layer in it.
        tau: the threshold of the clusters; default: that of the report.
    """
    ((_, found, matrix),) = _chosen(report, [layer])
    tau = found.tau if tau is None else tau
    if tau is None:
        raise ValueError(
            f"The report has no tau for the layer {layer!r}. Pass tau=, a "
            "number in (0, 1]."
        )
    figure, axes = _figure(size=(6, 5))
    cosines = heatmaps.similarities(matrix, tau, report.linkage)
    image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set(title=f"{layer}, clusters at tau = {tau:g}", xlabel="unit")
    figure.colorbar(image, label="cosine")
    return figure


def filters_by_cluster(model, layer: str | None = None, tau: float = 0.5):
    """Draw the filters of a convolution, a line of them for each cluster.

    Filters of three channels are coloured; of others the first channel is
    drawn.

    Args:
        model: a built `keras.Model`.
        layer: the name of a `Conv2D`; the first one by default.
        tau: the threshold of the clusters.

    Raises:
        ValueError: the model has no such layer, or its kernel is not of rank
            4.
    """
    name = _first_convolution(model) if layer is None else layer
    kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
    if kernel.ndim != 4:
        raise ValueError(
            f"The kernel of {name!r} has shape {kernel.shape}, so that its "
            "filters are no pictures. Name a Conv2D layer."
        )
    matrix = kernel.reshape(-1, kernel.shape[-1])
    units, clusters = heatmaps.by_cluster(matrix, tau)
    height, width, channels, _ = kernel.shape
    lines = [units[clusters == x] for x in dict.fromkeys(clusters.tolist())]
    columns = max(map(len, lines))
    canvas = np.ones((len(lines) * (height + 1), columns * (width + 1), 3))
    reach = np.abs(kernel).max() or 1
    for row, line in enumerate(lines):
        for column, unit in enumerate(line):
            filters = kernel[..., unit] / (2 * reach) + 0.5
            if channels != 3:
                filters = np.repeat(filters[..., :1], 3, axis=-1)
            y, x = row * (height + 1), column * (width + 1)
            canvas[y : y + height, x : x + width] = filters
    size = max(3.5, 8 * canvas.shape[1] / canvas.shape[0]), 8
    figure, axes = _figure(size)
    axes.imshow(canvas)
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"{name}: {len(lines)} clusters at tau = {tau:g}")
    return figure


def singular_values(report, layers=None, energy: float = 0.99):
    """Draw the singular values of each layer, and its 99 % energy rank.

    Args:
        report: what `kr.analyze` returned.
        layers: titles of layers in it; default: all with several units.
        energy: the share of the sum of squares at which the dot stands.
    """
    figure, axes = _figure()
    for title, _, matrix in _chosen(report, layers):
        values = rank.singular_values(matrix)
        if values[0] == 0:
            continue
        held = rank.energy_rank(values, energy)
        numbers = np.arange(1, len(values) + 1) / len(values)
        (line,) = axes.plot(numbers, values / values[0], label=title)
        place = numbers[held - 1], values[held - 1] / values[0]
        axes.plot(*place, "o", color=line.get_color())
    axes.set(
        xlabel=f"share of singular values (dot: {energy:.0%} of the energy)",
        ylabel="over the largest",
        title=report.model,
    )
    return _with_names(figure, axes)


def sensitivity(found):
    """Draw the score against the level, a line for each part of the model.

    Args:
        found: what `kr.sensitivity` returned.

    Source: Li et al., Pruning Filters for Efficient ConvNets (2017), fig. 2.
    """
    _check(found, "levels", "kr.sensitivity(model, evaluate)")
    figure, axes = _figure()
    for part, trials in found.trials.items():
        scores = [trial.score for trial in trials]
        axes.plot(found.levels, scores, marker=".", label=part.name)
    axes.axhline(found.base.score, color="gray", ls="--", label="uncut")
    axes.set(xlabel=found.how, ylabel="score", title=found.name)
    if found.how == "tau":
        axes.invert_xaxis()
    return _with_names(figure, axes)


def score_against_flops(found):
    """Draw the score against the multiply-adds, a line for each method.

    Args:
        found: what `kr.compare` returned.
    """
    _check(found, "shares", "kr.compare(model, evaluate)")
    figure, axes = _figure()
    for method, trials in found.trials.items():
        shares = [trial.cost for trial in trials]
        scores = [trial.score for trial in trials]
        axes.plot(shares, scores, marker=".", label=method)
    axes.axhline(found.base, color="gray", ls="--", label="uncut")
    label = "share of multiply-adds left"
    axes.set(xlabel=label, ylabel="score", title=found.name)
    return _with_names(figure, axes)


def training(monitor, measure: str = "mean_similarity"):
    """Draw a measure of each layer over the steps of training.

    Args:
        monitor: a `kr.callbacks.RedundancyMonitor` after `fit`.
        measure: the first part of a tag in the monitor's `history`, such as
            "n_r_at_0.5", "effective_rank" or "model".

    Raises:
        ValueError: the monitor has no such measure.
    """
    groups = list(dict.fromkeys(x.split("/")[0] for x in monitor.history))
    check_option("measure", measure, groups)
    figure, axes = _figure()
    for tag, values in monitor.history.items():
        group, name = tag.split("/", maxsplit=1)
        if group == measure:
            axes.plot(*zip(*values, strict=True), marker=".", label=name)
    step = "epoch" if monitor.every == "epoch" else "batch"
    axes.set(xlabel=step, ylabel=measure)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _with_names(figure, axes)


def activations(model, x, labels, layer: str | None = None, seed: int = 0):
    """Draw a t-SNE of the last hidden activations of samples.

    Args:
        model: a built functional or Sequential `keras.Model`.
        x: some hundred inputs of the model.
        labels: the class of each input, integers of shape (samples,).
        layer: the name of the layer whose output is used; default: the last
            but one.
        seed: of t-SNE, so that the picture is the same each time.

    Raises:
        ImportError: scikit-learn is not installed.

    Source: van der Maaten and Hinton (2008).
    """
    with needing("plots", "t-SNE needs scikit-learn"):
        from sklearn.manifold import TSNE
    hidden = model.layers[-2] if layer is None else model.get_layer(layer)
    found = keras.Model(model.inputs, hidden.output).predict(x, verbose=0)
    found = found.reshape(len(found), -1)
    perplexity = min(30, (len(found) - 1) / 3)
    places = TSNE(perplexity=perplexity, random_state=seed).fit_transform(found)
    figure, axes = _figure(size=(7, 6))
    labels = np.asarray(labels).reshape(-1)
    for label in np.unique(labels):
        axes.scatter(*places[labels == label].T, s=8, label=str(label))
    axes.set(xticks=[], yticks=[], title=f"{model.name}, {hidden.name}")
    return _with_names(figure, axes)


def _figure(size=(8, 5)):
    with needing("plots", "Pictures need matplotlib"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _with_names(figure, axes):
    count = len(axes.get_legend_handles_labels()[1])
    axes.legend(fontsize="small", ncols=1 + count // 12)
    return figure


def _chosen(report, layers):
    """[(title, `LayerReport`, filters), ...] of those titles."""
    _check(report, "by_title", "kr.analyze(model)")
    found = report.with_pairs
    for title in layers or ():
        check_option("layer", title, found)
    return [(x, *found[x]) for x in (found if layers is None else layers)]


def _first_convolution(model):
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            return layer.name
    raise ValueError(
        f"The model {model.name!r} has no Conv2D layer, whose filters are "
        "pictures. Name one of a model inside it, or see similarity_heatmap."
    )
