"""Large batches in pieces: memory then does not depend on their size."""

import math

import keras

from keras_redundancy import _keras
from keras_redundancy.calibration.moments import HELD_OUT

# Bytes that the largest tensor of a piece may take. Larger ones are slower as
# well: their memory comes from the system and goes back to it each time.
LARGEST = 2**26
# Bytes that all tensors of a piece may take, where they are kept.
KEPT = 2**30


def samples_at_once(model, batch: list, keeps_all: bool = False) -> float:
    """How many samples a piece has, a multiple of `HELD_OUT`.

    So the same samples are held out as of the whole batch.

    Args:
        model: a functional or Sequential model.
        batch: a batch of data, an array or None for each input.
        keeps_all: whether all tensors of a run are kept to its end.

    Returns:
        The number; infinity where the model takes batches of one size alone.
    """
    inputs = _keras.graph_of(model).inputs
    if any(x.shape[0] is not None for x in inputs):
        return math.inf
    walk = _Sizes()
    given = [
        x if array is None else _like(x, array.shape)
        for x, array in zip(inputs, batch, strict=True)
    ]
    walk.run(model, given)
    if keeps_all:
        samples = KEPT // max(walk.total, 1)
    else:
        samples = LARGEST // max(walk.largest, 1)
    return max(samples // HELD_OUT, 1) * HELD_OUT


def pieces_of(batch: list, most: float):
    """A batch in pieces of `most` samples; the last one has fewer than twice.

    Args:
        batch: an array or None for each input.
        most: how many samples a piece has.
    """
    size = next(len(x) for x in batch if x is not None)
    if size < 2 * most:
        yield batch
        return
    starts = list(range(0, size - most + 1, most))
    for start, stop in zip(starts, [*starts[1:], size], strict=True):
        yield [None if x is None else x[start:stop] for x in batch]


class _Sizes(_keras.Interpreter):
    """A run on shapes, which notes how large tensors are.

    Attributes:
        largest, total: bytes for each sample of the largest tensor, and of
            all; sizes that are not known count as 1.
    """

    def __init__(self):
        self.largest = self.total = 0

    def enter(self, call, model, values):
        inputs = _keras.graph_of(model).inputs
        handed = _keras.handed_to(model, call)
        given = [
            values.get(id(y), x) for x, y in zip(inputs, handed, strict=True)
        ]
        return self.run(model, given, call.key)

    def call(self, call, values):
        specs = {id(x): values[id(x)] for x in call.inputs}
        return _keras.output_tensors(call, specs)

    def made(self, x, value, path):
        sizes = [size or 1 for size in value.shape[1:]]
        size = 4 * math.prod(sizes)
        self.largest, self.total = max(self.largest, size), self.total + size


def _like(x, shape):
    return keras.KerasTensor((None, *shape[1:]), x.dtype, sparse=x.sparse)
