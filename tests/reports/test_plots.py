"""Pictures show the figures that they are made of."""

import sys

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.figure import Figure

import keras_redundancy as kr
from keras_redundancy.numbers.clustering import cluster_filters
from keras_redundancy.reports import plots
from tests import models


@pytest.fixture
def model():
    model = models.randomized(models.residual())
    models.plant(model)
    return model


def curves(figure):
    """{name: (xs, ys)} of the lines in a picture."""
    (axes, *_) = figure.axes
    return {x.get_label(): x.get_data() for x in axes.get_lines()}


def is_drawn(figure, path):
    figure.savefig(path)
    return path.stat().st_size > 5000


def test_redundancy(model, tmp_path):
    found = kr.redundancy(model, (0.2, 0.5, 0.9))
    for count in ("n_r", "n_f"):
        figure = plots.redundancy(found, count)
        taus, shares = curves(figure)["conv1a"]
        counts = [getattr(kr.analyze(model, t).layers[1], count) for t in taus]
        np.testing.assert_allclose(shares, np.divide(counts, 7))
        assert is_drawn(figure, tmp_path / "plot.png")
    with pytest.raises(ValueError, match="count='n' is not known"):
        plots.redundancy(found, "n")


def test_similarities(model, tmp_path):
    report = kr.analyze(model, 0.9999)
    figure = plots.similarity_histograms(report, ["conv1a", "stem"])
    (axes,) = figure.axes
    assert [x.get_label() for x in axes.patches] == ["conv1a", "stem"]
    sums = [x.get_data().values.sum() for x in axes.patches]
    assert sums == pytest.approx([1, 1])
    assert is_drawn(figure, tmp_path / "plot.png")
    figure = plots.similarity_heatmap(report, "conv1a")
    (image,) = figure.axes[0].images
    cosines = image.get_array()
    assert cosines.shape == (7, 7)
    np.testing.assert_allclose(np.diag(cosines), 1, rtol=1e-5)
    # Copies are next to the unit that they are copies of.
    nearest = np.diag(cosines, 1)
    assert (nearest > 0.9999).sum() == report.layers[1].n_r
    with pytest.raises(ValueError, match="layer='conv9' is not known"):
        plots.similarity_heatmap(report, "conv9")
    report = kr.analyze(model, {"stem": 0.5})
    with pytest.raises(ValueError, match="has no tau for the layer 'conv1a'"):
        plots.similarity_heatmap(report, "conv1a")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_filters(channels, tmp_path):
    layer = layers.Conv2D(5, 3)
    model = keras.Sequential([keras.Input((8, 8, channels)), layer])
    kernel, bias = layer.get_weights()
    kernel[..., 3] = 2 * kernel[..., 0]
    layer.set_weights([kernel, bias])
    figure = plots.filters_by_cluster(model, tau=0.9999)
    assert "4 clusters" in figure.axes[0].get_title()
    (image,) = figure.axes[0].images
    assert image.get_array().shape == (4 * 4, 2 * 4, 3)
    assert is_drawn(figure, tmp_path / "plot.png")
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="d")])
    with pytest.raises(ValueError, match="has no Conv2D layer"):
        plots.filters_by_cluster(dense)
    with pytest.raises(ValueError, match="are no pictures"):
        plots.filters_by_cluster(dense, "d")


def test_filters_of_a_dense_layer():
    layer = layers.Dense(5, name="d")
    model = keras.Sequential([keras.Input((12,)), layer])
    kernel, bias = layer.get_weights()
    kernel[:, 3] = 2 * kernel[:, 0]
    kernel[:, 4] = 3 * kernel[:, 0]
    layer.set_weights([kernel, bias])
    options = {"linkage": "single", "shape": (2, 2, 3), "clusters": 1}
    figure = plots.filters_by_cluster(model, "d", 0.9999, **options)
    (image,) = figure.axes[0].images
    assert image.get_array().shape == (3, 3 * 3, 3)
    first = plots.filters_by_cluster(model, "d", 0.9999, **options, units=2)
    assert first.axes[0].images[0].get_array().shape == (3, 2 * 3, 3)
    reach = np.abs(kernel).max()
    expected = kernel[:, 4].reshape(2, 2, 3) / (2 * reach) + 0.5
    drawn = image.get_array()[:2, 6:8]
    np.testing.assert_allclose(drawn, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="has 12 numbers"):
        plots.filters_by_cluster(model, "d", shape=(3, 3, 3))


