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

from tests import models
from tests.fit_and_prune_run import data, network, run
from tests.test_one_fit import Recorder


class Crash(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def test_what_was_interrupted_ends_as_if_it_was_not(tmp_path):
    results = []
    for name, crash in (("whole", []), ("parts", [Crash(3)])):
        options = {"checkpoint": tmp_path / name, "seed": 7}
        keras.utils.set_random_seed(0)
        model = network(noise=True)
        if crash:
            with pytest.raises(KeyboardInterrupt):
                run(model, callbacks=crash, **options)
        results.append(run(model, **options))
    whole, parts = results
    assert parts.history.epoch == whole.history.epoch
    for name, values in whole.history.history.items():
        np.testing.assert_allclose(
            parts.history.history[name], values, rtol=1e-4, err_msg=name
        )
    models.assert_same_function(whole.model, parts.model, data()[0])


@pytest.mark.parametrize("cuts", [True, False])
def test_the_best_model_outlives_several_interruptions(cuts, tmp_path):
    """Spoiled by too deep a cut, or too high a rate: it is of epochs ago."""
    rate = 1e-2
    if not cuts:  # After three epochs.
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [24], [1e-2, 100.0]
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
    first = 5 if cuts else 3
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
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        run(network(), checkpoint=tmp_path, callbacks=[Crash(3)])
    with pytest.warns(UserWarning, match=r"goes on after epoch 3\. What Recor"):
        run(network(), checkpoint=tmp_path, callbacks=[recorder])
    assert recorder.told == ["begin", 3, 4, 5, "end"]


def test_a_killed_process_ends_with_the_same_result(tmp_path):
    """Killed as it comes: while it starts, trains, cuts or saves."""
    command = [sys.executable, "-m", "tests.fit_and_prune_run"]
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    subprocess.run([*command, tmp_path / "a", whole], check=True)
    folder, kills = tmp_path / "b", 0
    for wait in (0.3, 0.9):
        process = subprocess.Popen([*command, folder, parts])
        while process.poll() is None and not (folder / "state.json").exists():
            time.sleep(0.01)
        time.sleep(wait)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    subprocess.run([*command, folder, parts], check=True)
    assert kills
    expected, found = (json.loads(x.read_text()) for x in (whole, parts))
    assert found["epochs"] == expected["epochs"] == list(range(6))
    assert found["sizes"] == expected["sizes"]
    for name in ("losses", "value", "weights"):
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name
        )


def test_a_lambda_comes_back(tmp_path):
    def build():
        inputs = keras.Input((8,))
        x = layers.Dense(12, activation="relu")(inputs)
        x = layers.Lambda(lambda x: 2 * x, name="twice")(x)
        model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
        loss = "sparse_categorical_crossentropy"
        model.compile("sgd", loss, metrics=["accuracy"])
        return model

    with pytest.raises(KeyboardInterrupt):
        run(build(), checkpoint=tmp_path, callbacks=[Crash(2)])
    with pytest.warns(UserWarning, match="Crash kept for themselves"):
        found = run(build(), checkpoint=tmp_path, callbacks=[Crash(9)])
    assert found.history.epoch == list(range(6))


def test_folders_that_hold_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files, such as 'notes"):
        run(network(), checkpoint=tmp_path)
    run(network(), checkpoint=tmp_path / "new", epochs=1)
    other = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    other.compile("adam", "mse")
    with pytest.raises(ValueError, match="the training of another model"):
        run(other, checkpoint=tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="has to be a folder to write to"):
        run(network(), checkpoint=tmp_path / "file")


def test_files_of_others_are_left_alone(tmp_path):
    """Those that came later: at first the folder has to be empty."""
    run(network(), checkpoint=tmp_path, epochs=3)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "writable").write_text("mine")
    (tmp_path / "logs").mkdir()
    found = run(network(), checkpoint=tmp_path, epochs=5)
    assert found.history.epoch == list(range(5))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"notes.txt", "writable", "logs", "state.json"} < names
    assert (tmp_path / "writable").read_text() == "mine"
    files = json.loads((tmp_path / "state.json").read_text())["files"]
    ours = {Path(x).stem for x in names if x.endswith((".keras", ".npz"))}
    assert ours == set(files.values())


@pytest.mark.parametrize("text", ["{}", "[]", "no json"])
def test_a_state_of_something_else(text, tmp_path):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ValueError, match="is no state of a training by fit"):
        run(network(), checkpoint=tmp_path)
    assert (tmp_path / "state.json").read_text() == text
