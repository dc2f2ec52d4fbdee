"""Calibration data: what `Model.predict` takes, batch after batch."""

import itertools
import warnings
from collections.abc import Iterator

import keras
import numpy as np

from keras_redundancy import _keras_internals as internals

# Batches of an iterator that are kept to repair BatchNormalization with.
REMEMBERED = 32


def batches(model, data, batch_size: int):
    """The model's inputs, a list of arrays per batch.

    Args:
        model: a functional or Sequential model.
        data: arrays, a `tf.data.Dataset`, a `PyDataset` or a generator, as
            `Model.predict` takes them; targets and weights are left out.
        batch_size: for arrays; the others make batches of their own.

    Raises:
        TypeError: `data` is of a kind that Keras does not take.
        ValueError: it is empty, or does not fit the model's inputs.
    """
    graph = internals.graph_of(model)
    is_empty = True
    for x in _batches_of(data, batch_size):
        is_empty = False
        yield _checked(graph, x)
    if is_empty:
        raise ValueError(
            "data is empty: there is no batch to calibrate on. Pass some "
            "hundred samples like those that the model was trained on; a "
            "generator that has run out has to be made anew."
        )


def reusable(data):
    """`data`, and what to use in its place after it has been used.

    An iterator can be used once: of it the first `REMEMBERED` batches are
    remembered, all others are not.
    """
    if not isinstance(data, Iterator):
        return data, data
    kept = _Remembered()
    return _remembering(data, kept), kept


def remembered(data):
    """What to use of `data` several times: of an iterator its first batches."""
    if not isinstance(data, Iterator):
        return data
    return _Remembered(itertools.islice(data, REMEMBERED))


class _Remembered(list):
    """Batches."""


def _remembering(data, kept):
    for batch in data:
        if len(kept) < REMEMBERED:
            kept.append(batch)
        yield batch


def _batches_of(data, batch_size):
    if hasattr(data, "__len__") and not len(data):
        return
    try:
        if isinstance(data, Iterator | _Remembered):
            # Keras looks at the first batch before it is asked for one.
            data = iter(data)
            first = list(itertools.islice(data, 1))
            if not first:
                return
            data = itertools.chain(first, data)
            del first
            data = (x if isinstance(x, tuple) else (x,) for x in data)
        found = internals.numpy_batches(data, batch_size)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"data is {type(data).__name__}, which Keras cannot make batches "
            f"of: {str(error)[:200]}\nPass what Model.predict takes: arrays, a "
            "tf.data.Dataset, a keras.utils.PyDataset or a generator."
        ) from error
    for batch in found:
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]


def _checked(graph, x):
    """`x` as a list of arrays in the order of the model's inputs."""
    shapes = keras.tree.map_structure(np.shape, x)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="The structure of")
            tensors = internals.standardized_inputs(graph, x)
    except (TypeError, ValueError, KeyError, UserWarning) as error:
        raise _misfit(graph, shapes) from error
    if len(tensors) != len(graph.inputs) or not all(
        _fits(np.shape(tensor), x.shape)
        for tensor, x in zip(tensors, graph.inputs, strict=True)
    ):
        raise _misfit(graph, shapes)
    arrays = [np.asarray(tensor) for tensor in tensors]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(
            "data holds NaN or infinity. Leave such samples out, or fill in "
            "what is missing as it was for training."
        )
    return arrays


def _fits(given, wanted):
    return len(given) == len(wanted) and all(
        size is None or size == own
        for own, size in zip(given[1:], wanted[1:], strict=True)
    )


def _misfit(graph, shapes):
    wanted = ", ".join(str(tuple(x.shape)) for x in graph.inputs)
    return ValueError(
        f"data has batches of shape {shapes}, but the model takes {wanted}. "
        "Pass what Model.predict takes: the inputs alone, without targets, "
        "and with a batch axis."
    )
