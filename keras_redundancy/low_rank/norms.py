"""Constraints for `kernel_constraint=`."""

import keras
from keras import ops

from keras_redundancy._shared.arguments import check_positive


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
        # float16 holds neither large factors nor the size of small weights.
        factor = self.norm * inverse_norm(w)
        return ops.cast(ops.cast(w, factor.dtype) * factor, w.dtype)

    def get_config(self):
        return {"norm": self.norm}


def inverse_norm(w):
    """1 / ||w||, the Frobenius norm; 1 for a tensor of zeros.

    In float32 at least: squares of small weights are lost in float16.
    """
    if keras.backend.standardize_dtype(w.dtype) != "float64":
        w = ops.cast(w, "float32")
    squares = ops.sum(ops.square(w))
    # No branch divides by 0: its gradient would be NaN in both.
    return ops.rsqrt(ops.where(squares > 0, squares, 1))
