"""The Frobenius norm: a constraint, and its inverse for other layers."""

import keras
from keras import ops

from keras_redundancy._shared.arguments import check_positive


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FrobeniusNorm(keras.constraints.Constraint):
    """Scales a weight to a given Frobenius norm after each training step.

    The optimizer then trains its direction alone. To train the norm as well,
    use `FrobeniusNormalization`.

    Args:
        norm: sqrt(sum of all squared weights), greater than 0.

    Raises:
        TypeError, ValueError: `norm` is not a finite number greater than 0.

    Example:

        keras.layers.Dense(500, kernel_constraint=kr.FrobeniusNorm(10.0))
    """

    def __init__(self, norm: float = 1.0):
        self.norm = check_positive("norm", norm)

    def __call__(self, w):
        # In float16 a large factor, or a small norm, would be lost.
        factor = self.norm * inverse_norm(w)
        return ops.cast(ops.cast(w, factor.dtype) * factor, w.dtype)

    def get_config(self):
        return {"norm": self.norm}


def inverse_norm(w):
    """1 / ||w||, with the Frobenius norm ||w||; 1 for a tensor of zeros.

    A scalar, computed in float32 at least: float16 cannot hold the squares of
    small weights.
    """
    if keras.backend.standardize_dtype(w.dtype) != "float64":
        w = ops.cast(w, "float32")
    squares = ops.sum(ops.square(w))
    # Never a division by 0, even where `where` discards the result: its
    # gradient would be NaN.
    return ops.rsqrt(ops.where(squares > 0, squares, 1))
