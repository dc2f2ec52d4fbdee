"""A kernel as a matrix: a row for each input, a column for each unit."""

import numpy as np
from keras import ops

# What a vector of a kernel belongs to, and the axis along which the vectors
# are counted.
SIDES = {"input": -2, "unit": -1}

# What the vectors of each side are called in a matrix.
SIZES = {"input": "rows", "unit": "columns"}

VECTORS = ("both", "units", "inputs")


def sides_of(vectors: str) -> list[str]:
    """The names in `SIDES` that "both", "units" or "inputs" stands for."""
    return [side for side in SIDES if vectors in ("both", f"{side}s")]


def as_columns(kernel, side: str):
    """A kernel as a matrix whose columns are the vectors of one side.

    Args:
        kernel: an array or tensor, shape (..., inputs, units).
        side: "unit" or "input".

    Returns:
        A matrix of the same kind, shape (numbers, units) or (numbers, inputs).
    """
    axis = SIDES[side]
    if isinstance(kernel, np.ndarray):
        return np.moveaxis(kernel, axis, -1).reshape(-1, kernel.shape[axis])
    kernel = ops.moveaxis(kernel, axis, -1)
    return ops.reshape(kernel, (-1, kernel.shape[-1]))
