"""What one sample is made of, where axis 0 holds more than the batch.

Attention in windows makes samples of windows, code may make samples of the
steps of a sequence, and two inputs may be joined along the batch axis. The
size of axis 0 is open there, and it is not that of the batch. What one sample
has of it shows where the operation is called on a batch of one sample.
"""

import keras
from keras import layers

from keras_redundancy import _keras


def batch_of(tensors) -> int:
    """The batch that is counted: one sample, or the batch that a model has.

    Args:
        tensors: the `KerasTensor`s that a model is called on.
    """
    sizes = [x.shape[0] for x in tensors if x.shape]
    return 1 if None in sizes or not sizes else max(sizes)


def samples_returned(call, given, outputs, batch: int) -> list:
    """The `sample` of each `Traced` that a call returns.

    Args:
        call: a `Call` or an `ImaginedCall`.
        given: a `Traced` for each of its inputs.
        outputs: `KerasTensor`s of what it returns, with the batch open.
        batch: what `batch_of` returns for the model.
    """
    is_plain = all(x.sample is None for x in given)
    if call.node is None or (is_plain and _keeps_samples(call.operation)):
        return [None] * len(outputs)
    tensors = [
        _with_rows(x.tensor, batch) if x.sample is None else x.sample
        for x in given
    ]
    try:
        twins = dict(zip(map(id, call.inputs), tensors, strict=True))
        shapes = [x.shape for x in _keras.output_tensors(call, twins)]
    except Exception:  # Its code takes no batch of this size.
        shapes = [(tensors[0].shape[0], *x.shape[1:]) for x in outputs]
    return [
        None if shape == _with_rows(x, batch).shape else _of_shape(x, shape)
        for x, shape in zip(outputs, shapes, strict=True)
    ]


def sample_inside(x, tensor):
    """The `Traced.sample` of a tensor inside of a layer that reads `x`."""
    if x.sample is None or not x.sample.shape or not tensor.shape:
        return None
    return _of_shape(tensor, (x.sample.shape[0], *tensor.shape[1:]))


def sizes_of(tensor, sample, batch: int) -> tuple:
    """The sizes of a tensor for the batch that is counted.

    Args:
        tensor, sample, batch: as in `Traced` and `batch_of`.
    """
    return (_with_rows(tensor, batch) if sample is None else sample).shape


def _with_rows(tensor, rows):
    """`tensor` with an open axis 0 of the size `rows`."""
    if not tensor.shape or tensor.shape[0] is not None:
        return tensor
    return _of_shape(tensor, (rows, *tensor.shape[1:]))


def _of_shape(tensor, shape):
    return keras.KerasTensor(shape, tensor.dtype, sparse=tensor.sparse)


NOT_OF_SAMPLES = (layers.Lambda, _keras.Constant, _keras.Weight)


def _keeps_samples(operation):
    """Whether it is known to return one entry on axis 0 for each it reads."""
    return (
        isinstance(operation, keras.Layer)
        and _keras.is_stock_class(type(operation))
        and not isinstance(operation, NOT_OF_SAMPLES)
        and getattr(operation, "axis", None) != 0
    )
