"""Padding: positions of a sequence that hold nothing do not count."""

import re

from keras import ops

from keras_redundancy import _keras

PADDING_MASK = re.compile("(^|_)padding_mask$")


def padding_masks(model, tensors: list) -> list:
    """The masks among the inputs of a model: those named "padding_mask".

    Args:
        model: a functional or Sequential model.
        tensors: what it is called with.

    Returns:
        Tensors of shape (samples, positions), 0 at positions that are padded.
    """
    inputs = _keras.graph_of(model).inputs
    return [
        tensor
        for x, tensor in zip(inputs, tensors, strict=True)
        if tensor is not None
        and PADDING_MASK.search(x.name)
        and len(x.shape) == 2
    ]


def counting(x, masks: list):
    """Which positions of a tensor count: 1 or 0, as another tensor.

    Args:
        x: shape (samples, positions, ..., numbers).
        masks: what `padding_masks` returns.

    Returns:
        Shape (samples, positions, ..., 1). None if all positions count: where
        not just one of the masks is as long as the tensor.
    """
    if len(x.shape) < 3 or x.shape[1] is None:
        return None
    own = [mask for mask in masks if mask.shape[1] == x.shape[1]]
    if len(own) != 1:
        return None
    shape = ops.shape(x)
    ones = (1,) * (len(x.shape) - 2)
    mask = ops.reshape(ops.cast(own[0], "bool"), (*shape[:2], *ones))
    return ops.broadcast_to(mask, (*shape[:-1], 1))
