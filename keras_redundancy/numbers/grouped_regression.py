"""Many small ridge regressions at once: one for each channel, or group."""

import numpy as np
from numpy.typing import NDArray

from keras_redundancy.numbers.regression import (
    RIDGES,
    ROUNDING,
    Equations,
    scales,
)


def grouped_ridge(
    whole: Equations,
    fitted: Equations,
    held_out: Equations,
    starts: NDArray,
    rounding: float = ROUNDING,
) -> NDArray:
    """The problem of `ridge_from_moments`, for each of many groups.

    Each group has a ridge of its own, and an input that hardly varies beside
    the others of the group keeps its weights.

    Args:
        whole, fitted, held_out: as there, with an axis for the groups before
            the others.
        starts: shape (groups, k, r).
        rounding: as there.

    Returns:
        Shape (groups, k, r); the start of a group where no ridge has less
        error than it on the rows held out.
    """
    k = starts.shape[1]
    scale = scales(np.diagonal(whole.known, axis1=1, axis2=2))

    def equations(side):
        rest = side.shared - side.known @ starts
        known = side.known * scale[:, :, None] * scale[:, None, :]
        return known, rest * scale[:, :, None]

    products = whole.known @ starts - 2 * whole.shared
    left = whole.size + (starts * products).sum(axis=1)
    is_open = (left > rounding * whole.size)[:, None, :]
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
