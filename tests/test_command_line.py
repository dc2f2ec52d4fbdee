"""`keras-redundancy` as a process: files in, files out, words on stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import cli
from tests import models

ROOT = Path(__file__).parent.parent
CUSTOM = """
import keras

@keras.saving.register_keras_serializable("own")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


def command(folder, *arguments):
    """Its exit code, what it printed, and what it said of errors."""
    done = subprocess.run(
        [sys.executable, "-m", "keras_redundancy.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    said = done.stderr[done.stderr.find("keras-redundancy: error:") :]
    return done.returncode, done.stdout, said


@pytest.fixture
def command_here(folder, monkeypatch, capsys):
    """As `command`, in this process: one takes seconds to start."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        code = cli.main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a model, what it is to be fed, and what it answers."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(20, activation="relu", name="one"),
            layers.Dense(12, activation="relu", name="two"),
            layers.Dense(3, name="last"),
        ]
    )
    (kernel, bias) = model.get_layer("one").get_weights()
    kernel[:, 4] = kernel[:, 7]
    model.get_layer("one").set_weights([kernel, bias])
    x = np.random.default_rng(0).normal(size=(90, 6)).astype("float32")
    model.compile(keras.optimizers.Adam(1e-12), "mse")
    model.fit(x, x[:, :3], verbose=0)
    model.save(folder / "model.keras")
    labels = model.predict(x, verbose=0).argmax(axis=-1)
    np.savez(folder / "data.npz", x=x, y=labels)
    np.savez(folder / "other.npz", x=x, y=labels[:7])
    np.save(folder / "x.npy", x)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_report(folder, tmp_path, command_here):
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    code, printed, _ = command(
        folder,
        *("report", "model.keras", "--tau", 0.99, "--json"),
        *("--html", page, "--csv", table),
    )
    assert code == 0
    found = kr.analyze(keras.models.load_model(folder / "model.keras"), 0.99)
    assert json.loads(printed) == json.loads(json.dumps(found.to_dict()))
    assert "Redundancy of" in page.read_text()
    assert len(table.read_text().splitlines()) == 1 + 3
    code, printed, _ = command_here("report", "model.keras")
    assert (code, "of 35 units are redundant" in printed) == (0, True)
    several = ("report", "model.keras", "--tau", 0.2, 0.99, "--json")
    code, printed, _ = command_here(*several)
    assert json.loads(printed)["taus"] == [0.2, 0.99]


@pytest.mark.parametrize(
    "how",
    [
        ("--tau", 0.99),
        ("--ratio", 0.5, "--skip", "two"),
        ("--target-params", 0.6, "--data", "x.npy", "--no-compile"),
    ],
)
def test_prune_and_diff(how, folder, tmp_path, command_here):
    def run(*arguments):
        """One of the three as a process."""
        if "--tau" in how:
            return command(folder, *arguments)
        return command_here(*arguments)

    path = tmp_path / "small.keras"
    code, printed, said = run("prune", "model.keras", *how, "-o", path)
    assert code == 0, said
    assert ("/kernel" in printed) == ("--data" in how)  # of a progress bar
    assert f"saved {path}" in printed
    assert names(tmp_path) == ["small.keras"]
    model = keras.models.load_model(folder / "model.keras")
    small = keras.models.load_model(path)
    assert small.count_params() < model.count_params()
    assert small.compiled == ("--no-compile" not in how)
    if "--tau" in how:
        models.assert_same_function(model, small)
        assert small.get_layer("one").units == 19
    if "--skip" in how:
        assert small.get_layer("two").units == 12
    code, printed, _ = run("diff", "model.keras", path, "--json")
    found = json.loads(printed)
    assert found["layers"]["one"][0]["units"] == 20
    assert found["layers"]["one"][1]["units"] == small.get_layer("one").units
    assert found["total"][1]["parameters"] == small.count_params()


def test_sensitivity(folder):
    code, printed, said = command(
        folder,
        *("sensitivity", "model.keras", "--data", "data.npz"),
        *("--ratio", 0.5, "--json"),
    )
    assert code == 0, said
    found = json.loads(printed)
    assert found["base"]["score"] == 1
    assert [part["layers"] for part in found["parts"]] == [["one"], ["two"]]


def test_layers_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(CUSTOM)
    scope = {"__name__": "mine"}
    exec(CUSTOM, scope)
    inputs = keras.Input((4,))
    outputs = layers.Dense(3)(scope["Twice"]()(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "own.keras")
    code, _, said = command(tmp_path, "report", "own.keras")
    assert code == 2
    assert "--import MODULE" in said
    imported = ("report", "own.keras", "--import", "mine")
    code, printed, said = command(tmp_path, *imported)
    assert code == 0, said
    assert "of 3 units are redundant" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("report missing.keras", "There is no file 'missing.keras'"),
        ("report data.npz", "cannot be loaded"),
        ("report model.keras --tau 1.5", "Pass a number in (0, 1]"),
        ("report model.keras --html no/page.html", "There is no folder"),
        ("report model.keras --import nothing", "No module named 'nothing'"),
        ("prune model.keras --tau 2 -o small.keras", "tau is 2.0"),
        ("prune model.keras --tau 0.9 -o small.h5", "end in .keras"),
        ("prune model.keras --tau 0.9 -o no/small.keras", "There is no folder"),
        ("prune model.keras --tau 0.9 --skip x -o s.keras", "matches no layer"),
        (
            "prune model.keras --ratio 0.5 --data no.npy -o s.keras",
            "No such file",
        ),
        ("sensitivity model.keras --data x.npy", "has no array y"),
        ("sensitivity model.keras --data other.npz", "(90, 3), but for the"),
        ("sensitivity model.keras --data data.npz --ratio 2", "share of units"),
        ("diff model.keras missing.keras", "There is no file"),
    ],
)
def test_what_cannot_be_done(arguments, words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = names(folder)
    assert cli.main(arguments.split()) == 2
    printed, said = capsys.readouterr()
    assert said.startswith("keras-redundancy: error: ")
    assert words in said
    assert printed == ""
    assert names(folder) == before


def test_an_error_of_the_process(folder, command_here):
    arguments = ("prune", "model.keras", "--tau", 2, "-o", "small.keras")
    code, printed, said = command(folder, *arguments)
    assert (code, printed) == (2, "")
    assert "tau is 2.0" in said
    assert "Traceback" not in said
    with pytest.raises(SystemExit) as ended:
        command_here("prune", "model.keras")
    assert ended.value.code == 2


def test_help_has_examples(tmp_path, command_here, capsys):
    code, printed, _ = command(tmp_path, "--help")
    assert code == 0
    assert "keras-redundancy prune model.keras --tau 0.9 -o" in printed
    with pytest.raises(SystemExit):
        command_here("prune", "--help")
    assert "--target-flops" in capsys.readouterr().out


def test_a_crash_leaves_no_file(folder, tmp_path, monkeypatch):
    """Neither a part of one, nor less of one that was there."""
    path = tmp_path / "small.keras"
    path.write_text("precious")

    def save(self, path):
        Path(path).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save", save)
    arguments = ["prune", folder / "model.keras", "--tau", 0.9, "-o", path]
    with pytest.raises(KeyboardInterrupt):
        cli.main(list(map(str, arguments)))
    assert names(tmp_path) == ["small.keras"]
    assert path.read_text() == "precious"
