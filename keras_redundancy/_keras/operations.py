"""Classes of operations and layers that Keras does not export."""

import keras
import numpy as np
from keras.src.activations import activations
from keras.src.applications.convnext import LayerScale as LayerScale
from keras.src.applications.inception_resnet_v2 import (
    CustomScaleLayer as CustomScaleLayer,
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


def is_added_as_bias(operation, args, kwargs) -> bool:
    """Whether Keras adds an array along another axis than the array's own.

    On TensorFlow, Keras 3.15 adds an array with one long axis as a bias along
    the last axis of a tensor, or else along axis 1, wherever these have as
    many entries: x + v of the shapes (batch, 5, 5) and (5, 1) is x + v[:, 0].
    Where the array is the first operand, it does not.
    """
    if not isinstance(operation, numpy.Add):
        return False
    x, array = both_operands(args, kwargs)
    if isinstance(array, keras.KerasTensor) or not np.ndim(array):
        return False
    if not isinstance(x, keras.KerasTensor) or len(x.shape) < 2:
        return False
    long = [axis for axis, n in enumerate(np.shape(array)) if n > 1]
    if len(long) != 1 or keras.backend.backend() != "tensorflow":
        return False
    rank, size = len(x.shape), np.shape(array)[long[0]]
    taken = [axis for axis in (rank - 1, 1) if x.shape[axis] == size]
    return bool(taken) and taken[0] != long[0] + rank - np.ndim(array)


def both_operands(args, kwargs) -> tuple:
    """The operands of an operation such as `keras.ops.add`."""
    return *args, *(kwargs[name] for name in ("x1", "x2")[len(args) :])
