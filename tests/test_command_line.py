"""`keras-redundancy` as a process: files in, files out, words on stderr."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import h5py
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
    arguments = map(str, arguments)
    done = subprocess.run(
        [sys.executable, "-m", "keras_redundancy_command", *arguments],
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
        (
            "sensitivity two.keras --data b.npz",
            "has the arrays b, y, but the inputs of the model are named a, b",
        ),
        ("prune two.keras --ratio 0.5 --data x.npy -o s.keras", "named a, b"),
        ("sensitivity model.keras --data other.npz", "(90, 3), but for the"),
        ("sensitivity model.keras --data data.npz --ratio 2", "share of units"),
        ("diff model.keras missing.keras", "There is no file"),
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
        env=os.environ | {"PYTHONPATH": str(ROOT)},
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


# --- models of several inputs, and arrays without names ----------------------


@pytest.fixture(scope="module")
def two_inputs(folder):
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    x = layers.Concatenate()([a, b])
    x = layers.Dense(12, activation="relu", name="one")(x)
    model = keras.Model({"a": a, "b": b}, layers.Dense(3)(x))
    model.save(folder / "two.keras")
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(60, 6)), "b": rng.normal(size=(60, 4))}
    y = model.predict(x, verbose=0).argmax(axis=-1)
    np.savez(folder / "two.npz", **x, y=y, names=np.asarray(["no input"]))
    np.savez(folder / "b.npz", b=x["b"], y=y)
    return x


def test_arrays_by_the_names_of_inputs(
    two_inputs, folder, tmp_path, command_here
):
    path = tmp_path / "small.keras"
    arguments = ("two.keras", "--ratio", 0.5, "--data", "two.npz", "-o", path)
    code, _, said = command_here("prune", *arguments)
    assert code == 0, said
    model = keras.models.load_model(folder / "two.keras")
    expected = kr.prune(model, ratio=0.5, data=two_inputs)
    small = keras.models.load_model(path)
    for a, b in zip(small.weights, expected.weights, strict=True):
        np.testing.assert_allclose(models.numpy(a), models.numpy(b))
    code, printed, said = command_here(
        *("sensitivity", "two.keras", "--data", "two.npz"),
        *("--ratio", 0.5, "--json"),
    )
    assert code == 0, said
    assert json.loads(printed)["base"]["score"] == 1


def test_one_array_without_a_name(folder, tmp_path, command_here):
    x = np.load(folder / "x.npy")
    np.savez(tmp_path / "unnamed.npz", x)
    named = {keras.models.load_model(folder / "model.keras").inputs[0].name: x}
    np.savez(tmp_path / "named.npz", **named)
    files = []
    for data in ("x.npy", tmp_path / "unnamed.npz", tmp_path / "named.npz"):
        files.append(tmp_path / f"small{len(files)}.keras")
        code, _, said = command_here(
            *("prune", "model.keras", "--target-params", 0.6),
            *("--data", data, "-o", files[-1]),
        )
        assert code == 0, said
    models.assert_same_function(*map(keras.models.load_model, files[:2]))
    models.assert_same_function(*map(keras.models.load_model, files[1:]))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="others have no text"
)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_text_as_data(shape, tmp_path, command_here):
    vectorize = layers.TextVectorization(
        output_sequence_length=2, vocabulary=["a", "b", "c"]
    )
    inputs = keras.Input(shape, dtype="string")
    x = layers.Flatten()(layers.Embedding(5, 4)(vectorize(inputs)))
    x = layers.Dense(8, activation="relu")(x)
    keras.Model(inputs, layers.Dense(2)(x)).save(tmp_path / "text.keras")
    x = np.asarray([["a b"], ["c"], ["b a"], ["c c"]] * 5).reshape(20, *shape)
    np.savez(tmp_path / "text.npz", x=x, y=np.arange(20) % 2)
    arguments = (tmp_path / "text.keras", "--data", tmp_path / "text.npz")
    for command in (
        ("prune", *arguments, "--ratio", 0.5, "-o", tmp_path / "small.keras"),
        ("sensitivity", *arguments, "--ratio", 0.5),
    ):
        code, _, said = command_here(*command)
        assert code == 0, said


# --- files of older versions -------------------------------------------------


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_files_of_older_versions(suffix, folder, tmp_path, command_here):
    """Their optimizers have arguments that Keras 3 does not know."""
    model = keras.models.load_model(folder / "model.keras")
    old = tmp_path / f"old{suffix}"
    model.save(tmp_path / "old.h5")
    shutil.move(tmp_path / "old.h5", old)
    with h5py.File(old, "r+") as file:
        config = json.loads(file.attrs["training_config"])
        config["optimizer_config"] = {
            "class_name": "Adam",
            "config": {"lr": 0.001, "decay": 0.0},
        }
        file.attrs["training_config"] = json.dumps(config)
    path = tmp_path / "small.keras"
    arguments = ("prune", old, "--tau", 0.99, "-o", path)
    code, _, said = command_here(*arguments)
    assert code == 0, said
    (line,) = [x for x in said.splitlines() if "without its optimizer" in x]
    assert str(old) in line
    small = keras.models.load_model(path)
    assert not small.compiled
    models.assert_same_function(model, small)
    code, _, said = command_here(*arguments, "--no-compile")
    assert code == 0
    assert "without its optimizer" not in said
    code, printed, _ = command_here("report", old)
    assert (code, "of 35 units are redundant" in printed) == (0, True)


# --- empty and broken files --------------------------------------------------


def cut_short(path, name):
    whole = path.read_bytes()
    short = path.with_name(name)
    short.write_bytes(whole[: len(whole) // 2])
    return short


def damaged(path, name):
    """With other bytes in the middle."""
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 64] = bytes(x ^ 255 for x in whole[middle:][:64])
    other = path.with_name(name)
    other.write_bytes(whole)
    return other


def without_config(path, name):
    other = path.with_name(name)
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(other, "w") as file:
        for entry in given.namelist():
            if entry != "config.json":
                file.writestr(entry, given.read(entry))
    return other


def empty(path, name):
    other = path.with_name(name)
    other.write_bytes(b"")
    return other


def words(path, name):
    other = path.with_name(name)
    other.write_text("This is not what it should be.")
    return other


@pytest.fixture
def files(folder, tmp_path):
    for name in ("model.keras", "data.npz", "x.npy"):
        shutil.copy(folder / name, tmp_path)
    model = keras.models.load_model(folder / "model.keras")
    model.save(tmp_path / "model.h5")
    return tmp_path


def assert_one_sentence(said, path):
    lines = said.strip().splitlines()
    lines = [x for x in lines if x.startswith("keras-redundancy:")]
    (line,) = lines
    assert line.startswith("keras-redundancy: error: ")
    assert path.name in line
    assert said.strip().endswith(line)  # There is no other line after it.


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("harm", [empty, words, cut_short])
def test_broken_models(name, harm, files, command_here):
    broken = harm(files / name, f"broken{Path(name).suffix}")
    small = files / "small.keras"
    for arguments in (
        ("report", broken),
        ("prune", broken, "--tau", 0.9, "-o", small),
        ("diff", files / "model.keras", broken),
    ):
        code, printed, said = command_here(*arguments)
        assert (code, printed) == (2, "")
        assert_one_sentence(said, broken)
    assert not small.exists()


@pytest.mark.parametrize("harm", [damaged, without_config])
def test_broken_parts_of_a_model(harm, files, command_here):
    broken = harm(files / "model.keras", "broken.keras")
    code, printed, said = command_here("report", broken)
    assert (code, printed) == (2, "")
    assert_one_sentence(said, broken)


@pytest.mark.parametrize("name", ["data.npz", "x.npy"])
@pytest.mark.parametrize("harm", [empty, words, cut_short])
def test_broken_data(name, harm, files, command_here):
    broken = harm(files / name, f"broken{Path(name).suffix}")
    small = files / "small.keras"
    code, printed, said = command_here(
        *("prune", files / "model.keras", "--ratio", 0.5),
        *("--data", broken, "-o", small),
    )
    assert (code, printed) == (2, "")
    assert_one_sentence(said, broken)
    assert not small.exists()


def test_damaged_data(files, command_here):
    broken = damaged(files / "data.npz", "broken.npz")
    code, printed, said = command_here(
        "sensitivity", files / "model.keras", "--data", broken
    )
    assert (code, printed) == (2, "")
    assert_one_sentence(said, broken)


# --- what is written ---------------------------------------------------------


def test_what_is_read_is_not_overwritten(files, command_here, monkeypatch):
    monkeypatch.chdir(files)
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    (files / "link.keras").symlink_to(files / "model.keras")
    for arguments in (
        ("prune", "model.keras", "--tau", 0.9, "-o", "model.keras"),
        ("prune", "model.keras", "--tau", 0.9, "-o", "./link.keras"),
        ("prune", "link.keras", "--tau", 0.9, "-o", files / "model.keras"),
        ("report", "model.keras", "--html", "model.keras"),
        ("report", "model.keras", "--csv", files / "model.keras"),
    ):
        code, printed, said = command_here(*arguments)
        assert (code, printed) == (2, "")
        assert "would be overwritten" in said
    (files / "link.keras").unlink()
    assert before == {path.name: path.read_bytes() for path in files.iterdir()}


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
