"""Many small ridge regressions at once: one for each channel, or group."""

import numpy as np
from numpy.typing import NDArray

from keras_redundancy.numbers.regression import RIDGES, ROUNDING, TYPICAL

# Added to what is divided by, so that what is constant divides by no zero.
LEAST = 1e-30


def grouped_ridge(
    whole: NDArray,
    fitted: NDArray,
    held_out: NDArray,
    starts: NDArray,
    rounding: float = ROUNDING,
) -> NDArray:
    """The problem of `ridge_from_moments`, for each of many groups.

    Each group has a ridge of its own.

    Args:
        whole: the mean outer products of all rows of inputs and then outputs,
            shape (groups, k + r, k + r), about their means where a shift is
            fitted too.
        fitted: those of the rows to fit to.
        held_out: those of the other rows.
        starts: shape (groups, k, r).
        rounding: the share of an output's variance that may be rounding.

    Returns:
        Shape (groups, k, r); the start of a group where no ridge has less
        error than it on the rows held out.
    """
    k = starts.shape[1]
    variance = np.diagonal(whole, axis1=1, axis2=2)
    typical = TYPICAL * variance[:, :k].mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt(variance[:, :k] + typical + LEAST)

    def equations(moments):
        known, between = moments[:, :k, :k], moments[:, :k, k:]
        rest = between - known @ starts
        known = known * scale[:, :, None] * scale[:, None, :]
        return known, rest * scale[:, :, None]

    left = _left_by(starts, whole)
    is_open = (left > rounding * variance[:, k:])[:, None, :]
    known, shared = equations(fitted)
    seen, seen_shared = equations(held_out)
    values, vectors = np.linalg.eigh(known)
    shared = vectors.swapaxes(1, 2) @ (shared * is_open)
    best = np.zeros(len(starts))
    ridges = np.full(len(starts), np.inf)
    for ridge in RIDGES:
        more = vectors @ (shared / (values.clip(0) + ridge)[:, :, None])
        change = (more * (seen @ more - 2 * seen_shared)).sum(axis=(1, 2))
        is_better = change < best
        best = np.where(is_better, change, best)
        ridges = np.where(is_better, ridge, ridges)
    known, rest = equations(whole)
    is_fitted = np.isfinite(ridges)
    more = np.zeros_like(starts)
    more[is_fitted] = np.linalg.solve(
        known[is_fitted] + ridges[is_fitted, None, None] * np.eye(k),
        rest[is_fitted],
    )
    return starts + more * is_open * scale[:, :, None]


def _left_by(starts, moments):
    """The variance that the starts leave of the outputs, (groups, r)."""
    k = starts.shape[1]
    known, between = moments[:, :k, :k], moments[:, :k, k:]
    whole = np.diagonal(moments, axis1=1, axis2=2)[:, k:]
    return whole + (starts * (known @ starts - 2 * between)).sum(axis=1)
