"""How much of a weight matrix's rank is used.

All measures take singular values, so that one decomposition serves them all:

    s = singular_values(W)
    effective_rank(s), stable_rank(s), trace_complexity(s, W.shape)

A zero matrix has singular values 0, and every measure of it is 0.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_redundancy._shared.arguments import check_fraction
from keras_redundancy.numbers.similarity import as_kernel_matrix

# Rows of the longer side that are converted to float64 at a time.
_ROWS_PER_BLOCK = 4096


def singular_values(W: ArrayLike) -> NDArray[np.float64]:
    """Singular values of a matrix, largest first.

    They are the square roots of the eigenvalues of the smaller of ``W W^T``
    and ``W^T W``, formed in float64 whatever the dtype of `W`. Squaring
    halves the digits: each value is right to about 1e-7 of the largest one,
    and what is smaller than that (for ``k = min(z, n)`` values, smaller than
    ``sqrt(k * 2.2e-16)`` of the largest) is returned as 0. Use
    `numpy.linalg.svd` where the smallest values themselves matter.

    Args:
        W: matrix of shape ``(z, n)``. It is not modified.

    Returns:
        Array of shape ``(min(z, n),)``, not negative, descending.

    Raises:
        TypeError: if `W` does not hold real numbers.
        ValueError: if `W` is not a matrix, is empty, or holds NaN or
            infinity.
    """
    matrix = as_kernel_matrix(W)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    peak = float(max(abs(matrix.min()), abs(matrix.max())))
    if not np.isfinite(peak):
        raise ValueError(
            "W holds NaN or infinity, so that it has no singular values. "
            "Look for a training run that diverged, and load weights from "
            "before it did."
        )
    exponent = int(np.frexp(peak)[1])
    size = tall.shape[1]
    gram = np.zeros((size, size))
    for start in range(0, len(tall), _ROWS_PER_BLOCK):
        block = tall[start : start + _ROWS_PER_BLOCK].astype(np.float64)
        block = np.ldexp(block, -exponent)
        gram += block.T @ block
    eigenvalues = np.linalg.eigvalsh(gram)[::-1]
    noise = eigenvalues[0] * size * np.finfo(np.float64).eps
    eigenvalues = np.where(eigenvalues > noise, eigenvalues, 0)
    return np.ldexp(np.sqrt(eigenvalues), exponent)


def effective_rank(singular_values: ArrayLike) -> float:
    """Exponential of the entropy of the normalised singular values.

    ``exp(-sum(p * log(p)))`` with ``p = s / sum(s)``: between 1 and the
    number of singular values, and equal to it where all are the same. From
    Roy and Vetterli, *The effective rank* (EUSIPCO 2007), definition 1.

    Args:
        singular_values: shape ``(k,)``, in any order.

    Returns:
        The effective rank; 0 for a zero matrix, for which the paper leaves
        it undefined.

    Raises:
        TypeError: if the values are not real numbers.
        ValueError: if they are not a list of finite numbers from 0 up.
    """
    values = _relative_values(singular_values)
    values = values[values > 0]
    if values.size == 0:
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def stable_rank(singular_values: ArrayLike) -> float:
    """Squared Frobenius norm over squared spectral norm.

    ``sum(s**2) / max(s)**2``: at most the rank, and insensitive to small
    singular values.

    Args:
        singular_values: shape ``(k,)``, in any order.

    Returns:
        The stable rank; 0 for a zero matrix.

    Raises:
        TypeError: if the values are not real numbers.
        ValueError: if they are not a list of finite numbers from 0 up.
    """
    return float(np.sum(_relative_values(singular_values) ** 2))


def trace_complexity(singular_values: ArrayLike, shape: Sequence[int]) -> float:
    """Trace norm over the square root of the number of weights.

    ``sum(s) / sqrt(m * n)`` for a matrix of shape ``(m, n)``, as in
    RoyChowdhury, Sharma and Learned-Miller, *Reducing Duplicate Filters in
    Deep Neural Networks* (2017). It is proportional to the scale of the
    weights: compare matrices that are normalised alike.

    Args:
        singular_values: shape ``(k,)``, in any order.
        shape: shape of the matrix, two positive integers.

    Returns:
        The trace complexity; 0 for a zero matrix.

    Raises:
        TypeError: if the values are not real numbers.
        ValueError: if they are not a list of finite numbers from 0 up, or
            `shape` is not two positive numbers.
    """
    values = _as_singular_values(singular_values)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"shape is {tuple(shape)}, but a weight matrix has two sides, "
            "each of at least 1. Pass the shape of the matrix that the "
            "singular values come from."
        )
    rows, columns = (float(side) for side in shape)
    return float(np.sum(values / np.sqrt(rows * columns)))


def energy_rank(singular_values: ArrayLike, energy: float = 0.99) -> int:
    """How many singular values hold a share of the squared Frobenius norm.

    The smallest ``r`` such that the ``r`` largest values have at least
    `energy` of ``sum(s**2)``, up to rounding (1e-12 of the sum): the rank
    that a truncated decomposition needs for a relative squared error of
    ``1 - energy``.

    Args:
        singular_values: shape ``(k,)``, in any order.
        energy: share in (0, 1].

    Returns:
        A number from 1 to ``k``; 0 for a zero matrix.

    Raises:
        TypeError: if `energy` or the values are not real numbers.
        ValueError: if `energy` is out of range, or the values are not a list
            of finite numbers from 0 up.
    """
    meaning = "the share of the squared singular values to hold"
    energy = check_fraction("energy", energy, meaning, one=True, example=0.99)
    values = np.sort(_relative_values(singular_values))[::-1]
    held = np.cumsum(values**2)
    if held[-1] == 0:
        return 0
    wanted = (energy - 1e-12) * held[-1]
    return int(np.searchsorted(held, wanted)) + 1


def _as_singular_values(values: ArrayLike) -> NDArray[np.float64]:
    """`values` as a checked float64 array of shape ``(k,)``."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"The singular values have dtype {array.dtype}, but they are "
            "real numbers. Pass what singular_values(W) returns."
        )
    array = array.astype(np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"The singular values have shape {array.shape}, but they are a "
            "list of at least one. For a matrix W, pass singular_values(W)."
        )
    if not np.all(np.isfinite(array) & (array >= 0)):
        raise ValueError(
            "The singular values hold a negative number, NaN or infinity, "
            "which no singular value is. Pass what singular_values(W) "
            "returns."
        )
    return array


def _relative_values(values: ArrayLike) -> NDArray[np.float64]:
    """Singular values over the largest, so that squares cannot overflow."""
    array = _as_singular_values(values)
    peak = array.max()
    return array / peak if peak > 0 else array
