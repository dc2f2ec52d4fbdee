"""What two models are distilled on: batches for `Model.fit`."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_redundancy import _keras
from keras_redundancy.calibration.data import (
    STRINGS,
    Samples,
    batches,
    comes_in_batches,
)
from keras_redundancy.mend.augment import Augment

# Samples of a batch, where nothing else is said.
BATCH = 64
# Samples that say what the outputs are, and how much they vary.
LOOKED_AT = 256


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingData:
    """What `Model.fit` is given.

    Attributes:
        batches: a `PyDataset`, or a dataset of the user's.
        steps: how many batches an epoch takes.
        held_out: batches to validate on, or None.
        some: a few samples, a list with an array for each input of the model.
        batch_size: of arrays that are held out; None for a dataset.
    """

    batches: object
    steps: int
    held_out: object
    some: list[NDArray]
    batch_size: int | None = None


class Batches(keras.utils.PyDataset):
    """Shuffled batches of arrays, all of one size.

    What is left over at the end of an epoch is left out: the statistics of a
    batch of a few samples would say little to a BatchNormalization.
    """

    def __init__(self, x, *labels, batch_size: int, augment=None, seed=None):
        """Take the arrays.

        Args:
            x: arrays as the model takes them, in tuples in place of lists.
            *labels: nothing, or a structure of arrays.
            batch_size: how many samples a batch has. By default `BATCH`, or all
            that are not held out if there are fewer.
            augment: an `Augment` or None.
            seed: for the order.
        """
        super().__init__()
        self.data, self.batch_size = (x, *labels), batch_size
        self.augment, self._rng = augment, np.random.default_rng(seed)
        self.count = len(keras.tree.flatten(x)[0])
        self.on_epoch_end()

    def on_epoch_end(self):
        self._order = self._rng.permutation(self.count)

    def __len__(self):
        return self.count // self.batch_size

    def __getitem__(self, number):
        start = number * self.batch_size
        chosen = self._order[start : start + self.batch_size]
        x, *labels = _chosen(chosen, self.data)
        if self.augment is not None:
            x = self.augment(x)
        return _with_text(x), *labels


def _chosen(numbers, arrays: tuple) -> tuple:
    return keras.tree.map_structure(lambda a: a[numbers], arrays)


def _with_text(arrays):
    """The arrays; those of text as tensors, which Keras asks for."""

    def as_taken(x):
        is_text = x.dtype.kind in STRINGS
        return ops.convert_to_tensor(x, dtype="string") if is_text else x

    return keras.tree.map_structure(as_taken, arrays)


def is_stream(data) -> bool:
    """Whether `data` makes batches, again in each epoch, and is no array."""
    data = data.data if isinstance(data, Samples) else data
    return not isinstance(data, Iterator | list) and comes_in_batches(data)


def of_stream(model, data, steps, held_out) -> TrainingData:
    """Batches that the user makes.

    Raises:
        TypeError, ValueError: they do not fit the model, are none, or have no
            known number.
    """
    # One batch is looked at: whether it fits, and what the model returns.
    some = next(batches(model, Samples(data, 1), BATCH))
    options = {"steps_per_epoch": steps}
    count = _keras.number_of_batches(data, None, options)
    if count is None:
        raise ValueError(
            f"data is {type(data).__name__}, and how many batches it has is "
            "not known, on which the learning rate depends. Pass steps=, the "
            "number of batches of an epoch, and let the data repeat."
        )
    some = _some(model, some)
    return TrainingData(data, count, held_out, some)


def of_arrays(
    model,
    data,
    labels,
    steps: int | None,
    batch_size: int | None,
    held_out: float,
    augment: Callable | None,
    seed: int | None,
) -> TrainingData:
    """Batches of arrays, some of which are held out.

    Args:
        model: the original model.
        data: arrays, or an iterator of batches, which is read once.
        labels: a tuple of arrays that belong to the samples, or None.
        steps: how many batches of an iterator to use.
        batch_size: how many samples a batch has.
        held_out: the share of the samples to validate on.
        augment: a function of a batch of inputs, a layer, or None.
        seed: as for `Batches`.

    Raises:
        TypeError, ValueError: the data are none, do not fit the model or the
            labels, or are less than a batch.
    """
    arrays = gathered(model, data, steps, batch_size or BATCH)
    count, needed = len(arrays[0]), _keras.needed_batch(model)
    if batch_size not in (None, needed or batch_size):
        raise ValueError(
            f"batch_size={batch_size}, but {model.name!r} takes batches of "
            f"{needed}. Leave batch_size out."
        )
    if needed and labels is not None:
        # Samples after the last whole batch are left out.
        labels = keras.tree.map_structure(
            lambda y: y[:count] if len(y) < count + needed else y, labels
        )
    _require_as_many(labels or (), count)
    order = np.random.default_rng(seed).permutation(count)
    held = _held_out(held_out, count, needed or 1)
    batch_size = needed or batch_size or max(1, min(BATCH, count - held))
    if count - held < batch_size:
        raise ValueError(
            f"batch_size={batch_size} is more than the {count - held} samples "
            f"that there are to train on: data has {count}, of which {held} "
            "are held out. Pass more data, a smaller batch_size or held_out=0."
        )
    x = _packed(model, arrays)
    known = (x,) if labels is None else (x, labels)
    known = keras.tree.map_structure(np.asarray, known)
    validation = None
    if held:
        x, *labels = _chosen(order[:held], known)
        validation = _with_text(x), *labels
    train = Batches(
        *_chosen(order[held:], known),
        batch_size=batch_size,
        augment=Augment.of(model, augment),
        seed=seed,
    )
    train[0]  # Raises if `augment` returns what does not fit.
    some = _some(model, arrays)
    return TrainingData(train, len(train), validation, some, batch_size)


def _some(model, arrays):
    """The first samples; a batch at least, where its size is fixed."""
    count = max(LOOKED_AT, _keras.needed_batch(model) or 0)
    return [None if x is None else x[:count] for x in arrays]


def _packed(model, arrays):
    """Arrays in the structure of a model's inputs, with tuples for lists.

    TensorFlow makes one tensor of a list. A layer that augments expects no
    list of one array, and models take the array as well.
    """
    structure = _keras.input_structure(_keras.graph_of(model))
    if isinstance(structure, list) and len(arrays) == 1:
        return arrays[0]
    return keras.tree.lists_to_tuples(
        keras.tree.pack_sequence_as(structure, arrays)
    )


def _held_out(share, count, of):
    """How many of so many samples are held out, a multiple of `of`."""
    least = of if share else 0
    return max(min(round(share * count), count - 1) // of * of, least)


def gathered(model, data, steps, batch_size) -> list[NDArray]:
    """All samples, an array for each input of the model."""
    if not isinstance(data, Samples):
        data = Samples(data, steps if isinstance(data, Iterator) else None)
    columns = itertools.zip_longest(*batches(model, data, batch_size))
    arrays = [None if c[0] is None else np.concatenate(c) for c in columns]
    if any(x is None for x in arrays):
        raise ValueError(
            f"data leaves out inputs of {model.name!r}, which are optional. "
            "Distillation needs arrays for all of them."
        )
    return arrays


def _require_as_many(labels, count):
    for array in keras.tree.flatten(labels):
        entries = np.shape(array)[0] if np.ndim(array) else "no"
        if entries != count:
            raise ValueError(
                f"labels has {entries} entries for {count} samples. Pass "
                "one for each sample of data, in the same order."
            )
