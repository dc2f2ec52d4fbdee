"""Training data that several calls of `fit` read as if they were one call."""

import collections
import inspect
import itertools
import threading

import keras
import numpy as np

from keras_redundancy import _keras


class Batches:
    """The batches of a generator, for several calls of `fit` in a row.

    `fit` reads ahead of training. Batches that one call has read but not
    trained on are given to the next call, so that each is trained on once.
    """

    def __init__(self, generator):
        self._generator = generator
        self._lock = threading.Lock()  # TensorFlow reads in a thread.
        self._ahead = collections.deque()  # Batches read but not trained on.
        self._first = 0  # The number of the first of them.
        self._used = 0

    def use(self, count: int) -> bool:
        """Count the next `count` batches as used; False if there is none."""
        with self._lock:
            self._forget_used()
            try:
                self._at(self._used)
            except StopIteration:
                return False
            self._used += count
            return True

    def rest(self):
        """A generator of all unused batches, for one call of `fit`."""
        with self._lock:
            self._used = min(self._used, self._first + len(self._ahead))
            self._forget_used()
            start = self._first
        for number in itertools.count(start):
            try:
                with self._lock:
                    batch = self._at(number)
            except StopIteration:
                return
            yield batch

    def have_ended(self) -> bool:
        """Whether batches were used and none is left."""
        return self._used > 0 and next(self.rest(), None) is None

    def _at(self, number):
        place = number - self._first
        if place < 0:  # A reading thread of an earlier `fit` asks.
            raise StopIteration
        while place >= len(self._ahead):
            self._ahead.append(next(self._generator))
        return self._ahead[place]

    def _forget_used(self):
        while self._ahead and self._first < self._used:
            self._ahead.popleft()
            self._first += 1


def shared(x, steps_per_epoch=None):
    """`x` for several calls of `fit`: as `Batches` where they must share it.

    Args:
        x: what `Model.fit` takes.
        steps_per_epoch: as for `Model.fit`. If it is given, epochs continue
            in a `tf.data.Dataset` where the epoch before has stopped.
    """
    if inspect.isgenerator(x):
        return Batches(x)
    if steps_per_epoch is not None and _has_dense_tensors(x):
        return Batches(_over_and_over(x))
    return x


def begin_anew(x, y, options: dict) -> bool:
    """Whether each call of `fit` reads the first part of the data alone.

    In one call of `fit`, an epoch goes on where the epoch before has stopped.

    Args:
        x: what `shared` returned.
        y: as for `Model.fit`.
        options: the other arguments of `Model.fit`.
    """
    steps = options.get("steps_per_epoch")
    if steps is None or isinstance(x, Batches):
        return False
    whole = {**options, "steps_per_epoch": None}
    count = _keras.number_of_batches(x, y, whole)
    return count is not None and steps < count


def _has_dense_tensors(x):
    """Whether it is a `tf.data.Dataset` of tensors that are not sparse."""
    leaves = keras.tree.flatten(getattr(x, "element_spec", None))
    return all(type(leaf).__name__ == "TensorSpec" for leaf in leaves)


def _over_and_over(dataset):
    while True:
        batch = None
        for batch in dataset:
            yield batch if isinstance(batch, tuple) else (batch,)
        if batch is None:
            return


def require_samples(x, y, options: dict) -> None:
    """Raise for data without samples, to train or to validate on.

    Of a generator, and of data that say so, `fit` raises the error.

    Args:
        x, y, options: as for `begin_anew`.
    """
    whole = {**options, "steps_per_epoch": None}
    if x is None or _has_none(x, y, whole):
        raise no_samples("x")
    found = options.get("validation_data")
    if found is None:
        return
    pair = tuple(found) if isinstance(found, list | tuple) else (found,)
    of_validation = {"batch_size": options.get("batch_size")}
    if _has_none(*(*pair, None)[:2], of_validation):
        raise no_samples("validation_data")


def _has_none(x, y, options):
    if isinstance(x, Batches):
        return False
    return _keras.number_of_batches(x, y, options) == 0


def no_samples(name: str) -> ValueError:
    """The error to raise where data hold no samples."""
    what = "train" if name == "x" else "measure the model"
    return ValueError(
        f"{name} holds no samples, so there is nothing to {what} on. Pass "
        "arrays or a dataset with samples."
    )


def build_on(model, x) -> None:
    """Build a Sequential model without `keras.Input` as `fit` would.

    Args:
        model: any model; all but such Sequential models are left alone.
        x: what `Model.fit` takes, or `Batches`.

    Raises:
        ValueError: there is no batch to build it on.
    """
    if not isinstance(model, keras.Sequential) or model.built:
        return
    if isinstance(x, Batches):
        batch = next(x.rest(), None)
    else:
        batches, _ = _keras.numpy_batches(x, 1)
        batch = next(batches, None)
        batches.close()
    if batch is None:
        raise no_samples("x")
    inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if not keras.tree.is_nested(inputs):
        with _keras.scope_of(model):
            model.build((None, *np.shape(inputs)[1:]))
