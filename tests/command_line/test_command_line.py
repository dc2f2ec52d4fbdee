"""`keras-redundancy` as a process: files in, files out, words on stderr."""

import json
import os
import subprocess
import sys
import tomllib

import keras
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import cli
from keras_redundancy.deploy import runtimes
from tests import models
from tests.command_line.running import (
    PATHS,
    ROOT,
    command,
    names,
    process,
)

CUSTOM = """
import keras

@keras.saving.register_keras_serializable("own")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


def test_report(folder, tmp_path, command_here):
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    done = process(
        folder,
        *("report", "model.keras", "--tau", 0.99, "--json"),
        *("--html", page, "--csv", table),
    )
    # Nothing of TensorFlow, neither as it starts nor as it runs.
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout
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
    path = tmp_path / "small.keras"
    arguments = ("prune", "model.keras", *how, "-o", path)
    code, printed, said = command_here(*arguments)
    assert code == 0, said
    # A progress bar is not for the next command in a pipe.
    assert "/layer" not in printed
    assert ("/layer" in said) == ("--data" in how)
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
    code, printed, _ = command_here("diff", "model.keras", path, "--json")
    found = json.loads(printed)
    assert found["layers"]["one"][0]["units"] == 20
    assert found["layers"]["one"][1]["units"] == small.get_layer("one").units
    assert found["total"][1]["parameters"] == small.count_params()


def test_sensitivity(command_here):
    code, printed, said = command_here(
        *("sensitivity", "model.keras", "--data", "data.npz"),
        *("--ratio", 0.5, "--json"),
    )
    assert code == 0, said
    found = json.loads(printed)
    assert found["base"]["score"] == 1
    assert [part["layers"] for part in found["parts"]] == [["one"], ["two"]]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras exports to LiteRT on TensorFlow",
)
def test_export(folder, tmp_path, command_here, monkeypatch):
    monkeypatch.setattr(runtimes, "LEAST_SECONDS", 0.0)
    small, file = tmp_path / "small.keras", tmp_path / "small.tflite"
    options = ("--ratio", 0.5, "--round-to", 4, "-o", small)
    code, _, said = command_here("prune", "model.keras", *options)
    assert code == 0, said
    widths = [x.units for x in keras.models.load_model(small).layers[1:-1]]
    assert {width % 4 for width in widths} == {0}
    options = ("--data", "x.npy", "--beside", "model.keras", "-o", file)
    code, printed, said = command_here("export", small, *options, "--json")
    assert code == 0, said
    found = json.loads(printed)
    assert found["file"]["bytes"] == file.stat().st_size
    assert found["file"]["difference"] < 1e-5
    assert found["beside"]["parameters"] > found["file"]["parameters"]
    code, _, said = command_here("export", small, *options)
    assert (code, "exists" in said) == (2, True)


def test_layers_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(CUSTOM)
    scope = {"__name__": "mine"}
    exec(CUSTOM, scope)
    inputs = keras.Input((4,))
    outputs = layers.Dense(3)(scope["Twice"]()(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "own.keras")
    code, printed, said = command(tmp_path, "report", "own.keras")
    assert (code, printed) == (2, "")
    assert "--import MODULE" in said
    assert "Traceback" not in said
    # In this process, which must not know the layer nor what it imports.
    keras.saving.get_custom_objects().pop("own>Twice")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = cli.main(["report", "own.keras", "--import", "mine"])
    del sys.modules["mine"]
    printed, said = capsys.readouterr()
    assert code == 0, said
    assert "of 3 units are redundant" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("report missing.keras", "There is no file 'missing.keras'"),
        ("report data.npz", "cannot be loaded: it has to be a .keras file"),
        ("report one.weights.h5", "perhaps weights alone"),
        ("report model.keras --tau 1.5", "--tau is 1.5"),
        ("report model.keras --html no/page.html", "There is no folder"),
        ("report model.keras --import nothing", "No module named 'nothing'"),
        ("prune model.keras --tau 2 -o small.keras", "--tau is 2.0"),
        (
            "prune model.keras --target-flops 50 -o s.keras",
            "--target-flops is 50.0",
        ),
        ("prune model.keras --tau 0.9 -o small.h5", "end in .keras"),
        ("prune model.keras --tau 0.9 -o no/small.keras", "There is no folder"),
        ("prune model.keras --tau 0.9 --skip x -o s.keras", "matches no layer"),
        (
            "prune model.keras --ratio 0.5 --data no.npy -o s.keras",
            "There is no file 'no.npy'",
        ),
        ("sensitivity model.keras --data x.npy", "has no array y"),
        (
            "sensitivity two.keras --data b.npz",
            "has the arrays b, y, but the inputs of the model are named a, b",
        ),
        ("prune two.keras --ratio 0.5 --data x.npy -o s.keras", "named a, b"),
        (
            "sensitivity model.keras --data other.npz",
            "y of the shape (7,)",
        ),
        ("sensitivity model.keras --data data.npz --ratio 2", "--ratio is 2.0"),
        ("diff model.keras missing.keras", "There is no file"),
        ("export model.keras -o small.txt", "has the suffix .txt"),
        ("export model.keras -o no/small.onnx", "There is no folder"),
        ("export model.keras -o x.tflite --quantize int8", "needs data="),
    ],
)
def test_what_cannot_be_done(
    arguments, words, folder, two_inputs, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    before = names(folder)
    assert cli.main(arguments.split()) == 2
    printed, said = capsys.readouterr()
    assert said.startswith("keras-redundancy: error: ")
    assert words in said
    assert printed == ""
    assert names(folder) == before


def test_an_argument_is_missing(command_here):
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


WITHOUT_BACKEND = """
import sys
from keras_redundancy_command import main
try:
    main(sys.argv[1:])
finally:
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not loaded & {"tensorflow", "jax", "torch", "keras", "numpy"}
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "keras-redundancy prune model.keras --tau 0.9 -o"),
        (["prune", "--help"], "--target-flops"),
        (["--version"], kr.__version__),
        (["prune", "model.keras"], ""),
    ],
    ids=["help", "help of a subcommand", "version", "a mistake"],
)
def test_help_imports_no_backend(arguments, words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_BACKEND, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": PATHS},
    )
    assert done.returncode == (0 if words else 2), done.stderr
    assert words in done.stdout
    assert "Error" not in done.stderr


def test_the_entry_point_is_the_module_beside_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    entry = project["project"]["scripts"]["keras-redundancy"]
    assert entry == "keras_redundancy_command:main"
    found = project["tool"]["setuptools"]["packages"]["find"]
    inside = [ROOT / x / "keras_redundancy_command" for x in found["where"]]
    assert sum(path.is_dir() for path in inside) == 1
