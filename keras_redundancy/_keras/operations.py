"""Classes of operations and layers that Keras does not export."""

import keras
import numpy as np
from keras.src.activations import activations
from keras.src.applications.convnext import LayerScale as LayerScale
from keras.src.applications.inception_resnet_v2 import (
    CustomScaleLayer as CustomScaleLayer,
)
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_conv_transpose import (
    BaseConvTranspose,
)
from keras.src.layers.convolutional.base_depthwise_conv import (
    BaseDepthwiseConv,
)
from keras.src.layers.convolutional.base_separable_conv import (
    BaseSeparableConv,
)
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as ConvLSTMCell
from keras.src.ops import core, image, linalg, math, nn, numpy

ReLUOperation = activations.ReLU  # Of `keras.activations.relu`.
core_operations = core
image_operations = image
linalg_operations = linalg
math_operations = math
nn_operations = nn
numpy_operations = numpy
CONVOLUTIONS = (
    BaseConv,
    BaseConvTranspose,
    BaseDepthwiseConv,
    BaseSeparableConv,
)


# What calls `keras.ops.add`.
SUMS = (numpy.Add, keras.layers.Add, keras.layers.Average)


def is_added_as_bias(operation, args, kwargs, of_any_size=False) -> bool:
    """Whether Keras adds an operand along another axis than its own.

    On TensorFlow, Keras 3.15 adds an operand with one long axis as a bias
    along the last axis of a tensor, or else along axis 1, wherever these have
    as many entries: x + v of the shapes (batch, 5, 5) and (5, 1) is
    x + v[:, 0]. Where it is the first operand, it does not.

    Args:
        operation: any layer or operation.
        args, kwargs: what it is called on.
        of_any_size: whether it may be so for some size of an open axis, such
            as one sample.
    """
    if not isinstance(operation, SUMS):
        return False
    first, *others = map(np.shape, _operands(operation, args, kwargs))
    for shape in others:
        if of_any_size:
            shape = [1 if n is None else n for n in shape]
        if _is_along_another_axis(first, shape):
            return True
        if len(first) != len(shape):
            return False
        first = [b if a == 1 else a for a, b in zip(first, shape, strict=True)]
    return False


def in_order_of_size(operation, args, kwargs) -> tuple[tuple, dict]:
    """(args, kwargs) of a sum, the operands with fewest long axes first.

    An operand that comes first is not added as a bias: see
    `is_added_as_bias`.
    """

    def long_axes(x):
        return sum(n is None or n > 1 for n in np.shape(x))

    operands = sorted(_operands(operation, args, kwargs), key=long_axes)
    if isinstance(operation, keras.Layer):
        return (operands,), {}
    return tuple(operands), {}


def _operands(operation, args, kwargs):
    if isinstance(operation, keras.Layer):
        return keras.tree.flatten((args, kwargs))
    return both_operands(args, kwargs)


def adds_bias_elsewhere(layer, outputs: list) -> bool:
    """Whether Keras adds the bias of a layer along another axis than its own.

    So it does for convolutions with the channels first, see
    `is_added_as_bias`.

    Args:
        layer: a layer that has been built, or an operation.
        outputs: the tensors that it returns.
    """
    known = (keras.layers.EinsumDense, *CONVOLUTIONS)
    if not isinstance(layer, known) or layer.bias is None:
        return False
    shape = tuple(layer.bias.shape)
    if isinstance(layer, CONVOLUTIONS):
        if layer.data_format == "channels_last":
            return False
        shape = *shape, *[1] * layer.rank
    return _is_along_another_axis(outputs[0].shape, shape)


def _is_along_another_axis(shape, added):
    long = [axis for axis, n in enumerate(added) if n is None or n > 1]
    if len(shape) < 2 or len(long) != 1 or added[long[0]] is None:
        return False
    if keras.backend.backend() != "tensorflow":
        return False
    rank, size = len(shape), added[long[0]]
    taken = [axis for axis in (rank - 1, 1) if shape[axis] == size]
    return bool(taken) and taken[0] != long[0] + rank - len(added)


def both_operands(args, kwargs) -> tuple:
    """The operands of an operation such as `keras.ops.add`."""
    return *args, *(kwargs[name] for name in ("x1", "x2")[len(args) :])
