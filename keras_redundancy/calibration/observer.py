"""Run a model and take moments of what its layers pass on to one another."""

import contextlib
import dataclasses
import itertools
import logging
import math

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy.calibration.data import (
    batches,
    expected_samples,
    samples_in,
)
from keras_redundancy.calibration.moments import HELD_OUT, Divided
from keras_redundancy.channels.labels import InnerPlace, Place

# Positions of a sample that are looked at, where samples abound: more say
# little that is new. Where they are few, as many as make so many rows for
# each number of a row, so that the numbers can be fitted to one another.
POSITIONS = 64
ROWS_PER_NUMBER = 20
# Where to look moves by this part of all positions from batch to batch.
GOLDEN = 0.6180339887


@dataclasses.dataclass(frozen=True)
class Window:
    """Rows of n numbers at all positions of a tensor.

    Attributes:
        place: the tensor's `Place` or `InnerPlace`.
        columns: entries of its channel axis, shape (n, m): each of the m
            columns gives rows of its own.
    """

    place: Place | InnerPlace
    columns: np.ndarray

    @property
    def identity(self) -> tuple:
        return self.place.key, self.columns.shape, self.columns.tobytes()


def observe(model, windows: dict, data, batch_size: int) -> dict:
    """Moments of what a model's layers pass on, over all of `data`.

    Args:
        model: a functional or Sequential model. It is run as for inference,
            and its variables are what they were after that.
        windows: {name: windows}, a list of `Window` whose rows are taken
            together.
        data: what `Model.predict` takes.
        batch_size: for arrays.

    Returns:
        {name: `Divided`}. Memory does not grow with the number of samples.

    Raises:
        ValueError: `data` is empty or does not fit the model's inputs.
    """
    names = list(windows)
    observer = Observer(model, list(windows.values()))
    return dict(zip(names, collect(observer, data, batch_size), strict=True))


def collect(observer, data, batch_size: int) -> list[Divided]:
    """All that an observer's batches return, taken together.

    Args:
        observer: a model with the inputs of `observer.model` and the start of
            the positions, that returns a list of what `divided_moments`
            returns.
        data, batch_size: as for `observe`.
    """
    moments = []
    for size, found in answers(observer, data, batch_size):
        moments = moments or [Divided.of_no_rows(len(x[0][1])) for x in found]
        for own, parts in zip(moments, found, strict=True):
            own.add(size, *parts)
    return moments


def answers(observer, data, batch_size: int):
    """What an observer returns, batch after batch.

    Args:
        observer: a model with the inputs of `observer.model` and the start of
            the positions. Its variables are what they were after that.
        data, batch_size: as for `observe`.

    Yields:
        (samples in the batch, what is returned for it).
    """
    found = batches(observer.model, data, batch_size)
    first = list(itertools.islice(found, 2))
    # For one batch alone, compiling takes longer than it saves.
    observer.run_eagerly = observer.can_run_eagerly and len(first) == 1
    observer.samples = expected_samples(data, batch_size, first)
    found = itertools.chain(first, found)
    del first  # Else these batches would be held to the end.
    with unchanged(observer):
        for number, batch in enumerate(found):
            size = samples_in(batch)
            inputs = [*batch, _start_of(number, size)]
            yield size, _keras.predict_on_one_replica(observer, inputs)


@contextlib.contextmanager
def unchanged(model):
    """States that change when the model runs are put back in the end.

    TensorFlow does not warn of what it compiles meanwhile: it takes models
    that run once, one after the other, for one that changes all the time.
    """
    states = [(v, ops.copy(v)) for v in model.non_trainable_variables]
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_is_no_retracing)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_retracing)
        for variable, value in states:
            variable.assign(value)


def _is_no_retracing(record):
    return "triggered tf.function retracing" not in record.getMessage()


def _start_of(number, size):
    """Where in [0, 1) the positions begin, as an integer that is not cast."""
    start = int(2**15 * (number * GOLDEN % 1))
    return np.full(size, start, "int32")


class Watch(keras.Model):
    """Runs the graph of `model`, once over the data.

    Attributes:
        samples: how many samples it will be run on, as far as that is known
            before the first one.
        can_run_eagerly: whether that takes little time to start; JAX compiles
            each operation by itself.
    """

    def __init__(self, model):
        super().__init__(dtype=full_precision(model))
        self.model = model  # Its weights are known to the compiled step.
        self.samples = 1
        self.can_run_eagerly = keras.backend.backend() == "tensorflow"
        if self.can_run_eagerly:
            # XLA takes longer to compile than it saves in one pass.
            self.jit_compile = False


class Observer(Watch):
    """A model's graph that returns moments in place of the model's outputs."""

    def __init__(self, model, windows):
        super().__init__(model)
        self.look = lambda run: [
            _moments(run, each, self.samples) for each in windows
        ]
        places = [w.place for each in windows for w in each]
        self.keys = frozenset(place.key for place in places)
        self.inner = inner_by_call(places)

    def call(self, inputs):
        *tensors, start = inputs
        run = Run(self.keys, start_in(start), self.inner)
        run.run(self.model, tensors)
        return self.look(run)


def inner_by_call(places):
    """{key of a call: the `InnerPlace`s of what is computed in it}."""
    inner = {}
    for place in places:
        if isinstance(place, InnerPlace):
            inner.setdefault(place.call_key, {})[place.key] = place
    return {key: list(places.values()) for key, places in inner.items()}


