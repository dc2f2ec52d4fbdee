"""Constraints for `kernel_constraint=`."""

import keras
from keras import ops

from keras_redundancy.options import check_positive


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FrobeniusNorm(keras.constraints.Constraint):
    """Scales a weight to a given Frobenius norm after each training step.

    Its direction is left to the optimizer, its size is not. For a size that
    is trained too, see `FrobeniusNormalization`.

    Args:
        norm: the root of the sum of all squared weights, greater than 0.

    Raises:
        TypeError, ValueError: `norm` is no such number.

    Example:

        keras.layers.Dense(500, kernel_constraint=kr.FrobeniusNorm(10.0))
    """

    def __init__(self, norm: float = 1.0):
        self.norm = check_positive("norm", norm)

    def __call__(self, w):
        return ops.cast(self.norm, w.dtype) * scaled_to_one(w)

    def get_config(self):
        return {"norm": self.norm}


def scaled_to_one(w):
    """A tensor over its Frobenius norm; one of zeros stays what it is."""
    squares = ops.sum(ops.square(w))
    has_size = squares > 0
    return w * ops.where(
        has_size, ops.rsqrt(ops.where(has_size, squares, 1)), 1
    )
