"""The frontier of a walk: all samples, at the tensors that are still read."""

import contextlib
import dataclasses
import itertools
import math

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy.calibration.data import batches, samples_in
from keras_redundancy.calibration.observer import expected_samples
from keras_redundancy.calibration.padding import padding_masks
from keras_redundancy.mend.calls import Step, bytes_of

# The share of the budget that a batch may take. Together they leave room for
# one that is being worked on.
BATCH = 1 / 8
MEMORY_IS_SHORT = (
    "memory={memory:,} bytes hold less than one {what} at the widest place of "
    "both models, which takes {least:,} bytes. Give that much or more, or "
    "smaller samples."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Some samples.

    Attributes:
        first: number of the first of them.
        size: how many there are.
        masks: arrays (samples, positions), 0 where a sequence is padded.
    """

    first: int
    size: int
    masks: tuple = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Amount:
    """How many samples there is room for.

    Attributes:
        samples: in all.
        batch: at a time.
        step: every so manyth of the data is used.
        whole: whether batches stay as they are given.
    """

    samples: int
    batch: int
    step: int
    whole: bool


def amount_of(model, each: int, memory: int, first: list, expected: int):
    """How many samples to use.

    Args:
        model: the original model.
        each: bytes that a sample takes at the widest place.
        memory: the bytes that there are.
        first: the first two batches of the data, or the only one.
        expected: how many samples there are, as far as that is known.

    Raises:
        ValueError: there is no room for one, or for a batch where the size
            of batches is fixed.
    """
    fixed = any(x.shape[0] is not None for x in _keras.graph_of(model).inputs)
    unit = samples_in(first[0]) if fixed else 1
    most = int(memory * (1 - BATCH)) // max(each, 1) // unit * unit
    if not most:
        least = int(unit * each / (1 - BATCH)) + 1
        what = f"batch of {unit} samples" if fixed else "sample"
        raise ValueError(
            MEMORY_IS_SHORT.format(memory=memory, what=what, least=least)
        )
    batch = max(int(memory * BATCH) // max(each, 1), 1)
    step = max(-(-expected // most), 1)
    return Amount(most, batch, 1 if fixed else step, fixed)


class Frontier:
    """Both models' tensors that are still read, batch by batch.

    Attributes:
        batches: the `Batch`es.
        samples: how many samples there are.
        given: how many samples the data has, as far as it was looked at.
    """

    def __init__(self, model, data, amount: Amount, memory: int):
        """Of the inputs of both models.

        Args:
            model: the original model.
            data: lists of an array or None for each input.
            amount: what of it to take.
            memory: bytes for the tensors, and for what is made of them.
        """
        self.batches, self._values, self.given = [], {}, 0
        self._model, self._memory = model, memory
        for arrays in data:
            size = samples_in(arrays)
            chosen = np.arange(-self.given % amount.step, size, amount.step)
            self.given += size
            room = amount.samples - self.samples
            if amount.whole:
                if size <= room:
                    self._add(arrays, size)
                continue
            chosen = chosen[:room]
            parts = -(-len(chosen) // amount.batch)
            for part in np.array_split(chosen, parts) if parts else ():
                cut = [None if x is None else x[part] for x in arrays]
                self._add(cut, len(part))

    @property
    def samples(self) -> int:
        return sum(batch.size for batch in self.batches)

    @property
    def held(self) -> int:
        """Bytes of all tensors that are held."""
        lists = self._values.values()
        tensors = {id(x): x for values in lists for x in values}
        return sum(map(_bytes, tensors.values()))

    @property
    def room(self) -> int:
        """Bytes that are left for the rows of a fit."""
        return max(self._memory - self.held, 0)

    def _add(self, arrays, size):
        masks = tuple(padding_masks(self._model, arrays))
        with self._replica(len(self.batches)):
            tensors = _keras.sharded(
                [None if array is None else _tensor(array) for array in arrays]
            )
        self.batches.append(Batch(self.samples, size, masks))
        for number, x in enumerate(tensors):
            for side in (0, 1):
                self._values.setdefault((number, side), []).append(x)

    def counting(self, first: int, positions: int):
        """At which positions of the samples of a batch sequences hold anything.

        Args:
            first: number of the first sample of the batch.
            positions: how many there are.

        Returns:
            Bool array (samples, positions). None if all count: where not just
            one padding mask is of that length.
        """
        batch = next(x for x in self.batches if x.first == first)
        masks = [x for x in batch.masks if x.shape[1] == positions]
        return masks[0].astype(bool) if len(masks) == 1 else None

    def at(self, number: int) -> list:
        """For each batch (first sample, samples, old tensor, new tensor)."""
        return self._by_batch(self._values[number, side] for side in (0, 1))

    def across(self, call) -> list:
        """For each batch (first sample, samples, old output, new input).

        Args:
            call: a `PairedCall` that ran in the original model already.
        """
        return self._by_batch(
            [self._values[call.makes[0], 0], self._values[call.reads[0], 1]]
        )

    def arguments(self, call) -> list:
        """For each batch (first sample, samples, arguments, arguments).

        Args:
            call: a `PairedCall`. Its (args, kwargs) in the original model come
                first, those in the smaller one second.
        """
        numbers = range(len(self.batches))
        return self._by_batch(
            [self._given(call, side, number) for number in numbers]
            for side in (0, 1)
        )

    def _by_batch(self, sides):
        return [
            (batch.first, batch.size, *both)
            for batch, *both in zip(self.batches, *sides, strict=True)
        ]

    def _given(self, call, side, batch):
        """The (args, kwargs) of a call for a batch."""
        own = (call.old, call.new)[side]
        reads = call.reads_of(side)
        values = (self._values[number, side][batch] for number in reads)
        inputs = map(id, own.inputs)
        return own.fill_in(dict(zip(inputs, values, strict=True)))

    def _replica(self, number):
        """Where the batch of that number is: one replica of the model."""
        return _keras.replica_of(self._model, number)

    def advance(self, step: Step, side: int) -> None:
        """Run the calls of a step, and drop what nothing reads any more.

        Args:
            step: the step.
            side: 0 in the original model, 1 in the smaller one.
        """
        for call in step.calls:
            # Batch by batch, what only this call still reads makes room.
            alone = step.last_read if call is step.calls[-1] else ()
            self._run(call, side, alone)
        for number in step.last_read:
            self._values.pop((number, side), None)

    def _run(self, call, side, last_read):
        own = (call.old, call.new)[side]
        model = None if call.models is None else call.models[side]
        reads = call.reads_of(side)
        lists = [self._values[number, side] for number in reads]
        made = [[] for _ in call.makes]
        for number in range(len(self.batches)):
            args, kwargs = self._given(call, side, number)
            with self._replica(number):
                if model is None:
                    found = _keras.run_for_inference(
                        own.operation, args, kwargs
                    )
                    found = keras.tree.flatten(found)
                else:
                    found = _keras.standardized_inputs(model, *args, **kwargs)
            del args, kwargs
            for values, key in zip(lists, reads, strict=True):
                if key in last_read:
                    values[number] = None
            for values, value in zip(made, found, strict=True):
                values.append(value)
        for number, values in zip(call.makes, made, strict=True):
            self._values[number, side] = values


def _bytes(x):
    if x is None:
        return 0
    dtype = keras.backend.standardize_dtype(x.dtype)
    return math.prod(x.shape) * bytes_of(dtype)


def _tensor(array):
    if array.dtype.kind in "OSU":
        return ops.convert_to_tensor(array, dtype="string")
    return ops.convert_to_tensor(array)


def read_batches(model, data, batch_size: int):
    """What there is to walk with.

    Args:
        model: the original model.
        data, batch_size: as for `batches`.

    Returns:
        (all batches; the first two of them, or the only one; how many samples
        there are, as far as that is known).
    """
    found = batches(model, data, batch_size)
    first = list(itertools.islice(found, 2))
    expected = expected_samples(data, first)
    return itertools.chain(first, found), first, expected


@contextlib.contextmanager
def put_back(variables: list):
    """What variables hold is put back in the end, whatever happens.

    Yields:
        A function to call for a variable that is to keep its new value.
    """
    states = {id(v): (v, ops.copy(v)) for v in variables}
    try:
        yield lambda variable: states.pop(id(variable), None)
    finally:
        for variable, value in states.values():
            variable.assign(value)
