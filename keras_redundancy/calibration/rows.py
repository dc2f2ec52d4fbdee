"""Rows of tensors: at which positions, and their moments, on the device."""

import math

import keras
import numpy as np
from keras import ops

from keras_redundancy.calibration.moments import HELD_OUT, rows_of_blocks

# So many rows for each number of a row are observed at least, as a regression
# needs.
ROWS_PER_NUMBER = 20
# From batch to batch the observed positions move by this share of all.
GOLDEN = 0.6180339887


def positions_for(numbers: int, samples: int, least: int) -> int:
    """The number of positions to observe in each sample.

    Args:
        numbers: how many numbers a row has.
        samples: how many samples there are.
        least: the result is at least this.
    """
    return max(least, -(-ROWS_PER_NUMBER * numbers // max(samples, 1)))


def divided_moments(parts, weights=()):
    """(count, mean, blocks) of the rows to fit to, and of the rows held out.

    The blocks are those of the scatter matrix, as `in_blocks` divides it.

    Args:
        parts: tensors of shape (samples, positions, numbers).
        weights: for each, 1 for the rows that count and else 0, of shape
            (samples, positions, 1); or None where all of them count.
    """
    if all(x is None for x in weights):
        sides = zip(*map(_divided, parts), strict=True)
        return [_moments_of(list(side)) for side in sides]
    weights = [
        ops.ones_like(x[..., :1]) if weight is None else weight
        for x, weight in zip(parts, weights, strict=True)
    ]
    sides = (
        zip(*map(_divided, each), strict=True) for each in (parts, weights)
    )
    return [
        _moments_counting(
            *(ops.concatenate(list(map(as_rows, x))) for x in both)
        )
        for both in zip(*sides, strict=True)
    ]


def _divided(x):
    """(The first four samples of each five, every fifth sample).

    A batch of fewer samples is divided by positions instead.
    """
    count = ops.shape(x)[0]
    if isinstance(count, int) and count < HELD_OUT:
        x = ops.reshape(x, (-1, 1, x.shape[-1]))
        count = ops.shape(x)[0]
    stay = ops.arange(count - count // HELD_OUT)
    stay = stay + stay // (HELD_OUT - 1)
    return ops.take(x, stay, axis=0), x[HELD_OUT - 1 :: HELD_OUT]


def _moments_of(parts):
    rows = [as_rows(x) for x in parts]
    rows = ops.concatenate(rows) if len(rows) > 1 else rows[0]
    count = ops.shape(rows)[0] + ops.zeros((), "int32")
    mean = ops.sum(rows, axis=0) / ops.cast(ops.maximum(count, 1), rows.dtype)
    return count, mean, _scatter(rows - mean)


def _moments_counting(rows, weights):
    """The moments of the rows whose weight is 1.

    Args:
        rows: shape (rows, n).
        weights: 1 for the rows that count and else 0, shape (rows, 1).
    """
    count = ops.sum(weights)
    mean = ops.sum(weights * rows, axis=0) / ops.maximum(count, 1)
    return ops.cast(count, "int32"), mean, _scatter(weights * (rows - mean))


def _scatter(x):
    """The blocks of x^T x, given x of shape (rows, n)."""
    columns = ops.transpose(x)
    return [
        ops.matmul(columns[rows], x[:, rows.start :])
        for rows in rows_of_blocks(x.shape[1])
    ]


def as_rows(x):
    """`x` as a matrix of shape (rows, numbers)."""
    return ops.reshape(x, (-1, x.shape[-1]))


def rows_of_columns(x, weights, columns, start, most: int):
    """The rows of a tensor, and their weights.

    Args:
        x: a tensor (samples, ..., channels).
        weights: those of `divided_moments` at each position, or None.
        columns: those of a `Window`, shape (n, m).
        start: where the positions begin, in [0, 1).
        most: how many positions of a sample are looked at, and how many
            columns at most.

    Returns:
        Shape (samples, rows of a sample, n); weights of the same rows or None.
    """
    x = sampled(x, start, most)
    n, m = columns.shape
    if m > most:
        spread = _spread(m, start, most)
        columns = ops.take(columns, spread, axis=1)
    whole = m == 1 and np.array_equal(columns[:, 0], np.arange(x.shape[-1]))
    if not whole:
        x = ops.take(x, ops.reshape(ops.transpose(columns), (-1,)), axis=-1)
    if weights is not None:
        weights = ops.repeat(weights, x.shape[-1] // n, axis=1)
    return ops.reshape(x, (ops.shape(x)[0], -1, n)), weights


def sampled(x, start, most: int):
    """A tensor (samples, ..., numbers) at up to `most` positions per sample.

    Returns:
        Shape (samples, positions, numbers), float32 or float64. Tensors with
        equally many positions are sampled at the same ones.
    """
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        x = ops.cast(x, "float32")
    shape = ops.shape(x)
    sizes = shape[1:-1]
    known = all(isinstance(size, int) for size in sizes)
    positions = math.prod(sizes) if known else ops.prod(ops.stack(sizes))
    x = ops.reshape(x, (-1, positions, shape[-1]))
    if not known or positions > most:
        x = ops.take(x, _spread(positions, start, most), axis=1)
    return x


def spread_of(count: int) -> np.ndarray:
    """`count` numbers spread over [0, 1), one in each part of it, at random.

    At equal distances, all positions of an image could lie in one column.
    """
    rng = np.random.default_rng(0)
    return (rng.permutation(count) + rng.uniform(size=count)) / count


def _spread(size, start, most):
    """`most` of `size` positions; they depend on `start`."""
    spread = ops.convert_to_tensor(spread_of(most), "float32")
    spread = (spread + start) % 1
    size = ops.cast(size, "float32")
    chosen = ops.minimum(ops.floor(spread * size), size - 1)
    return ops.cast(chosen, "int32")
