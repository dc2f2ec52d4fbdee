"""Inputs that are changed for training, by a function of the caller's."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.tables import shown


@dataclasses.dataclass(frozen=True, eq=False)
class Augment:
    """Changes batches of inputs, and checks what comes back.

    Attributes:
        change: a function of a batch, or a layer, which is called with
            training=True.
        shapes: those of the model's inputs, in their order.
    """

    change: Callable
    shapes: list[tuple[int | None, ...]]

    @classmethod
    def of(cls, model, change) -> "Augment | None":
        """For the inputs of a model; None without a function."""
        if change is None:
            return None
        inputs = _keras.graph_of(model).inputs
        return cls(change, [tuple(x.shape) for x in inputs])

    def __call__(self, x):
        """Arrays in the structure of `x`, those that the function makes of it.

        Raises:
            ValueError: it returns something else than a batch of inputs.
        """
        is_layer = isinstance(self.change, keras.Layer)
        options = {"training": True} if is_layer else {}
        found = self.change(x, **options)
        try:
            arrays = keras.tree.map_structure(
                lambda _, y: keras.ops.convert_to_numpy(y),
                x,
                keras.tree.lists_to_tuples(found),
            )
        except (TypeError, ValueError) as error:
            raise self._misfit(x, found) from error
        flat = keras.tree.flatten(arrays)
        count = len(keras.tree.flatten(x)[0])
        if not all(
            _fits(y.shape, (count, *shape[1:]))
            for y, shape in zip(flat, self.shapes, strict=True)
        ):
            raise self._misfit(x, found)
        return arrays

    def _misfit(self, given, found):
        given = keras.tree.map_structure(np.shape, given)
        is_nested = keras.tree.is_nested(found)
        if is_nested:
            found = keras.tree.map_structure(_shape, found)
        received = f"arrays of shapes {found}" if is_nested else shown(found)
        wanted = ", ".join(map(str, self.shapes))
        return ValueError(
            f"augment was given a batch of shape {given} and returned "
            f"{received}, but the model takes {wanted}. Return the batch with "
            "as many samples as it had, each of the shape that the model takes."
        )


def _shape(x):
    shape = getattr(x, "shape", None)
    return None if shape is None else tuple(shape)


def _fits(shape, wanted):
    return len(shape) == len(wanted) and all(
        size in (None, own) for own, size in zip(shape, wanted, strict=True)
    )
