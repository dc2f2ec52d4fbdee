"""Keras without `keras_redundancy`, for the files that it is to open."""

import json
import subprocess
import sys

import keras
import numpy as np

from tests import models


def answer_of(model, data):
    """In the way that takes least time to start: compiled on JAX alone."""
    if keras.backend.backend() == "jax":
        return model.predict_on_batch(data)
    return models.outputs(model, data)[0]


class StockKeras:
    """A process that has no `keras_redundancy`, and opens what it is given."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", OPEN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def opens(self, path):
        """It loads a model from a file."""
        self._does(path=str(path), data=None)

    def opens_and_trains(self, model, data, folder):
        """It loads a model, which answers alike, and takes a step."""
        path = folder / "small.keras"
        model.save(path)
        arrays = folder / "data.npz"
        np.savez(arrays, data=data, answer=answer_of(model, data))
        self._does(path=str(path), data=str(arrays))

    def _does(self, **what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        error = json.loads(self.process.stdout.readline())
        assert error is None, error

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


OPEN = """
import json, sys, traceback
sys.modules["keras_redundancy"] = None  # any import of it fails
import keras, numpy as np

def open_and_train(path, data):
    model = keras.models.load_model(path)
    if data is None:
        return
    with np.load(data) as arrays:
        data, answer = arrays["data"], arrays["answer"]
    eagerly = keras.backend.backend() != "jax"
    model.compile("sgd", "mse", run_eagerly=eagerly)
    same = model.predict_on_batch(data)
    np.testing.assert_allclose(same, answer, atol=1e-5 * np.abs(answer).max())
    before = [np.array(x) for x in model.get_weights()]
    assert np.isfinite(model.train_on_batch(data[:4], answer[:4] + 1))
    changed = zip(before, model.get_weights(), strict=True)
    assert any((x != y).any() for x, y in changed)

for line in sys.stdin:
    keras.backend.clear_session(free_memory=False)
    try:
        open_and_train(**json.loads(line))
        error = None
    except Exception:
        error = traceback.format_exc()
    print(json.dumps(error), flush=True)
"""
