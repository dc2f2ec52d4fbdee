"""Models to deploy, as what runs on arrays; and arrays to run them on."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.random_inputs import random_input
from keras_redundancy.calibration.data import Samples, batches
from keras_redundancy.channels.functional import with_graph

OPEN_SIZE = 32  # Of random inputs, where a model leaves a size open.


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A model of Keras 3 or of tf_keras.

    Attributes:
        model: the model.
        inputs: its input tensors, in order.
        structure: the inputs in the structure that the model takes.
        output_names: those in exported files, in order.
    """

    model: Any
    inputs: tuple
    structure: Any
    output_names: tuple[str, ...]

    @classmethod
    def of(cls, model):
        """The graph of a subclassed model is recorded.

        Raises:
            TypeError, ValueError: a Keras 3 model has no graph, or is not
                built.
        """
        if type(model).__module__.startswith("tf_keras."):
            inputs, outputs = list(model.inputs), list(model.outputs)
            return cls(model, tuple(inputs), inputs, _names(outputs))
        model = with_graph(model)
        graph = _keras.graph_of(model)
        structure = _keras.input_structure(graph)
        names = _names(_keras.output_structure(graph))
        return cls(model, tuple(graph.inputs), structure, names)

    @property
    def is_keras_3(self) -> bool:
        return isinstance(self.model, keras.Model)

    @property
    def layers(self) -> list:
        """All layers, those of nested models included."""
        if self.is_keras_3:
            return _keras.flat_layers(self.model)
        return self.model.layers

    def predict(self, arrays: list) -> list[np.ndarray]:
        """The outputs for a batch, an array for each input."""
        given = keras.tree.pack_sequence_as(self.structure, arrays)
        with _keras.quiet_about_retracing(), _keras.without_gradients():
            # Not predict(): to compile the model takes longer.
            found = self.model(given, training=False)
        found = keras.tree.flatten(found)
        if self.is_keras_3:
            found = map(keras.ops.convert_to_numpy, found)
        return [np.asarray(x, "float64") for x in found]

    def samples(self, data, count: int) -> list[np.ndarray]:
        """The first samples of some data; random ones where `data` is None.

        Args:
            data: what `Model.predict` takes; for a tf_keras model, arrays.
            count: the number of samples, at most.

        Returns:
            An array for each input.

        Raises:
            TypeError, ValueError: `data` does not fit the model, or is empty.
        """
        if data is None:
            return self._random(count)
        if not self.is_keras_3:
            return [np.asarray(x)[:count] for x in keras.tree.flatten(data)]
        found = []
        for batch in batches(self.model, Samples(data, steps=count), count):
            found.append(batch)
            if sum(len(batch[0]) for batch in found) >= count:
                break
        return [np.concatenate(x)[:count] for x in zip(*found, strict=True)]

    def one_by_one(self, samples: list) -> Iterator[dict[str, np.ndarray]]:
        """Batches of one sample, as exported files take them."""
        names = [x.name for x in self.inputs]
        for number in range(len(samples[0])):
            one = [x[number : number + 1] for x in samples]
            yield dict(zip(names, one, strict=True))

    def _random(self, count):
        """Integers, and what an Embedding reads, are words that it has."""
        rng = np.random.default_rng(0)
        words = [
            layer.input_dim
            for layer in self.layers
            if type(layer).__name__ == "Embedding"
        ]
        found = []
        for x in self.inputs:
            shape = (count, *(size or OPEN_SIZE for size in x.shape[1:]))
            made = random_input(rng, shape, x.dtype)
            kind = made.dtype.kind
            if kind in "biu" or (words and kind == "f"):
                most = min(words, default=2)
                made = rng.integers(0, most, shape).astype(made.dtype)
            found.append(made)
        return found


def _names(structure):
    """The names that `Model.export` gives to outputs."""
    if isinstance(structure, dict):
        return tuple(sorted(structure))
    count = len(keras.tree.flatten(structure))
    return tuple(f"output_{number}" for number in range(count))


def difference(wanted: list, given: list) -> float:
    """The largest difference of outputs, as a share of the largest output."""
    found = [
        abs(a - b).max(initial=0) / max(abs(a).max(initial=0), 1e-12)
        for a, b in zip(wanted, given, strict=True)
    ]
    return float(np.max(found))  # NaN if one of them is.
