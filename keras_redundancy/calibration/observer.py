"""Run a model over data and take moments of the tensors inside it."""

import contextlib
import dataclasses
import itertools

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy._shared.progress import progress
from keras_redundancy._shared.threads import one_thread
from keras_redundancy.calibration.data import (
    batches,
    expected_samples,
    samples_in,
)
from keras_redundancy.calibration.moments import HELD_OUT, Divided
from keras_redundancy.calibration.padding import counting, padding_masks
from keras_redundancy.calibration.pieces import pieces_of, samples_at_once
from keras_redundancy.calibration.rows import (
    GOLDEN,
    divided_moments,
    positions_for,
    rows_of_columns,
    sampled,
)
from keras_redundancy.channels.labels import InnerPlace, Place

# Positions of a sample that are observed, where there are many samples:
# neighbouring positions are similar, so more add little. With few samples
# more are observed: see `positions_for`.
POSITIONS = 64
# Batches, or pieces of large ones, that run without compiling, which would
# take longer than they do.
SHORT = 2
# The same where tensors are large: there, calling an operation takes little
# beside what it computes.
PIECES = 10
# Statistics are a number for each pair of units: 8.6 GB at this many units.
WIDEST = 2**15
# Where those of all layers have more numbers, they are added up layer by layer.
MANY = 2**25


@dataclasses.dataclass(frozen=True)
class Window:
    """The rows of n numbers that are observed in a tensor.

    Attributes:
        place: the tensor's `Place` or `InnerPlace`.
        columns: positions on the tensor's channel axis, shape (n, m): each of
            the m columns selects the n numbers of further rows.
    """

    place: Place | InnerPlace
    columns: np.ndarray

    @property
    def identity(self) -> tuple:
        return self.place.key, self.columns.shape, self.columns.tobytes()


def observe(model, windows: dict, data, batch_size: int) -> dict:
    """Moments of tensors inside a model, over all of `data`.

    Args:
        model: a functional or Sequential model. It runs in inference mode,
            and its variables are restored afterwards.
        windows: {name: list of `Window`}; the rows of a list are taken
            together.
        data: what `Model.predict` takes.
        batch_size: for arrays.

    Returns:
        {name: `Divided`}. Memory does not grow with the number of samples.

    Raises:
        ValueError: `data` is empty or does not fit the model's inputs, or
            there are more than `WIDEST` units at a place.
    """
    rows = (len(x.columns) for each in windows.values() for x in each)
    widest = max(rows, default=0)
    if widest > WIDEST:
        raise ValueError(
            f"The statistics of {widest:,} units, a number for each pair, "
            f"take {8 * widest**2 / 1e9:.0f} GB, so that layers of more than "
            f"{WIDEST:,} units cannot be planned with data. Leave such layers "
            "out by skip=, or plan them without data."
        )
    names = list(windows)
    observer = WindowObserver(model, list(windows.values()))
    with one_thread():
        for size, found in answers(observer, data, batch_size):
            for own in observer.sums if found else ():
                # What is added is not needed any more.
                own.add(size, *found.pop(0))
    return dict(zip(names, observer.sums, strict=True))