def full_precision(model) -> str:
    """The dtype in which to look at what a model computes.

    In that of its variables, these are read as they are.
    """
    is_double = model.dtype_policy.variable_dtype == "float64"
    return "float64" if is_double else "float32"


def start_in(numbers):
    """The start that `collect` gave an observer."""
    return ops.cast(numbers[0], "float32") / 2**15


class Run(_keras.Interpreter):
    """One run of a model on numbers that keeps the tensors with wanted keys.

    Where there are such, it ends when it has them all.

    Attributes:
        keys: the keys of the tensors.
        start: where the positions begin that are looked at.
        inner: {key of a call: `InnerPlace`s} of those inside of layers.
        seen: the tensors by key.
    """

    def __init__(self, keys=frozenset(), start=0.0, inner=None):
        self.keys, self.start, self.inner = keys, start, inner or {}
        self.seen = {}

    @property
    def is_done(self):
        return bool(self.keys) and len(self.seen) == len(self.keys)

    def enter(self, call, model, values):
        args, kwargs = call.fill_in(values)
        given = _keras.standardized_inputs(model, *args, **kwargs)
        return self.run(model, given, call.key)

    def call(self, call, values):
        """What an operation returns: as when the model predicts."""
        arguments = call.fill_in(values)
        for place in self.inner.get(call.key, ()):
            self._note(place.key, place.compute(*arguments))
        return keras.tree.flatten(self.results(call.operation, *arguments))

    def results(self, operation, args, kwargs):
        return _keras.run_for_inference(operation, args, kwargs)

    def made(self, x, value, path):
        self._note((*path, id(x)), value)

    def _note(self, key, value):
        if key in self.keys:
            self.seen[key] = value


def positions_for(numbers: int, samples: int, least: int) -> int:
    """At how many positions of each sample to look at rows of `numbers`."""
    return max(least, -(-ROWS_PER_NUMBER * numbers // max(samples, 1)))


def _moments(run, windows, samples):
    """Moments of the rows of some windows, as `divided_moments` has them."""
    most = positions_for(len(windows[0].columns), samples, POSITIONS)
    return divided_moments(
        [
            _rows(
                run.seen[w.place.key],
                w.place.axis,
                w.columns,
                run.start,
                most,
            )
            for w in windows
        ]
    )


def divided_moments(parts):
    """(count, mean, scatter) of rows to fit to, and of rows held out.

    Args:
        parts: tensors of shape (samples, positions, numbers).
    """
    sides = zip(*map(_divided, parts), strict=True)
    return [_moments_of(list(side)) for side in sides]


def _divided(x):
    """Four samples of each five, and the fifth ones.

    Where a batch has fewer, so are their positions.
    """
    count = ops.shape(x)[0]
    if isinstance(count, int) and count < HELD_OUT:
        x = ops.reshape(x, (-1, 1, x.shape[-1]))
        count = ops.shape(x)[0]
    stay = ops.arange(count - count // HELD_OUT)
    stay = stay + stay // (HELD_OUT - 1)
    return ops.take(x, stay, axis=0), x[HELD_OUT - 1 :: HELD_OUT]


def _moments_of(parts):
    rows = [as_rows(x) for x in parts]
    rows = ops.concatenate(rows) if len(rows) > 1 else rows[0]
    count = ops.shape(rows)[0] + ops.zeros((), "int32")
    mean = ops.sum(rows, axis=0) / ops.cast(ops.maximum(count, 1), rows.dtype)
    centered = rows - mean
    scatter = ops.matmul(ops.transpose(centered), centered)
    return count, mean, scatter


def as_rows(x):
    """Shape (any, numbers)."""
    return ops.reshape(x, (-1, x.shape[-1]))


def _rows(x, axis, columns, start, most):
    """Rows (sample, position, number) of a tensor."""
    x = sampled(ops.moveaxis(x, axis, -1), start, most)
    n, m = columns.shape
    if m > most:
        spread = _spread(m, start, most)
        columns = ops.take(columns, spread, axis=1)
    whole = m == 1 and np.array_equal(columns[:, 0], np.arange(x.shape[-1]))
    if not whole:
        x = ops.take(x, ops.reshape(ops.transpose(columns), (-1,)), axis=-1)
    return ops.reshape(x, (ops.shape(x)[0], -1, n))


def sampled(x, start, most: int):
    """A tensor (samples, ..., numbers) at up to `most` positions a sample.

    Shape (samples, positions, numbers), float32 or float64. For tensors with
    as many positions they are the same ones.
    """
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        x = ops.cast(x, "float32")
    shape = ops.shape(x)
    sizes = shape[1:-1]
    known = all(isinstance(size, int) for size in sizes)
    positions = math.prod(sizes) if known else ops.prod(ops.stack(sizes))
    x = ops.reshape(x, (-1, positions, shape[-1]))
    if not known or positions > most:
        x = ops.take(x, _spread(positions, start, most), axis=1)
    return x


def _spread(size, start, most):
    """`most` of `size` positions, other ones for every start."""
    spread = np.random.default_rng(0).permutation(most) / most
    spread = (spread.astype("float32") + start) % 1
    size = ops.cast(size, "float32")
    chosen = ops.minimum(ops.floor(spread * size), size - 1)
    return ops.cast(chosen, "int32")
