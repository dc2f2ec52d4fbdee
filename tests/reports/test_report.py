"""`analyze`: every figure against NumPy and SciPy on the same weights."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

import keras_redundancy as kr
from keras_redundancy.reports import analysis, columns
from tests import models


@pytest.fixture
def model():
    model = models.randomized(models.residual())
    models.plant(model)
    return model


def test_figures_of_a_layer(model):
    report = kr.analyze(model, tau=0.3)
    layer = next(row for row in report.layers if row.layer == "conv1a")
    kernel = models.numpy(model.get_layer("conv1a").kernel)
    matrix = kernel.reshape(-1, 7).astype("float64")
    distances = pdist(matrix.T, "cosine")
    clusters = fcluster(linkage(distances, "average"), 0.7, "distance")
    values = np.linalg.svd(matrix, compute_uv=False)
    share = values / values.sum()
    energy = np.cumsum(values**2) / np.sum(values**2)
    assert (layer.n, layer.n_f) == (7, clusters.max())
    assert layer.n_r == 7 - clusters.max() > 0
    assert layer.mean_similarity == pytest.approx(1 - distances.mean())
    assert layer.max_similarity == pytest.approx(1 - distances.min())
    assert layer.effective_rank == pytest.approx(
        np.exp(-(share[share > 1e-9] * np.log(share[share > 1e-9])).sum()),
        rel=1e-3,
    )
    assert layer.stable_rank == pytest.approx(
        (values**2).sum() / values[0] ** 2, rel=1e-5
    )
    assert layer.energy_rank == 1 + np.searchsorted(energy, 0.99)
    assert layer.trace_complexity == pytest.approx(
        values.sum() / np.sqrt(matrix.size), rel=1e-4
    )
    assert layer.parameters == 9 * 9 * 7 + 7
    assert layer.multiply_adds == 64 * 9 * 9 * 7
    assert layer.state == "prunable"


def test_figures_of_the_model(model):
    report = kr.analyze(model, tau=0.9999)
    assert report.parameters == model.count_params()
    assert report.multiply_adds == kr.flops(model)
    assert report.n_r == sum(layer.n_r for layer in report.layers) == 10
    assert [layer.layer for layer in report.layers] == [
        "stem",
        "conv1a",
        "conv1b",
        "conv2a",
        "conv2b",
        "top",
    ]
    assert report.layers[-1].state == "it is an output of the model"


def test_more_units_are_redundant_at_a_smaller_tau(model):
    counts = [kr.analyze(model, tau).n_r for tau in (0.05, 0.2, 0.5, 0.9)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_to_dict_is_plain(model):
    report = kr.analyze(model, tau={"conv.a": 0.5})
    data = json.loads(json.dumps(report.to_dict()))
    assert data["n_r"] == report.n_r
    stem, conv = data["layers"][:2]
    assert (stem["tau"], stem["n_f"], stem["n_r"]) == (None, None, None)
    assert conv["tau"] == 0.5
    assert conv["n_f"] + conv["n_r"] == conv["n"] == 7


def test_render_prints_and_returns_the_table(model, capsys):
    text = kr.analyze(model, tau=0.9999).render()
    assert capsys.readouterr().out == text + "\n"
    row = next(x for x in text.splitlines() if x.split()[:1] == ["conv1a"])
    assert row.split()[1:4] == ["7", "5", "2"]
    assert "10 of 46 units are redundant" in text
    assert max(len(line) for line in text.splitlines()) <= 160


def test_a_layer_with_one_unit_and_a_zero_layer():
    model = models.mlp()
    dense = model.layers[0]
    dense.kernel.assign(0 * dense.kernel)
    layer = kr.analyze(model).layers[0]
    assert (layer.n_f, layer.n_r) == (1, 15)
    assert np.isfinite(
        [layer.mean_similarity, layer.effective_rank, layer.stable_rank]
    ).all()


def test_files(model, tmp_path):
    report = kr.analyze(model, tau={"conv.a": 0.5})
    report.to_json(tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    assert data == json.loads(json.dumps(report.to_dict()))
    report.to_csv(tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [x.layer for x in report.layers]
    assert [row["n"] for row in rows] == [str(x.n) for x in report.layers]
    assert (rows[0]["n_r"], rows[1]["tau"]) == ("", "0.5")
    with pytest.raises(OSError, match="No such file"):
        report.to_csv(tmp_path / "missing" / "report.csv")


def test_a_page_is_small_and_alone(tmp_path):
    """ResNet50's is; what is in it is looked at in test_browser."""
    model = keras.applications.ResNet50(weights=None)
    kr.analyze(model).to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 2e6
    assert page.count("<img") == 54
    assert "http" not in page