def answers(observer, data, batch_size: int):
    """Run an observer batch after batch, large ones in pieces.

    Args:
        observer: an `Observer`. Its variables are restored afterwards.
        data, batch_size: as for `observe`.

    Yields:
        (the number of samples in the piece, what the observer returned).
    """
    found = batches(observer.model, data, batch_size)
    first = list(itertools.islice(found, SHORT + 1))
    most = samples_at_once(observer.model, first[0], observer.keeps_all)
    observer.samples = expected_samples(data, first)
    observer.run_eagerly = observer.can_run_eagerly and _is_short(
        observer, first, most
    )
    count = -(-observer.samples // samples_in(first[0]))
    if SHORT < len(first) == count:
        count = None  # There may be more.
    found = itertools.chain(first, found)
    del first  # Otherwise these batches would stay in memory.
    with restoring_states(observer), progress(None, count, "batch") as done:
        taken = itertools.count()
        for number, batch in enumerate(found):
            for piece, own in zip(pieces_of(batch, most), taken, strict=False):
                size = samples_in(piece)
                # All pieces of a batch are looked at at the same positions.
                start = own if observer.keeps_all else number
                inputs = [*piece, _start_of(start, size)]
                parts = _parts(observer, inputs, size)
                looked_at = _keras.predict_on_replicas(observer, parts)
                yield from zip(map(samples_in, parts), looked_at, strict=True)
            done()


def _is_short(observer, first, most) -> bool:
    """Whether compiling takes longer than it saves, or too much memory.

    Args:
        observer: what is to run.
        first: the first batches, up to `SHORT` + 1 of them.
        most: how many samples a piece of a batch has.
    """
    if max(len(first), observer.samples // most) <= SHORT:
        return True
    if _keras.local_replicas(observer) > 1:
        return False
    are_large = most <= 2 * samples_in(first[0])
    is_short = are_large and observer.samples <= PIECES * most
    return is_short or observer.returned > MANY


def _parts(observer, inputs, size) -> list[list]:
    """A part of a batch for each replica; or the whole, if it is too small.

    The parts begin at multiples of five samples: the same samples are held out
    as in the whole batch.
    """
    count, fives = _keras.local_replicas(observer), size // HELD_OUT
    fixed = any(x.shape[0] for x in _keras.graph_of(observer.model).inputs)
    whole = fixed or observer.run_eagerly or any(x is None for x in inputs)
    if count == 1 or fives < count or whole:
        return [inputs]
    starts = [fives * part // count * HELD_OUT for part in range(count)]
    bounds = itertools.pairwise([*starts, size])
    return [[x[start:end] for x in inputs] for start, end in bounds]


@contextlib.contextmanager
def restoring_states(model):
    """Restore what running the model changes, such as states, in the end."""
    states = [(v, ops.copy(v)) for v in _keras.states_of(model)]
    try:
        with _keras.quiet_about_retracing():
            yield
    finally:
        for variable, value in states:
            variable.assign(value)


def _start_of(number, size):
    """The start of the positions times 2^15, as an integer: not cast."""
    start = int(2**15 * (number * GOLDEN % 1))
    return np.full(size, start, "int32")


class Observer(keras.Model):
    """Runs a model's graph on batches, and returns what `look` computes.

    Its inputs are those of the model, and the start of the positions.

    Attributes:
        model: the model.
        samples: the number of samples in all batches, as far as it is known
            before the first batch.
        can_run_eagerly: whether running without compiling starts at once. On
            JAX it does not: each operation is compiled by itself.
        keeps_all: whether all tensors of a run are kept to its end, as a
            backward pass needs them.
        returned: how many numbers `look` returns, if they are many.
    """

    keeps_all = False
    returned = 0

    def __init__(self, model, keys=frozenset(), inner=None):
        """Args:
        model: a functional or Sequential model.
        keys, inner: those of a `Run`: what `look` needs.
        """
        with _keras.scope_of(model):  # To run on the replicas of the model.
            super().__init__(dtype=full_precision(model))
        self.model = model  # As an attribute, so that Keras tracks its weights.
        self._keys, self._inner = keys, inner
        self.samples = 1
        self.can_run_eagerly = keras.backend.backend() == "tensorflow"
        if self.can_run_eagerly:
            # XLA takes longer to compile than it saves in one pass.
            self.jit_compile = False

    def call(self, inputs):
        *tensors, start = inputs
        run = self.run_from(start_in(start))
        run.size = start.shape[0]
        run.masks = padding_masks(self.model, tensors)
        run.run(self.model, tensors)
        return self.look(run)

    def run_from(self, start):
        """A new `Run`, given where the positions begin."""
        return Run(self._keys, start, self._inner)

    def look(self, run):
        """What to return of a `Run` of the model on one batch."""
        raise NotImplementedError


class PlaceObserver(Observer):
    """An observer of the tensors at some places, inside of layers as well."""

    def __init__(self, model, places):
        inner = {}
        for place in places:
            if isinstance(place, InnerPlace):
                inner.setdefault(place.call_key, {})[place.key] = place
        keys = frozenset(place.key for place in places)
        inner = {key: list(own.values()) for key, own in inner.items()}
        super().__init__(model, keys, inner)


class WindowObserver(PlaceObserver):
    """Returns the moments of windows: of each list what `divided_moments` does.

    Where it runs eagerly it returns an empty list. Then the moments of each
    list are added to the sums as soon as they are known, so that those of one
    list at a time take memory beside the sums.

    Attributes:
        sums: a `Divided` for each list of windows.
    """

    def __init__(self, model, windows):
        super().__init__(model, [w.place for each in windows for w in each])
        self._windows = windows
        sizes = [len(each[0].columns) for each in windows]
        self.sums = tuple(map(Divided.of_no_rows, sizes))
        self.returned = sum(size**2 for size in sizes)

    def run_from(self, start):
        run = _MomentsRun(self._keys, start, self._inner)
        run.windows, run.samples = self._windows, self.samples
        run.sums = self.sums if self.run_eagerly else ()
        return run

    def look(self, run):
        if self.run_eagerly:
            return []
        return [run.moments[number] for number in range(len(self._windows))]


def full_precision(model) -> str:
    """The dtype of an observer: that of the model's variables, not lower.

    With this dtype, the variables are read without rounding.
    """
    is_double = model.dtype_policy.variable_dtype == "float64"
    return "float64" if is_double else "float32"


def start_in(numbers):
    """The start of the positions, in [0, 1), from an observer's last input."""
    return ops.cast(numbers[0], "float32") / 2**15


class Run(_keras.Interpreter):
    """One run of a model on numbers that keeps some of the tensors.

    It computes what the model predicts. If keys are given, it ends as soon as
    their tensors are computed.

    Attributes:
        keys: the keys of the tensors to keep.
        start: where the positions begin that are looked at.
        inner: {key of a call: `InnerPlace`s} of tensors inside of layers.
        seen: {key: tensor} of those that are kept.
        size: the number of samples; None where it is not known.
        masks: what `padding_masks` finds among the inputs.
    """

    def __init__(self, keys=frozenset(), start=0.0, inner=None):
        self.keys, self.start, self.inner = keys, start, inner or {}
        self.seen, self.size, self.masks = {}, None, []

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


class _MomentsRun(Run):
    """A run that keeps moments of windows in place of tensors.

    Attributes:
        windows: lists of `Window`.
        samples: the number of samples in all batches.
        sums: the `Divided` of each list to add the moments to; or none.
        moments: {number of a list: `divided_moments` of the rows, or None
            where they were added}.
    """

    def __init__(self, *args):
        super().__init__(*args)
        self.moments, self._rows = {}, {}

    def _note(self, key, value):
        if key not in self.keys or key in self.seen:
            return
        self.seen[key] = None  # The tensor itself is not needed any more.
        for number, windows in enumerate(self.windows):
            rows = self._rows.setdefault(number, [None] * len(windows))
            for i, window in enumerate(windows):
                if window.place.key == key:
                    rows[i] = self._rows_of(window, value)
            if number not in self.moments and not any(x is None for x in rows):
                rows, weights = zip(*rows, strict=True)
                found = divided_moments(rows, weights)
                self.moments[number] = self._added(number, found)
                self._rows[number] = []

    def _added(self, number, moments):
        """None, once the moments are added; themselves if there are no sums."""
        if not self.sums:
            return moments
        moments = keras.tree.map_structure(ops.convert_to_numpy, moments)
        self.sums[number].add(self.size, *moments)
        return None

    def _rows_of(self, window, value):
        n = len(window.columns)
        most = positions_for(n, self.samples, POSITIONS)
        place, columns = window.place, window.columns
        x = ops.moveaxis(value, place.axis, -1)
        weights = counting(x, self.masks, _keras.mask_of(value))
        if weights is not None:
            weights = sampled(weights, self.start, most)
        return rows_of_columns(x, weights, columns, self.start, most)
