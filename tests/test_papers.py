"""The scripts of `examples/papers` draw figures of small networks."""

import importlib
import json
import sys

import pytest

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
            "--figure 1 --widths 8 --depths 1 2",
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
            "--table 1 --epochs 2 --floor 15 --settings none package",
            "times smaller",
        ),
        ("rare", "--figure 1 --hidden 12 12", "training loss"),
    ],
)
def test_figures(script, arguments, words, run, tmp_path):
    picture = tmp_path / "new" / "picture.png"
    assert words in run(script, arguments, "--plot", str(picture))
    assert picture.stat().st_size > 3000


def test_results_are_kept(run, monkeypatch):
    arguments = "--table 2 --hidden 12 12"
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
