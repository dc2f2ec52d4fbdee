"""How long a model takes on this machine, beside another one."""

import time
from collections.abc import Callable

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.bisection import bisected
from keras_redundancy.calibration.observer import restoring_states
from keras_redundancy.planning.budgets import OutOfReachError

# Each model runs so often at least, and for so many seconds.
LEAST_RUNS, LEAST_SECONDS = 7, 0.25
# How often the interval of shares is halved.
STEPS = 7


class Stopwatch:
    """Times smaller models against the one that they were made from."""

    def __init__(self, model, batch_size: int, shapes=None):
        """Args:
        model: the original. It predicts, and its variables are what they
            were after that.
        batch_size: of the samples that are predicted at once.
        shapes: of a sample of each input, where its sizes are open.

        Raises:
            ValueError: an input has an open size, and no shape is given.
        """
        self._batch = _some_batch(model, batch_size, shapes)
        self._seconds = _timer(model, self._batch)

    def share(self, small) -> float:
        """The time of `small` over that of the original.

        They run in turn, so that other work on the machine slows both; the
        shortest time of each counts.
        """
        seconds = _timer(small, self._batch)
        shortest = np.full(2, np.inf)
        runs, end = 0, time.perf_counter() + 2 * LEAST_SECONDS
        while runs < LEAST_RUNS or time.perf_counter() < end:
            times = self._seconds(), seconds()
            shortest = np.minimum(shortest, times)
            runs += 1
        return float(shortest[1] / shortest[0])


def least_cut_within(share: float, cut_to: Callable, share_of: Callable):
    """Cut no more multiply-adds than it takes to be so much faster.

    Args:
        share: of the time that may be taken.
        cut_to: a function of the share of multiply-adds to leave that returns
            decisions, or raises `OutOfReachError`.
        share_of: a function of decisions that returns the share of the time
            that a model cut like this takes.

    Returns:
        The decisions, and the share of the time that was measured.

    Raises:
        OutOfReachError: what is left when all is cut takes longer.
    """
    best, times = None, {}

    def may_cut_less(left):
        nonlocal best
        try:
            decisions = cut_to(left)
        except OutOfReachError:
            return True
        widths = tuple(len(d.selection.kept) for d in decisions)
        if widths not in times:
            times[widths] = share_of(decisions)
        if times[widths] > share:
            return False
        best = decisions, times[widths]
        return True

    bisected(may_cut_less, 0.0, 1.0, STEPS)
    if best is None:
        least = min(times.values(), default=1.0)
        raise OutOfReachError(
            f"The target of {share:.1%} of the latency cannot be reached: the "
            f"fastest of the {len(times)} cuts that were timed takes "
            f"{least:.1%}. Small batches and small models spend their time "
            "between the operations: plan with the batch_size that you "
            "predict with, or give a target of flops."
        )
    return best


def _timer(model, batch) -> Callable:
    """A function that returns how many seconds a model takes for a batch."""
    # Its layers are the model's, what is compiled is its own.
    model = keras.Model(model.inputs, model.outputs)

    def seconds():
        with restoring_states(model):
            start = time.perf_counter()
            model.predict_on_batch(batch)
            return time.perf_counter() - start

    seconds()  # This one compiles.
    return seconds


def _some_batch(model, batch_size, shapes):
    inputs = _keras.graph_of(model).inputs
    shapes = shapes or [x.shape[1:] for x in inputs]
    rng = np.random.default_rng(0)
    batch = []
    for x, shape in zip(inputs, shapes, strict=True):
        if None in shape:
            raise ValueError(
                f"target={{'latency': ...}} needs to run {model.name!r}, but "
                f"its input has an open size ({tuple(x.shape)}). Pass "
                "input_shape=, the shape of one sample, or data=."
            )
        batch.append(_some_values(rng, (batch_size, *shape), x.dtype))
    return batch


def _some_values(rng, shape, dtype):
    kind = keras.backend.standardize_dtype(dtype)
    if kind == "string":
        return np.full(shape, "", object)
    if keras.backend.is_float_dtype(kind):
        return rng.normal(size=shape).astype("float32")
    return np.zeros(shape, kind)
