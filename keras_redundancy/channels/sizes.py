"""Models with open input sizes, counted on inputs of a given shape."""

import dataclasses
from collections.abc import Mapping
from numbers import Integral

import keras

from keras_redundancy import _keras
from keras_redundancy.channels.tracing import record


def has_open_sizes(model) -> bool:
    """Whether a size of an input, beside the batch's, is not known."""
    inputs = _keras.graph_of(model).inputs
    return any(None in x.shape[1:] for x in inputs)


def at_shapes(graph, shapes):
    """A traced model, its multiply-adds counted on inputs of these shapes.

    What the trace says of channels stays what it is: it holds for all sizes.

    Args:
        graph: a `ChannelGraph`.
        shapes: that of a sample for each input; None for one that stays open.

    Raises:
        ValueError: the model cannot be called on such inputs.
    """
    inputs = _keras.graph_of(graph.model).inputs
    shapes = tuple(
        tuple(x.shape[1:]) if shape is None else tuple(shape)
        for x, shape in zip(inputs, shapes, strict=True)
    )
    tensors = [
        keras.KerasTensor((x.shape[0], *shape), x.dtype, sparse=x.sparse)
        for x, shape in zip(inputs, shapes, strict=True)
    ]
    try:
        products = record(graph.model, tensors, graph.chosen).products
    except ValueError as error:
        raise ValueError(
            f"{graph.model.name!r} cannot be called on inputs of shape "
            f"{', '.join(map(str, shapes))}: {error}"
        ) from error
    return dataclasses.replace(
        graph,
        products=tuple(_with_labels_of(graph, products)),
        input_shapes=shapes,
    )


def _with_labels_of(graph, products):
    """Products of another trace, for each channel of this one.

    Where open sizes kept this trace from following an operation, its channels
    stay: they are counted as they are.
    """
    labels = {}
    for product in graph.products:
        labels.setdefault(_place(product), []).append(product.per)
    for product in products:
        if product.per is not None:
            known = labels.get(_place(product))
            if known:
                product = dataclasses.replace(product, per=known.pop(0))
            elif product.positions is not None:
                count = product.positions * len(product.per)
                product = dataclasses.replace(
                    product, positions=count, per=None
                )
        yield product


def _place(product):
    return id(product.layer), id(product.kernel)


def checked_shapes(model, input_shape) -> tuple[tuple[int, ...], ...]:
    """The shape of a sample of each input, from what a caller gives.

    Args:
        model: a functional or Sequential model.
        input_shape: sizes without the batch's, such as (224, 224, 3); for
            several inputs a list of them, or a mapping from their names.

    Raises:
        ValueError: it is not that, leaves a size open, or does not fit.
    """
    inputs = _keras.graph_of(model).inputs
    if isinstance(input_shape, Mapping):
        shapes = [input_shape.get(x.name) for x in inputs]
    elif _has_several(input_shape):
        shapes = list(input_shape)
    else:
        shapes = [input_shape]
    if len(shapes) == len(inputs):
        shapes = [
            _without_batch(x, shape)
            for x, shape in zip(inputs, shapes, strict=True)
        ]
        if None not in shapes:
            return tuple(shapes)
    wanted = {x.name: tuple(x.shape[1:]) for x in inputs}
    raise ValueError(
        f"input_shape={input_shape!r} is not the shape of a sample of "
        f"{model.name!r}, whose inputs are {wanted}. Give all sizes but the "
        "batch's, as integers that fit these, such as (224, 224, 3); for "
        "several inputs a list of shapes, or a mapping from their names."
    )


def _has_several(input_shape):
    return isinstance(input_shape, tuple | list) and any(
        isinstance(x, tuple | list) for x in input_shape
    )


def _without_batch(x, shape):
    """The shape of a sample, or None if it does not fit the input `x`."""
    if not isinstance(shape, tuple | list):
        return None
    if len(shape) == len(x.shape) and shape[0] is None:
        shape = shape[1:]
    fits = len(shape) == len(x.shape) - 1 and all(
        isinstance(size, Integral) and size > 0 and own in (None, size)
        for size, own in zip(shape, x.shape[1:], strict=True)
    )
    return tuple(map(int, shape)) if fits else None
