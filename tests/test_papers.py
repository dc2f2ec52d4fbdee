"""The scripts of `examples/papers` draw figures of small networks."""

import importlib
import json
import sys
import types

import keras
import pytest

RARE = "--hidden 12 --l2 1e-4 --dropout 0.1"
if keras.backend.backend() == "tensorflow":
    RARE += " --gradient-noise 0.1"
SMALL = ["--dataset", "digits", "--seeds", "1", "--epochs", "1"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder with the results of all tests."""
    return tmp_path_factory.mktemp("papers")


@pytest.fixture
def run(kept, capfd):
    """Runs the command of a script, and returns what it printed."""

    def run(script, *arguments):
        command = [*SMALL, "--out", str(kept), *" ".join(arguments).split()]
        importlib.import_module(script).paper.main(command)
        return capfd.readouterr().out

    return run


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        (
            "correlation",
            "--figure 1 --widths 8 --depths 2",
            "Average n_r of the hidden layers at tau",
        ),
        (
            "redundant_features",
            "--figure 1 --depth 11 --scale 0.02 --epochs 0",
            "n_f at tau",
        ),
        ("duplicate_filters", "--figure 1 --widths 9", "kurtosis"),
        ("duplicate_filters", "--figure 5 --widths 9", "SVCCA"),
        ("noiseout", "--figure 2 --epochs 2", "|correlation| by layer"),
        (
            "noiseout",
            "--table 1 --epochs 2 --max-drop 50 --settings gaussian",
            "times smaller",
        ),
        ("rare", f"--figure 2 {RARE} --strengths 20", "weights gone, %"),
    ],
)
def test_figures(script, arguments, words, run, tmp_path):
    picture = tmp_path / "new" / "picture.png"
    assert words in run(script, arguments, "--plot", str(picture))
    assert picture.stat().st_size > 3000


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        pytest.param(
            "redundant_features",
            "--table 3 --depth 8 --taus 0.5 --tune 1 --images 50",
            "tuned, %",
            marks=pytest.mark.skipif(
                keras.backend.backend() != "tensorflow",
                reason="compiling all its networks takes minutes",
            ),
        ),
        ("noiseout", "--table 3", "16.7 times smaller, kr.prune, distilled"),
    ],
)
def test_tables(script, arguments, words, run):
    assert words in run(script, arguments)


def test_results_are_kept(run, monkeypatch):
    arguments = f"--table 2 {RARE}"
    printed = run("rare", arguments)
    assert "Sizes of W" in printed

    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    fail.__name__, fail.__module__ = "perceptron", "rare"
    monkeypatch.setattr(sys.modules["rare"], "perceptron", fail)
    assert run("rare", arguments) == printed
    with pytest.raises(AssertionError, match="trained again"):
        run("rare", arguments, "--strength 2")


def test_results_of_other_settings_are_refused(run, kept, capfd):
    arguments = "--figure 4 --widths 9"
    run("duplicate_filters", arguments)
    for path in kept.glob("duplicate_networks.perceptron-*.json"):
        found = json.loads(path.read_text())
        found["settings"]["epochs"] = 7
        path.write_text(json.dumps(found))
    with pytest.raises(SystemExit):
        run("duplicate_filters", arguments)
    said = capfd.readouterr().err
    assert "results of other settings (epochs: 7, not 1)" in said
    assert "pass another folder as --out" in said
    path.write_text("no results")
    with pytest.raises(SystemExit):
        run("duplicate_filters", arguments)
    assert "holds no results" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--figure 9", "There is no figure 9"),
        ("--table x", "--table 1"),
        ("--figure 4 --dataset mnist --data nowhere", "mnist.npz"),
        ("--table 1 --plot a.png", "has no picture"),
    ],
)
def test_bad_input(arguments, words, run, capfd):
    with pytest.raises(SystemExit):
        run("correlation", arguments)
    assert words in capfd.readouterr().err


def test_without_data_it_says_where_to_put_them(run, capfd, monkeypatch):
    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.delenv("KERAS_REDUNDANCY_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(SystemExit):
        run("correlation", "--figure 4 --dataset mnist")
    assert "Put mnist.npz" in capfd.readouterr().err


class Units:
    """Stands for a model of so many units."""

    def __init__(self, units):
        self.units = units

    def count_params(self):
        return self.units


@pytest.mark.parametrize(("one_by_one", "tried"), [(True, 31), (False, 10)])
def test_units_go_until_the_floor_is_missed(one_by_one, tried, monkeypatch):
    from lenet_networks import Cutter

    counts = []

    def merged(model, images, count, optimizer):
        counts.append(count)
        return Units(model.units - count)

    def accuracy(model, held_out):
        return 97.0 if model.units >= 70 else 96.0

    monkeypatch.setattr("lenet_networks.kr.merge_correlated", merged)
    monkeypatch.setattr("lenet_networks.eager_accuracy", accuracy)
    data = types.SimpleNamespace(train=([],), held_out=None)
    cut = Cutter("none", data, 96.95, one_by_one)
    # The last one is the first to miss the floor: it is trained on.
    assert cut(Units(100)).units == 69
    assert len(counts) == tried
