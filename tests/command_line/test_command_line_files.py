"""Files of the command: of older versions, broken, and written."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import pytest

from keras_redundancy import cli
from keras_redundancy_command import without_startup_lines
from tests import models
from tests.command_line.running import names

# --- files of older versions ------------------------------------------------


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


def test_a_compiled_model_that_was_never_trained(tmp_path, command_here):
    """Keras warns that the optimizer in the file has no variables."""
    model = models.mlp()
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    paths = [tmp_path / "model.keras", "-o", tmp_path / "small.keras"]
    code, _, said = command_here("prune", *paths, "--ratio", 0.2)
    assert (code, "Skipping" in said) == (0, False), said


def test_what_tensorflow_writes_as_it_starts_is_not_shown(capfd):
    with without_startup_lines():
        os.write(2, b"I0000 00:00:17 port.cc:153] oneDNN\nfully_quantize: 0\n")
        os.write(2, b"E0000 00:00:17 is an error\n")
    assert capfd.readouterr().err == "E0000 00:00:17 is an error\n"


# --- empty and broken files -------------------------------------------------


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


# --- what is written --------------------------------------------------------


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


@pytest.mark.parametrize(
    "arguments",
    [("report", "--tau", 0.5, "--html"), ("prune", "--ratio", 0.3, "-o")],
    ids=["report", "prune"],
)
def test_a_folder_is_not_replaced(arguments, folder, tmp_path, command_here):
    out = tmp_path / "out.keras"
    out.mkdir()
    (out / "thesis.txt").touch()
    name, *options = arguments
    code, _, said = command_here(name, folder / "model.keras", *options, out)
    assert code != 0
    assert "is a folder" in said
    assert [*out.iterdir()] == [out / "thesis.txt"]
