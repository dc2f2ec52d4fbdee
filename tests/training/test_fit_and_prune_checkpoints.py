"""What is kept on disk while `fit_and_prune` runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.fit_and_prune_run import data, main, network, run
from tests.training.test_one_fit import Recorder


class Crash(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("cuts", [True, False])
def test_the_best_model_outlives_several_interruptions(cuts, tmp_path):
    """Spoiled by too deep a cut, or too high a rate: it is of epochs ago."""
    rate = 2e-2
    if not cuts:  # After three epochs.
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [12], [2e-2, 100.0]
        )
    model = network(optimizer=keras.optimizers.Adam(rate))
    deep = [{"ratio": 0.2}, {"ratio": 0.99, "absorb": "drop"}]
    options = {
        "prune": deep if cuts else [],
        "floor": 0.8 if cuts else 0.6,
        "epochs": 9,
        "seed": 7,
        "patience": 9,
        "every": 2,
    }
    whole = run(model, checkpoint=tmp_path / "whole", **options)
    parts = options | {"checkpoint": tmp_path / "parts"}
    first = 6 if cuts else 3
    with pytest.raises(KeyboardInterrupt):
        run(model, callbacks=[Crash(first)], **parts)
    with (
        pytest.raises(KeyboardInterrupt),
        pytest.warns(UserWarning, match="begin anew"),
    ):
        run(model, callbacks=[Crash(7)], **parts)
    found = run(model, **parts)
    assert whole.epoch <= first
    assert (found.epoch, found.value) == (whole.epoch, whole.value)
    models.assert_same_function(whole.model, found.model, data()[0])


def test_a_finished_training_is_read_back(tmp_path):
    model = network()
    found = run(model, checkpoint=tmp_path)
    again = run(model, checkpoint=tmp_path)
    assert str(again) == str(found)
    models.assert_same_function(found.model, again.model, tolerance=0)
    longer = run(model, checkpoint=tmp_path, epochs=8)
    assert longer.history.epoch == list(range(8))


def test_what_callbacks_lost_is_said(tmp_path):
    model, recorder = network(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        run(model, checkpoint=tmp_path, callbacks=[Crash(3)])
    with pytest.warns(UserWarning, match=r"goes on after epoch 3\. What Recor"):
        run(model, checkpoint=tmp_path, callbacks=[recorder])
    assert recorder.told == ["begin", 3, 4, 5, "end"]


def test_a_killed_process_ends_with_the_same_result(tmp_path):
    """Killed as it comes: while it starts, trains, cuts or saves."""
    command = [sys.executable, "-m", "tests.fit_and_prune_run"]
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    main(tmp_path / "a", whole)
    folder = tmp_path / "b"
    process = subprocess.Popen([*command, folder, parts])
    while process.poll() is None and not (folder / "state.json").exists():
        time.sleep(0.01)
    time.sleep(0.3)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*command, folder, parts], check=True)
    expected, found = (json.loads(x.read_text()) for x in (whole, parts))
    assert found["epochs"] == expected["epochs"] == list(range(6))
    assert found["sizes"] == expected["sizes"]
    for name in ("loss", "val_loss", "value", "weights"):
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name
        )


def test_a_lambda_comes_back(tmp_path):
    inputs = keras.Input((8,))
    x = layers.Dense(12, activation="relu")(inputs)
    x = layers.Dense(12, activation="relu")(x)
    x = layers.Lambda(lambda x: 2 * x, name="twice")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    loss = "sparse_categorical_crossentropy"
    optimizer = keras.optimizers.Adam(1e-2)
    model.compile(optimizer, loss, metrics=["accuracy"])
    with pytest.raises(KeyboardInterrupt):
        run(model, checkpoint=tmp_path, callbacks=[Crash(2)])
    with pytest.warns(UserWarning, match="Crash kept for themselves"):
        found = run(model, checkpoint=tmp_path, callbacks=[Crash(9)])
    assert found.history.epoch == list(range(6))


def small(width=6, seed=3, activation="relu", **compiled):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(width, activation),
            layers.Dense(3, activation="softmax"),
        ]
    )
    loss = "sparse_categorical_crossentropy"
    arguments = {"optimizer": "sgd", "loss": loss, "metrics": ["accuracy"]}
    model.compile(**arguments | compiled)
    return model


def start(folder, model=None, data=data, **options):
    """A training of one epoch, or more, on few samples."""
    options = {
        "prune": {"ratio": 0.2},
        "epochs": 1,
        "floor": 0.0,
        "validation_data": data(32, seed=1),
        "verbose": 0,
        "checkpoint": folder,
    } | options
    return kr.fit_and_prune(model or small(), *data(64), **options)


def with_lambda():
    name_modules = layers.Lambda(lambda x: keras.ops.relu(x))
    hidden = [layers.Dense(6), layers.Dense(4)]
    return compiled([*hidden, name_modules, layers.Dense(3)])


def with_a_frozen_variable():
    model = compiled([layers.Dense(6, name="frozen"), layers.Dense(3)])
    model.layers[0].kernel.trainable = False
    return model


def without_decay_of_one():
    model = compiled([layers.Dense(6), layers.Dense(3)])
    optimizer = keras.optimizers.AdamW(weight_decay=5.0)
    optimizer.exclude_from_weight_decay([model.layers[0].kernel])
    return compiled(model.layers, optimizer)


def with_a_loss_that_reads_a_layer():
    model = compiled([layers.Dense(6), layers.Dense(3)])
    kernel = model.layers[0].kernel

    def loss(y, found):
        return keras.ops.mean(found**2) + keras.ops.sum(kernel**2)

    return compiled(model.layers, "sgd", loss)


@keras.saving.register_keras_serializable()
class Scaled(keras.Model):
    def train_step(self, *args):
        assert self.first is self.layers[1]
        assert self.scale == 3.0
        return super().train_step(*args)


def with_attributes():
    model = compiled([layers.Dense(6), layers.Dense(3)])
    own = Scaled(model.inputs, model.outputs)
    own.scale, own.first = 3.0, own.layers[1]
    own.compile("adam", "mse")
    return own


def compiled(parts, optimizer="adam", loss="mse"):
    model = keras.Sequential([keras.Input((8,)), *parts])
    model.compile(optimizer, loss)
    return model


@pytest.mark.parametrize(
    "make",
    [
        with_lambda,
        with_a_frozen_variable,
        without_decay_of_one,
        with_a_loss_that_reads_a_layer,
        with_attributes,
    ],
)
def test_a_training_goes_on_as_if_nothing_had_happened(make, tmp_path):
    options = {
        "data": lambda *args, **kwargs: (data(*args)[0], np.zeros((64, 3))),
        "validation_data": None,
        "monitor": "loss",
        "floor": 1e9,
        "seed": 1,
        "epochs": 3,
    }

    def made():
        keras.utils.set_random_seed(2)
        return make()

    whole = start(tmp_path / "whole", made(), **options)
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        start(parts, made(), callbacks=[Crash(1)], **options)
    found = start(parts, made(), **options)
    assert len(found.cuts) == 2
    for name in ("loss", "parameters"):
        wanted = whole.history.history[name]
        np.testing.assert_allclose(found.history.history[name], wanted, 1e-5)


def test_what_a_checkpoint_cannot_keep_is_said_at_the_start(tmp_path):
    first = layers.Dense(6)
    tied = layers.Lambda(
        lambda x: keras.ops.matmul(x, keras.ops.transpose(first.kernel)),
        output_shape=(8,),
        name="tied",
    )
    model = compiled([first, tied, layers.Dense(3)])
    with pytest.raises(ValueError, match="cannot keep the Lambda tied"):
        start(tmp_path, model)
    assert not (tmp_path / "state.json").exists()


class Applied(layers.Layer):
    """Its config lacks what its constructor takes."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


