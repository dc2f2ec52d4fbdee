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
        An optional mask that is not given is left out.
    """
    inputs = _keras.graph_of(model).inputs
    return [
        tensor
        for x, tensor in zip(inputs, tensors, strict=True)
        if tensor is not None
        and PADDING_MASK.search(x.name)
        and len(x.shape) == 2
    ]


def counting(x, masks: list, mask=None):
    """Which positions of a tensor count: 1 or 0, as another tensor.

    Args:
        x: shape (samples, positions, ..., numbers).
        masks: what `padding_masks` returns.
        mask: that of Keras for the tensor, shape (samples, positions), or
            None.

    Returns:
        Shape (samples, positions, ..., 1). None if all positions count: where
        there is no mask of Keras, and not just one of the others is as long as
        the tensor.
    """
    if len(x.shape) < 3 or (mask is None and not masks):
        return None
    if mask is not None and tuple(mask.shape[1:]) == (x.shape[1],):
        own = ops.cast(mask, "bool")
    elif any(
        size is None for size in (x.shape[1], *(m.shape[1] for m in masks))
    ):
        own = _of_open_length(x, masks)
    else:
        masks = [mask for mask in masks if mask.shape[1] == x.shape[1]]
        if len(masks) != 1:
            return None
        own = ops.cast(masks[0], "bool")
    shape = ops.shape(x)
    ones = (1,) * (len(x.shape) - 2)
    mask = ops.reshape(own, (*shape[:2], *ones))
    return ops.broadcast_to(mask, (*shape[:-1], 1))


def _of_open_length(x, masks):
    """The mask of a tensor where lengths are known only when it is computed.

    All positions count where not just one of the masks is as long.
    """
    length = ops.shape(x)[1]
    found, count = False, 0
    for mask in masks:
        size = ops.shape(mask)[1]
        places = ops.minimum(ops.arange(length), size - 1)
        mask = ops.take(ops.cast(mask, "bool"), places, axis=1)
        is_same = ops.equal(length, size)
        found = ops.logical_or(found, ops.logical_and(mask, is_same))
        count = count + ops.cast(is_same, "int32")
    return ops.logical_or(found, ops.not_equal(count, 1))
