"""Pictures of redundancy, with matplotlib.

Each function takes what a function of this package returned, or a model, and
returns a `matplotlib.figure.Figure`: save it with `savefig`.

    kr.plots.redundancy(kr.redundancy(model)).savefig("redundancy.png")

With `axes=`, a matplotlib `Axes`, a function draws there, to put several
pictures into one figure, and returns the figure of these axes.

All raise ImportError where matplotlib is not installed.
"""

import keras
import numpy as np

from keras_redundancy._shared.arguments import check_option
from keras_redundancy._shared.extras import needing
from keras_redundancy._shared.tables import shown
from keras_redundancy.numbers import rank
from keras_redundancy.reports import heatmaps


def _check(found, attribute: str, where: str):
    """Raise TypeError unless `found` is what `where` returns."""
    if not hasattr(found, attribute):
        raise TypeError(
            f"This picture is drawn of {where}, but received {shown(found)}. "
            "Call that first, and pass what it returns."
        )


def _check_model(model):
    """Raise TypeError unless `model` is a Keras model."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"This picture is drawn of a keras.Model, but received "
            f"{shown(model)}."
        )


def redundancy(found, count: str = "n_r", *, axes=None):
    """Draw the redundant units, or clusters, of each layer against tau.

    Args:
        found: what `kr.redundancy` returned.
        count: "n_r" for redundant units, "n_f" for clusters; drawn as shares
            of the layer's units.

    Source: Ayinde, Inanc and Zurada (2019), n_r and n_f against tau.
    """
    check_option("count", count, ("n_r", "n_f"))
    _check(found, "reports", "kr.redundancy(model)")
    figure, axes = _figure(axes)
    for title in found.reports[0].by_title:
        layers = [report.by_title[title][0] for report in found.reports]
        shares = [getattr(layer, count) / layer.n for layer in layers]
        axes.plot(found.taus, shares, marker=".", label=title)
    title = found.reports[0].model
    axes.set(
        xlabel="tau", ylabel=f"{count} / n", title=title, ylim=(-0.02, 1.02)
    )
    return _with_names(figure, axes)


def similarity_histograms(report, layers=None, *, axes=None):
    """Draw a histogram of the cosines of all pairs of units, per layer.

    Args:
        report: what `kr.analyze` returned.
        layers: titles of layers in it; default: all with several units.
    """
    figure, axes = _figure(axes)
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


def similarity_heatmap(
    report, layer: str, tau: float | None = None, *, axes=None
):
    """Draw the cosines of all pairs of units, ordered by cluster.

    Args:
        report: what `kr.analyze` returned.
        layer: title of a layer in it.
        tau: the threshold of the clusters; default: that of the report.
    """
    ((_, found, matrix),) = _chosen(report, [layer])
    tau = _tau_of(found, tau)
    figure, axes = _figure(axes, size=(6, 5))
    cosines = heatmaps.similarities(matrix, tau, report.linkage)
    image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set(title=f"{layer}, clusters at tau = {tau:g}", xlabel="unit")
    figure.colorbar(image, label="cosine")
    return figure


def filters_by_cluster(
    model,
    layer: str | None = None,
    tau: float = 0.5,
    *,
    linkage: str = "average",
    shape: tuple[int, int, int] | None = None,
    clusters: int | None = None,
    units: int | None = None,
    axes=None,
):
    """Draw the filters of a layer as pictures, a line of them per cluster.

    Filters of three channels are coloured; of others the first channel is
    drawn.

    Args:
        model: a built `keras.Model`.
        layer: the name of a `Conv2D` or `Dense` layer; the first `Conv2D` by
            default.
        tau: the threshold of the clusters.
        linkage: "average", "complete" or "single".
        shape: (height, width, channels) of a filter of a `Dense` layer that
            reads flattened images.
        clusters: draw so many of the largest clusters; default: all, in the
            order of their first units.
        units: draw so many units of a cluster, the first ones; default: all.

    Raises:
        ValueError: the model has no such layer, or its filters have no such
            shape.
    """
    _check_model(model)
    name = _first_convolution(model) if layer is None else layer
    kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
    pictures = _as_pictures(name, kernel, shape)
    matrix = pictures.reshape(-1, pictures.shape[-1])
    found, labels = heatmaps.by_cluster(matrix, tau, linkage)
    lines = [found[labels == x] for x in dict.fromkeys(labels.tolist())]
    title = f"{name}: {len(lines)} clusters at tau = {tau:g}"
    if clusters is not None:
        lines = sorted(lines, key=len, reverse=True)[:clusters]
    canvas = _in_lines(pictures, [line[:units] for line in lines])
    size = max(3.5, 8 * canvas.shape[1] / canvas.shape[0]), 8
    figure, axes = _figure(axes, size)
    axes.imshow(canvas)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title)
    return figure


def _as_pictures(name, kernel, shape):
    """A kernel as an array (height, width, channels, units)."""
    if shape is None:
        if kernel.ndim != 4:
            raise ValueError(
                f"The kernel of {name!r} has shape {kernel.shape}, so that "
                "its filters are no pictures. Name a Conv2D layer, or pass "
                "the shape= of the images that a Dense layer reads."
            )
        return kernel
    if np.prod(shape) != np.prod(kernel.shape[:-1]):
        raise ValueError(
            f"shape is {tuple(shape)}, but a filter of {name!r} has "
            f"{np.prod(kernel.shape[:-1])} numbers. Pass (height, width, "
            "channels) of the images that the layer reads."
        )
    return kernel.reshape(*shape, -1)


def _in_lines(pictures, lines):
    """One image of all filters; each of `lines` has the numbers of a line."""
    height, width, channels, _ = pictures.shape
    shape = len(lines) * (height + 1), max(map(len, lines)) * (width + 1), 3
    canvas = np.ones(shape)
    reach = np.abs(pictures).max() or 1
    for row, line in enumerate(lines):
        for column, unit in enumerate(line):
            filters = pictures[..., unit] / (2 * reach) + 0.5
            if channels != 3:
                filters = np.repeat(filters[..., :1], 3, axis=-1)
            y, x = row * (height + 1), column * (width + 1)
            canvas[y : y + height, x : x + width] = filters
    return canvas


def singular_values(report, layers=None, energy: float = 0.99, *, axes=None):
    """Draw the singular values of each layer, and its 99 % energy rank.

    Args:
        report: what `kr.analyze` returned.
        layers: titles of layers in it; default: all with several units.
        energy: the share of the sum of squares at which the dot stands.
    """
    figure, axes = _figure(axes)
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


def norms_by_cluster(
    report,
    layer: str,
    tau: float | None = None,
    *,
    clusters: int = 20,
    axes=None,
):
    """Draw the norms of the filters of a layer's largest clusters.

    Args:
        report: what `kr.analyze` returned.
        layer: title of a layer in it.
        tau: the threshold of the clusters; default: that of the report.
        clusters: how many to draw, of those with several units, the largest
            first.

    Source: RoyChowdhury, Sharma and Learned-Miller, Reducing Duplicate Filters
    in Deep Neural Networks (2017), norms within groups of duplicates.
    """
    ((_, found, matrix),) = _chosen(report, [layer])
    tau = _tau_of(found, tau)
    units, labels = heatmaps.by_cluster(matrix, tau, report.linkage)
    norms = np.linalg.norm(matrix, axis=0)
    groups = [norms[units[labels == x]] for x in dict.fromkeys(labels.tolist())]
    groups = [group for group in groups if len(group) > 1][:clusters]
    figure, axes = _figure(axes)
    axes.axhline(norms.mean(), color="gray", ls="--", label="mean of all units")
    for number, group in enumerate(groups, 1):
        places = np.full(len(group), number)
        axes.plot(places, group, "o", ms=4, alpha=0.5, color="tab:blue")
    title = f"{layer}, clusters at tau = {tau:g}"
    axes.set(xlabel="cluster, largest first", ylabel="norm", title=title)
    axes.set_ylim(bottom=0)
    return _with_names(figure, axes)


def sensitivity(found, *, axes=None):
    """Draw the score against the level, a line for each part of the model.

    Args:
        found: what `kr.sensitivity` returned.

    Source: Li et al., Pruning Filters for Efficient ConvNets (2017), fig. 2.
    """
    _check(found, "levels", "kr.sensitivity(model, evaluate)")
    figure, axes = _figure(axes)
    for part, trials in found.trials.items():
        scores = [trial.score for trial in trials]
        axes.plot(found.levels, scores, marker=".", label=part.name)
    axes.axhline(found.base.score, color="gray", ls="--", label="uncut")
    axes.set(xlabel=found.how, ylabel="score", title=found.name)
    if found.how == "tau":
        axes.invert_xaxis()
    return _with_names(figure, axes)


def score_against_flops(found, *, axes=None):
    """Draw the score against the multiply-adds, a line for each method.

    Args:
        found: what `kr.compare` returned.
    """
    _check(found, "shares", "kr.compare(model, evaluate)")
    figure, axes = _figure(axes)
    for method, trials in found.trials.items():
        shares = [trial.cost for trial in trials]
        scores = [trial.score for trial in trials]
        axes.plot(shares, scores, marker=".", label=method)
    axes.axhline(found.base, color="gray", ls="--", label="uncut")
    label = "share of multiply-adds left"
    axes.set(xlabel=label, ylabel="score", title=found.name)
    return _with_names(figure, axes)


def training(monitor, measure: str = "mean_similarity", *, axes=None):
    """Draw a measure of each layer over the steps of training.

    Args:
        monitor: a `kr.callbacks.RedundancyMonitor` after `fit`.
        measure: the first part of a tag in the monitor's `history`, such as
            "n_r_at_0.5", "effective_rank" or "model".

    Raises:
        ValueError: the monitor has no such measure.
    """
    _check(monitor, "history", "a kr.callbacks.RedundancyMonitor after fit")
    groups = list(dict.fromkeys(x.split("/")[0] for x in monitor.history))
    check_option("measure", measure, groups)
    figure, axes = _figure(axes)
    for tag, values in monitor.history.items():
        group, name = tag.split("/", maxsplit=1)
        if group == measure:
            axes.plot(*zip(*values, strict=True), marker=".", label=name)
    step = "epoch" if monitor.every == "epoch" else "batch"
    axes.set(xlabel=step, ylabel=measure)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _with_names(figure, axes)


def activations(
    model, x, labels, layer: str | None = None, seed: int = 0, *, axes=None
):
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
        TypeError, ValueError: `model` is no `keras.Model`, `x` does not fit
            it, or there are not as many labels as samples.

    Source: van der Maaten and Hinton (2008).
    """
    _check_model(model)
    with needing("plots", "t-SNE needs scikit-learn"):
        from sklearn.manifold import TSNE
    hidden = model.layers[-2] if layer is None else model.get_layer(layer)
    found = keras.Model(model.inputs, hidden.output).predict(x, verbose=0)
    labels = np.asarray(labels)
    if labels.size != len(found):
        raise ValueError(
            f"labels has the shape {labels.shape}, but x has {len(found)} "
            "samples. Pass one integer for each; of one-hot labels, "
            "labels.argmax(-1)."
        )
    labels, found = labels.reshape(-1), found.reshape(len(found), -1)
    perplexity = min(30, (len(found) - 1) / 3)
    places = TSNE(perplexity=perplexity, random_state=seed).fit_transform(found)
    figure, axes = _figure(axes, size=(7, 6))
    for label in np.unique(labels):
        axes.scatter(*places[labels == label].T, s=8, label=str(label))
    axes.set(xticks=[], yticks=[], title=f"{model.name}, {hidden.name}")
    return _with_names(figure, axes)


def _figure(axes, size=(8, 5)):
    """A figure and the axes to draw in: `axes`, or new ones of that size."""
    with needing("plots", "Pictures need matplotlib"):
        from matplotlib.figure import Figure
    if axes is not None:
        return axes.figure, axes
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _tau_of(layer, tau):
    """`tau`, by default that of a `LayerReport`."""
    tau = layer.tau if tau is None else tau
    if tau is None:
        raise ValueError(
            f"The report has no tau for the layer {layer.title!r}. Pass tau=, "
            "a number in (0, 1]."
        )
    return tau


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