def test_units_at_several_tau(model):
    found = kr.redundancy(model, (0.9999, 0.2, 0.5))
    assert found.taus == (0.2, 0.5, 0.9999)
    for tau, report, share in zip(
        found.taus, found.reports, found.shares(), strict=True
    ):
        assert report == kr.analyze(model, tau)
        shares = [layer.n_r / layer.n for layer in report.layers]
        assert share == pytest.approx(np.mean(shares))
    assert json.loads(json.dumps(found.to_dict()))["taus"] == [0.2, 0.5, 0.9999]
    rows = {x.split()[0]: x.split() for x in str(found).splitlines() if x}
    assert rows["conv1a"][-1] == "2"
    assert rows["all"][-1] == "10"


@pytest.mark.parametrize(
    ("taus", "error", "message"),
    [
        ([], ValueError, "taus is empty"),
        ([0.5, 0], ValueError, "taus is 0"),
        ("0.5", TypeError, "has to be a number or several"),
        ([None], TypeError, "taus is None"),
    ],
)
def test_bad_thresholds(model, taus, error, message):
    with pytest.raises(error, match=message):
        kr.redundancy(model, taus)


def test_layers_for_training_are_seen_as_what_they_compute(model):
    dense = [keras.layers.Dense(units) for units in (9, 5)]
    wide = keras.Sequential([keras.Input((4,)), *dense])
    report = kr.analyze(kr.factorize(wide))
    assert [x.n for x in report.layers] == [9, 5]
    assert report == kr.analyze(wide)


def test_a_model_without_units():
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="has no layer with a kernel"):
        kr.redundancy(model)
    assert kr.analyze(model).layers == ()


def test_a_column_of_ones_own(model, tmp_path):
    """Ten lines: a function of the filters is a column everywhere."""

    def largest(layer):
        return abs(layer.filters).max()

    report = kr.analyze(model, columns={"largest": largest})
    for row, filters in zip(report.layers, report.filters, strict=True):
        assert row.own == {"largest": pytest.approx(abs(filters).max())}
    table = report.table()
    assert table.header[-2:] == ["largest", "state"]
    assert f"{report.layers[0].own['largest']:.3f}" in str(report)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["layers"][0]["largest"] == report.layers[0].own["largest"]
    report.to_csv(tmp_path / "report.csv")
    assert "largest" in (tmp_path / "report.csv").read_text().splitlines()[0]
    report.to_html(tmp_path / "report.html")
    assert "<th>largest</th>" in (tmp_path / "report.html").read_text()


def test_a_column_added_to_the_table_of_columns(model, monkeypatch):
    """It takes one line in `LayerReport`, as here in a class made of it."""

    @dataclasses.dataclass(frozen=True)
    class Wider(columns.LayerReport):
        z: int = columns.column("z", lambda layer: len(layer.filters))

    monkeypatch.setattr(analysis, "LayerReport", Wider)
    report = kr.analyze(model)
    assert [row.z for row in report.layers][:2] == [27, 81]
    assert report.table().header[-2:] == ["z", "state"]
    assert report.to_dict()["layers"][0]["z"] == 27


@pytest.mark.parametrize(
    ("own", "error", "message"),
    [
        ({"n_r": len}, ValueError, "'n_r', which every report has"),
        ({"mean cos": len}, ValueError, "'mean cos', which every report has"),
        ({"x": 3}, TypeError, "mapping from headings to functions"),
        (len, TypeError, "mapping from headings to functions"),
        (
            {"x": lambda layer: layer.filters},
            TypeError,
            "'x' returned ndarray for the layer 'stem'",
        ),
    ],
)
def test_columns_that_cannot_be(model, own, error, message):
    with pytest.raises(error, match=message):
        kr.analyze(model, columns=own)
