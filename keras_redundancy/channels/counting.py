"""Multiply-adds: products of a trace counted anew, on inputs of other sizes."""

import dataclasses
import math

from keras_redundancy import _keras
from keras_redundancy._keras import numpy_operations as ops


def with_labels_of(graph, products) -> list:
    """Products of another trace, for each channel of this one.

    Where open sizes kept this trace from following an operation, its channels
    stay: they are counted as they are.

    Args:
        graph: a `ChannelGraph`.
        products: what a trace of the same model on other tensors counted.
    """
    labels, found = {}, []
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
        found.append(product)
    return found


def _place(product):
    return id(product.layer), id(product.kernel)


def puts_positions_among_samples(model) -> bool:
    """Whether code makes one axis of samples and positions, or two of one.

    As of tokens that experts read, or of windows of images. So long as the
    number of samples is open, it is not known how many positions each has.
    """
    return any(
        _numbers(call.inputs[0]) != _numbers(call.outputs[0])
        for call in _keras.flat_graph(model).calls
        if isinstance(call.operation, ops.Reshape)
    )


def _numbers(x):
    """How many numbers a tensor has for each entry of its first axis."""
    sizes = x.shape[1:]
    is_known = x.shape[:1] == (None,) and None not in sizes
    return math.prod(sizes) if is_known else None
