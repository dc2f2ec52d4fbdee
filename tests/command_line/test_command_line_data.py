"""Data of the command: several inputs, arrays without names, text."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.npz", "has no arrays, but has to have one named x"),
        ("words.npz", "it is neither of numpy.savez nor of numpy.save."),
        ("objects.npz", "it holds Python objects, which are not read."),
    ],
)
def test_files_without_arrays(name, words, folder, tmp_path, command_here):
    np.savez(tmp_path / "none.npz")
    (tmp_path / "words.npz").write_text("This is not what it should be.")
    np.savez(tmp_path / "objects.npz", x=np.asarray([None, "a"]))
    code, _, said = command_here(
        *("prune", "model.keras", "--ratio", 0.5),
        *("--data", tmp_path / name, "-o", tmp_path / "small.keras"),
    )
    assert code == 2
    assert words in said
    assert "pickle" not in said
