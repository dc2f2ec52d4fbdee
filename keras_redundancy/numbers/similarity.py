"""Cosine similarity of the units of one kernel.

Everything here takes a kernel matrix: shape ``(z, n)``, one filter of ``z``
weights per column. The work is done in the matrix's own floating dtype
(float32 or float64; narrower floats and integers become float32).

A zero filter has no direction. Its similarity is defined as 0 to every
filter that is not zero, and 1 to other zero filters and to itself.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_redundancy._shared.tables import listed

# Numbers in one block of similarities: 32 MiB of float32.
BLOCK_ELEMENTS = 2**23
# Added to the squared norm that a sketch holds: more than it is rounded by.
SKETCH_ROUNDING = 1e-4

_NARROW_FLOATS = ("bfloat16", "float8")


def cosine_similarity(W: ArrayLike) -> NDArray:
    """Cosine similarity between all pairs of filters.

    Args:
        W: kernel matrix, shape ``(z, n)``, one filter per column. It is
            not modified.

    Returns:
        Symmetric array of shape ``(n, n)``, values in ``[-1, 1]``, diagonal
        exactly 1. Filters of any representable size are compared correctly:
        very large and very small ones are rescaled first.

    Raises:
        TypeError: if `W` does not hold real numbers.
        ValueError: if `W` is not a matrix, is empty, or holds NaN or
            infinity.
    """
    similarity, is_zero = cosine_and_zeros(as_kernel_matrix(W))
    similarity = np.minimum(similarity, similarity.T)
    np.clip(similarity, -1, 1, out=similarity)
    zeros = np.flatnonzero(is_zero)
    similarity[np.ix_(zeros, zeros)] = 1
    np.fill_diagonal(similarity, 1)
    return similarity


def assign_to_nearest(W: ArrayLike, kept: NDArray) -> NDArray[np.intp]:
    """For each unit, the kept unit whose filter is most similar to its own.

    Works block by block; memory grows with ``z * len(kept)``, not with
    ``n * n``.

    Args:
        W: kernel matrix, shape ``(z, n)``, one filter per column.
        kept: indices of the kept units, shape ``(k,)``, distinct.

    Returns:
        Array of shape ``(n,)`` with positions in `kept` (not unit indices).
        A kept unit maps to itself; ties go to the lowest position.

    Raises:
        TypeError, ValueError: if `W` cannot be compared: see
            `cosine_similarity`.
    """
    matrix = as_kernel_matrix(W)
    kept_units, kept_zero = unit_filters(matrix[:, kept])
    n = matrix.shape[1]
    nearest = np.empty(n, np.intp)
    rows = max(1, BLOCK_ELEMENTS // max(len(kept), matrix.shape[0]))
    for start in range(0, n, rows):
        units, is_zero = unit_filters(matrix[:, start : start + rows])
        block = units @ kept_units.T
        block[np.ix_(is_zero, kept_zero)] = 1
        nearest[start : start + rows] = block.argmax(axis=1)
    nearest[kept] = np.arange(len(kept))
    return nearest


def as_kernel_matrix(W: ArrayLike) -> NDArray:
    """`W` as a contiguous float32 or float64 array of shape ``(z, n)``.

    Copies only where dtype or memory layout ask for it. Values are not
    looked at: NaN and infinity are found by the functions that use them.

    Raises:
        TypeError: if `W` does not hold real numbers.
        ValueError: if `W` does not have two axes or one of them is empty.
    """
    matrix = np.asarray(W)
    dtype = matrix.dtype
    if dtype.kind not in "iuf" and not dtype.name.startswith(_NARROW_FLOATS):
        raise TypeError(
            f"W has dtype {dtype}, but filters are compared as real "
            "numbers. Pass an array of floats or integers."
        )
    if matrix.ndim != 2:
        raise ValueError(
            f"W has shape {matrix.shape}, but a kernel matrix has two "
            "axes: the weights of a filter, and the filters. Reshape the "
            "kernel first, for Dense and Conv kernels with "
            "kernel.reshape(-1, kernel.shape[-1])."
        )
    if 0 in matrix.shape:
        raise ValueError(
            f"W has shape {matrix.shape}: with no filters or no weights "
            "there is nothing to compare. Pass a built layer's kernel."
        )
    # A long double has no BLAS product.
    is_wide = dtype.kind == "f" and dtype.itemsize >= 8
    matrix = matrix.astype(np.float64 if is_wide else np.float32, copy=False)
    if not (matrix.flags.c_contiguous or matrix.flags.f_contiguous):
        matrix = np.ascontiguousarray(matrix)
    return matrix


def cosine_and_zeros(matrix: NDArray) -> tuple[NDArray, NDArray[np.bool_]]:
    """Normalised Gram matrix of a checked kernel matrix, and its zeros.

    Args:
        matrix: shape ``(z, n)``, from `as_kernel_matrix`.

    Returns:
        ``(similarity, is_zero)`` of shapes ``(n, n)`` and ``(n,)``. Unlike in
        `cosine_similarity`, rounding is left as it is (the matrix is
        symmetric, and its diagonal 1, up to rounding) and the rows and
        columns of zero filters are 0.

    Raises:
        ValueError: if `matrix` holds NaN or infinity.
    """
    similarity = _gram(matrix)
    squares = similarity.diagonal().copy()
    is_zero = np.zeros(len(squares), bool)
    if not _are_safe(squares, matrix):
        is_zero = _zero_filters(matrix)
        if not _are_safe(squares[~is_zero], matrix):
            similarity = _gram(_rescaled(matrix))
            squares = similarity.diagonal().copy()
    scale = _inverse_norms(squares, is_zero)
    similarity *= scale[:, None]
    similarity *= scale
    return similarity, is_zero


def unit_filters(matrix: NDArray) -> tuple[NDArray, NDArray[np.bool_]]:
    """The filters at length 1, one per row.

    Args:
        matrix: shape ``(z, n)``, float32 or float64.

    Returns:
        ``(units, is_zero)`` of shapes ``(n, z)`` and ``(n,)``; the rows of
        zero filters are 0.

    Raises:
        ValueError: if `matrix` holds NaN or infinity.
    """
    z, n = matrix.shape
    units = np.empty((n, z), matrix.dtype)
    is_zero = np.zeros(n, bool)
    columns = max(1, BLOCK_ELEMENTS // z)
    for start in range(0, n, columns):
        part = slice(start, start + columns)
        units[part], is_zero[part] = _unit_block(matrix[:, part], start)
    return units, is_zero


def similarity_blocks(units: NDArray) -> Iterator[tuple[int, NDArray]]:
    """The upper triangle of ``units @ units.T``, a block of rows at a time.

    Args:
        units: shape ``(n, z)``, one filter of length 1 per row.

    Yields:
        ``(start, block)``, where `block` holds the similarities of the rows
        from `start` on, as many as it has, to the columns ``start:n``. A
        block has about `BLOCK_ELEMENTS` numbers.
    """
    n = len(units)
    start = 0
    while start < n:
        rows = max(1, BLOCK_ELEMENTS // (n - start))
        yield start, units[start : start + rows] @ units[start:].T
        start += rows


def sketches(matrix: NDArray, weights: int) -> NDArray | None:
    """Short stand-ins for filters, whose products bound the similarities.

    A sketch holds `weights` of the weights of a filter of length 1, and the
    norm of the others. By the Cauchy-Schwarz inequality the product of two
    sketches is at least the similarity of the filters.

    Args:
        matrix: shape ``(z, n)``, from `as_kernel_matrix`.
        weights: how many of the z weights to take, spread evenly.

    Returns:
        Shape ``(n, weights + 1)``, one sketch per row, or None where filters
        are zero, not finite, or so long or short that squares are lost.
    """
    with np.errstate(all="ignore"):
        squares = np.einsum("zi,zi->i", matrix, matrix)
    if not _are_safe(squares, matrix):
        return None
    step = len(matrix) // weights
    part = matrix[: step * weights : step] / np.sqrt(squares)
    rest = 1 - np.einsum("zi,zi->i", part, part) + SKETCH_ROUNDING
    return np.vstack([part, np.sqrt(rest.clip(0))]).T


def _gram(matrix: NDArray) -> NDArray:
    # Written as A.T @ A so that NumPy calls syrk, half the work of gemm.
    with np.errstate(all="ignore"):
        return matrix.T @ matrix


def _are_safe(squares: NDArray, matrix: NDArray) -> bool:
    """Whether squared norms are far from underflow, overflow and NaN."""
    limits = np.finfo(matrix.dtype)
    # Products under `tiny` may be lost: z of them must not matter. Inverse
    # norms, too, are multiplied.
    low = limits.tiny / limits.eps * matrix.shape[0]
    high = limits.max * limits.eps
    if squares.size == 0:
        return True
    return bool(squares.min() >= low and squares.max() <= high)


def _zero_filters(matrix: NDArray, first_unit: int = 0) -> NDArray[np.bool_]:
    """Which columns are zero, shape ``(n,)``, once all are known finite."""
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=0))
    if broken.size:
        raise ValueError(
            f"The filters of units {listed(broken + first_unit, 5)} hold NaN "
            "or infinity, which have no direction to compare. Look for a "
            "training run that diverged, and load weights from before it did."
        )
    return ~matrix.any(axis=0)


def _rescaled(matrix: NDArray) -> NDArray:
    """Columns times powers of two, so that the largest entry is near 1."""
    _, exponents = np.frexp(np.abs(matrix).max(axis=0))
    return np.ldexp(matrix, -exponents)


def _inverse_norms(squares: NDArray, is_zero: NDArray[np.bool_]) -> NDArray:
    """1 / norm from squared norms; 0 for zero filters."""
    scale = np.zeros_like(squares)
    np.sqrt(squares, out=scale, where=~is_zero)
    return np.divide(1, scale, out=scale, where=~is_zero)


def _unit_block(
    matrix: NDArray, first_unit: int
) -> tuple[NDArray, NDArray[np.bool_]]:
    """`unit_filters` for a few columns, the first being `first_unit`."""
    units = np.ascontiguousarray(matrix.T)
    is_zero = np.zeros(len(units), bool)
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", units, units)
    if not _are_safe(squares, matrix):
        is_zero = _zero_filters(matrix, first_unit)
        if not _are_safe(squares[~is_zero], matrix):
            units = np.ascontiguousarray(_rescaled(matrix).T)
            squares = np.einsum("ij,ij->i", units, units)
    scale = _inverse_norms(squares, is_zero)
    return units * scale[:, None], is_zero


def similarity_summary(W: ArrayLike) -> tuple[float | None, float | None]:
    """Mean and maximum of the cosines of all pairs of different units.

    Args:
        W: kernel matrix, shape ``(z, n)``, one filter per column. Memory
            grows with ``z * n``, not with ``n * n``.

    Returns:
        ``(mean, max)`` over the ``n (n - 1) / 2`` pairs, or ``(None, None)``
        for a single unit. Zero filters count as 0 to all others.

    Raises:
        TypeError, ValueError: as `cosine_similarity`.
    """
    units, is_zero = unit_filters(as_kernel_matrix(W))
    n = len(units)
    if n < 2:
        return None, None
    total = np.square(units.sum(axis=0, dtype=np.float64)).sum()
    mean = (total - np.count_nonzero(~is_zero)) / (n * (n - 1))
    largest = -1.0
    for _, block in similarity_blocks(units):
        rows = np.arange(len(block))
        block[rows, rows] = -1
        largest = max(largest, float(block.max()))
    return float(mean), min(largest, 1.0)
