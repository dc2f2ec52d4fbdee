"""How long a model takes on this machine, beside another one."""

import time

import keras
import numpy as np

from keras_redundancy import _keras_internals as internals
from keras_redundancy.calibration.observer import unchanged

# Each model runs so often at least, and for so many seconds.
LEAST_RUNS, LEAST_SECONDS = 7, 0.25


class Stopwatch:
    """Times smaller models against the one that they were made from."""

    def __init__(self, model, batch_size: int):
        """Args:
        model: the original. It predicts, and its variables are what they
            were after that.
        batch_size: of the samples that are predicted at once.

        Raises:
            ValueError: an input has an open size.
        """
        self._batch = _some_batch(model, batch_size)
        self._model = _Predictor(model, self._batch)

    def share(self, small) -> float:
        """The time of `small` over that of the original.

        They run in turn, so that other work on the machine slows both; the
        shortest time of each counts.
        """
        small = _Predictor(small, self._batch)
        shortest = np.full(2, np.inf)
        runs, end = 0, time.perf_counter() + 2 * LEAST_SECONDS
        while runs < LEAST_RUNS or time.perf_counter() < end:
            times = self._model.seconds(), small.seconds()
            shortest = np.minimum(shortest, times)
            runs += 1
        return float(shortest[1] / shortest[0])


class _Predictor:
    def __init__(self, model, batch):
        # Its layers are the model's, what is compiled is its own.
        self._model = keras.Model(model.inputs, model.outputs)
        self._batch = batch
        self.seconds()

    def seconds(self):
        with unchanged(self._model):
            start = time.perf_counter()
            self._model.predict_on_batch(self._batch)
            return time.perf_counter() - start


def _some_batch(model, batch_size):
    inputs = internals.graph_of(model).inputs
    rng = np.random.default_rng(0)
    batch = []
    for x in inputs:
        if None in x.shape[1:]:
            raise ValueError(
                f"target={{'latency': ...}} needs to run {model.name!r}, but "
                f"its input has an open size ({tuple(x.shape)}). Build it on "
                "a keras.Input with fixed sizes."
            )
        kind = keras.backend.standardize_dtype(x.dtype)
        shape = (batch_size, *x.shape[1:])
        values = np.zeros(shape)
        if keras.backend.is_float_dtype(kind):
            values = rng.normal(size=shape)
            kind = "float32"
        batch.append(values.astype(kind))
    return batch
