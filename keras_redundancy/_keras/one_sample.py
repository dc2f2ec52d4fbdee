"""How many entries of the first axis of a tensor belong to one sample."""

import keras

from keras_redundancy._keras.graph import graph_of, output_tensors
from keras_redundancy._keras.walk import Interpreter


class OneSample(Interpreter):
    """Runs a graph on symbols for a batch of one sample.

    Code that makes samples of windows or heads gives them a place on the axis
    of the batch, whose size is open: then it is not that of the batch.

    Attributes:
        sizes: {id(x): the first size of the tensor x of the graph}.
    """

    def __init__(self):
        self.sizes = {}

    def run_on(self, graph, rows: list) -> "OneSample":
        """Run on inputs of these first sizes, and return itself."""
        inputs = [
            keras.KerasTensor((n, *x.shape[1:]), x.dtype, sparse=x.sparse)
            for x, n in zip(graph_of(graph).inputs, rows, strict=True)
        ]
        self.run(graph, inputs)
        return self

    def call(self, call, values):
        try:
            return output_tensors(call, values)
        except Exception:  # Its code takes no batch of this size.
            first = values[id(call.inputs[0])].shape[:1]
            return [
                keras.KerasTensor((*first, *x.shape[1:]), x.dtype)
                for x in call.outputs
            ]

    def made(self, x, value, path):
        if not path:
            self.sizes[id(x)] = value.shape[0] if value.shape else None


def with_open_batch(call, twice):
    """The shape that a `Reshape` makes, whatever the size of the batch.

    Args:
        call: the call, for a batch of one sample.
        twice: the same call for a batch of two, or None if not known.
    """
    old, made = call.operation.newshape, call.outputs[0].shape
    other = () if twice is None else twice.outputs[0].shape
    if None in made or len(made) != len(other):
        return old
    grows = [n for n, size in enumerate(made) if size != other[n]]
    if len(grows) != 1:
        return old
    return tuple(-1 if n in grows else size for n, size in enumerate(made))