def test_norms_by_cluster(model):
    report = kr.analyze(model, 0.9999)
    figure = plots.norms_by_cluster(report, "conv1a", clusters=1)
    _, group = figure.axes[0].get_lines()
    filters = report.filters[1]
    labels = cluster_filters(filters, 0.9999)
    largest = labels == np.bincount(labels).argmax()
    assert largest.sum() > 1
    np.testing.assert_allclose(
        sorted(group.get_ydata()),
        sorted(np.linalg.norm(filters[:, largest], axis=0)),
        rtol=1e-6,
    )


def test_several_pictures_in_one_figure(model):
    report = kr.analyze(model, 0.5)
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert plots.similarity_heatmap(report, "conv1a", axes=axes[0]) is figure
    assert plots.singular_values(report, ["stem"], axes=axes[1]) is figure
    assert axes[0].images
    assert axes[1].get_lines()


def test_singular_values(model, tmp_path):
    report = kr.analyze(model)
    figure = plots.singular_values(report, ["conv1a"])
    line, dot = figure.axes[0].get_lines()
    expected = np.linalg.svd(report.filters[1], compute_uv=False)
    # Copies have made the last ones 0, but for rounding.
    np.testing.assert_allclose(
        line.get_ydata(), expected / expected[0], atol=1e-5
    )
    energy = np.cumsum(expected**2) / np.sum(expected**2)
    held = 1 + np.searchsorted(energy, 0.99)
    np.testing.assert_allclose(dot.get_xdata(), held / len(expected))
    assert is_drawn(figure, tmp_path / "plot.png")


def test_scores(model, tmp_path):
    def score(model):
        return model.count_params() / 1000

    found = kr.sensitivity(model, score, ratios=(0.2, 0.5), verbose=0)
    figure = plots.sensitivity(found)
    part = next(iter(found.trials))
    scores = [trial.score for trial in found.trials[part]]
    np.testing.assert_array_equal(
        curves(figure)[part.name], ((0.2, 0.5), scores)
    )
    assert is_drawn(figure, tmp_path / "plot.png")
    methods = {"smallest": {"select": "l1"}}
    found = kr.compare(model, score, methods, shares=(0.8, 0.5), verbose=0)
    figure = plots.score_against_flops(found)
    shares, scores = curves(figure)["smallest"]
    assert list(scores) == [trial.score for trial in found.trials["smallest"]]
    np.testing.assert_allclose(shares, (0.8, 0.5), atol=0.05)
    assert is_drawn(figure, tmp_path / "plot.png")


def small_network():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(10, activation="relu", name="hidden"),
            layers.Dense(2, name="last"),
        ]
    )
    model.compile("adam", "mse")
    return model


def test_training(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    model = small_network()
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, 0.5, images=False)
    model.fit(x, x[:, :2], epochs=3, verbose=0, callbacks=[monitor])
    figure = plots.training(monitor, "effective_rank")
    steps, values = curves(figure)["hidden"]
    assert list(steps) == [0, 1, 2]
    assert values[-1] == kr.analyze(model).layers[0].effective_rank
    assert figure.axes[0].get_xlabel() == "epoch"
    assert is_drawn(figure, tmp_path / "plot.png")
    with pytest.raises(ValueError, match=r"measure='rank' .*'n_r_at_0.5'"):
        plots.training(monitor, "rank")


@pytest.mark.parametrize(
    ("draw", "others"), [(plots.filters_by_cluster, 0), (plots.activations, 2)]
)
def test_pictures_of_what_is_no_model(draw, others):
    with pytest.raises(TypeError, match=r"of a keras\.Model, but received"):
        draw(layers.Dense(3), *[np.zeros(4)] * others)


def test_activations(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    x = rng.normal(size=(40, 6)) + 20 * labels[:, None]
    network = small_network()
    with pytest.raises(ValueError, match=r"shape \(40, 2\), but x has 40"):
        plots.activations(network, x, np.eye(2)[labels])
    figure = plots.activations(network, x.astype("float32"), labels)
    first, second = (x.get_offsets() for x in figure.axes[0].collections)
    assert len(first) == len(second) == 20
    # What is far apart stays so.
    between = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert between > max(first.std(axis=0).max(), second.std(axis=0).max())
    assert is_drawn(figure, tmp_path / "plot.png")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (plots.redundancy, r"of kr.redundancy\(model\), but received <Seq"),
        (plots.similarity_histograms, r"of kr.analyze\(model\), but"),
        (plots.sensitivity, r"of kr.sensitivity\(model, evaluate\), but"),
        (plots.score_against_flops, r"of kr.compare\(model, evaluate\), but"),
    ],
)
def test_a_model_in_place_of_what_was_found(draw, words):
    with pytest.raises(TypeError, match=words):
        draw(models.mlp())


def test_without_matplotlib(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install .matplotlib"):
        plots.singular_values(kr.analyze(model))
