"""Files for the command to work on."""

import shutil

import keras
import numpy as np
import pytest
from keras import layers

from keras_redundancy import cli


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
    model.save_weights(folder / "one.weights.h5")
    labels = model.predict(x, verbose=0).argmax(axis=-1)
    np.savez(folder / "data.npz", x=x, y=labels)
    np.savez(folder / "other.npz", x=x, y=labels[:7])
    np.save(folder / "x.npy", x)
    return folder


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


@pytest.fixture
def files(folder, tmp_path):
    for name in ("model.keras", "data.npz", "x.npy"):
        shutil.copy(folder / name, tmp_path)
    model = keras.models.load_model(folder / "model.keras")
    model.save(tmp_path / "model.h5")
    return tmp_path