class Forgetful(Applied):
    def get_config(self):
        return {"name": self.name}


class Negative:
    def __call__(self, x):
        return -x


@pytest.mark.parametrize("kind", [Applied, Forgetful])
def test_a_layer_that_keras_does_not_read_again(kind, tmp_path):
    own = kind(Negative())
    model = compiled([layers.Dense(6), layers.Dense(4), own, layers.Dense(3)])
    with pytest.raises(ValueError, match="checkpoint= cannot keep 'sequential"):
        start(tmp_path, model, monitor="loss", floor=1e9)
    assert not files_in(tmp_path)


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def with_data(change_x, change_y):
    def changed(*args, **kwargs):
        x, y = data(*args, **kwargs)
        return change_x(x), change_y(y)

    return changed


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ({"seed": 4}, {}, "model['weights'] was 75 ["),
        ({"width": 7}, {}, "model['weights'] was 75 ["),
        ({"activation": "tanh"}, {}, "model['layers'] was 3 ["),
        (
            {"optimizer": "adam"},
            {},
            "model['optimizer']['class'] was SGD",
        ),
        ({"loss": "mse"}, {}, "model['loss'] was sparse_categorical_crossent"),
        ({}, {"prune": {"ratio": 0.3}}, "prune['ratio'] was 0.2, is 0.3. Pass"),
        (
            {},
            {"prune": {"ratio": 0.2, "skip": "dense.*"}},
            "prune['skip'] was not given, is dense.*",
        ),
        ({}, {"prune": lambda model: model}, "prune was {'ratio': 0.2}, is "),
        ({}, {"floor": 0.1}, "floor was 0.0, is 0.1"),
        ({}, {"seed": 5}, "seed was None, is 5"),
        ({}, {"batch_size": 16}, "batch_size was not given, is 16"),
        (
            {},
            {"validation_data": data(32, seed=2)},
            "validation_data was ['float32 (32, 8) [",
        ),
        (
            {},
            {"data": with_data(lambda x: x, lambda y: 2 - y)},
            "y was int64 (64,) [",
        ),
        (
            {},
            {"data": with_data(lambda x: 2 * x, lambda y: y)},
            "x was float32 (64, 8) [",
        ),
    ],
)
def test_another_training_is_refused(model, options, words, tmp_path):
    start(tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(ValueError, match="holds another training") as caught:
        start(tmp_path, small(**model), **options)
    assert words in str(caught.value)
    assert "Pass another folder as checkpoint=" in str(caught.value)
    assert files_in(tmp_path) == before


def test_what_was_made_anew_is_the_same_training(tmp_path):
    """Other objects and names, but the same weights, data and options."""
    start(tmp_path)
    keras.backend.clear_session()
    small()  # The names of the layers of the next one are counted on.
    found = start(tmp_path, small(), epochs=2, callbacks=[])
    assert found.history.epoch == [0, 1]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="has to be a folder to write to"):
        start(tmp_path / "file")


def test_files_of_others_are_left_alone(tmp_path):
    """Also those that a training could have written by its habits."""
    names = (
        "notes.txt",
        "epoch-01.keras",
        "epoch-00001.keras",
        "best-00002.npz",
    )
    for name in names:
        (tmp_path / name).write_text("mine")
    start(tmp_path, epochs=3)
    names += ("writable", "epoch-00003.npz", "epoch-00003.keras")
    for name in names:
        (tmp_path / name).write_text("mine")
    (tmp_path / "logs").mkdir()
    found = start(tmp_path, epochs=5)
    assert found.history.epoch == list(range(5))
    assert all((tmp_path / name).read_text() == "mine" for name in names)
    kept = {path.name for path in tmp_path.iterdir()} - {*names, "logs"}
    files = json.loads((tmp_path / "state.json").read_text())["files"]
    ours = {Path(x).stem for x in kept - {"state.json"}}
    assert ours == set(files.values())


def test_bfloat16_is_read_back_exactly(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    try:
        first = start(tmp_path, small(optimizer="adam")).model
        again = start(tmp_path, small(optimizer="adam")).model
        assert {x.dtype for x in again.weights} == {"bfloat16"}
        models.assert_same_function(first, again, tolerance=0)
        longer = start(tmp_path, small(optimizer="adam"), epochs=2)
        assert longer.history.epoch == [0, 1]
    finally:
        keras.config.set_dtype_policy("float32")


class Notes(keras.callbacks.Callback):
    """Puts what is no number into the logs."""

    def on_epoch_end(self, epoch, logs=None):
        logs |= {"per_class": np.arange(3.0), "note": f"epoch {epoch}"}


def test_logs_that_are_no_numbers(tmp_path):
    start(tmp_path, callbacks=[Notes()])
    found = start(tmp_path, epochs=1)
    assert found.history.history["per_class"] == [[0, 1, 2]]
    assert found.history.history["note"] == ["epoch 0"]


@pytest.mark.parametrize("text", ["{}", "[]", "no json"])
def test_a_state_of_something_else(text, tmp_path):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ValueError, match="is no state of a training by fit"):
        run(network(), checkpoint=tmp_path)
    assert (tmp_path / "state.json").read_text() == text
