"""Rank vectors by how well the first ones predict what is computed from all.

Everything here is arrays in, arrays out. The heads of an attention layer are
such vectors: all numbers of a head stay, or go, together.
"""

import numpy as np
from numpy.typing import NDArray

from keras_redundancy.numbers.ranking import Ranking, Readout
from keras_redundancy.numbers.regression import ROUNDING


def rank_vectors(readers: list[Readout]) -> Ranking:
    """The problem of `rank_by_outputs`, for vectors in place of numbers.

    A reader computes W^T x, where x are n vectors of d numbers each, one after
    the other. With C the covariance of what the vectors taken so far leave of
    x, vector j would take away trace(W^T C_j C_jj^-1 C_j^T W), where C_j are
    the d columns of C that belong to it and C_jj is C among them. Each step
    takes the vector with the largest sum over readers, of each as a share of
    the error that it started with.

    Args:
        readers: what is computed; each says how many numbers d of its own
            belong to a vector.

    Returns:
        A `Ranking` of the n vectors.

    Source: Swirszcz, Abe and Lozano, Grouped Orthogonal Matching Pursuit for
    Variable Selection and Prediction (2009).
    """
    n = len(readers[0].covariance) // readers[0].each
    views = [_View(reader) for reader in readers]
    views = [view for view in views if view.total > 0]
    if not views:
        return Ranking(np.arange(n), np.zeros(n + 1))
    left, order, error = list(range(n)), [], [1.0]
    while left:
        gains = [
            sum(view.gain(unit) for view in views) / len(views) for unit in left
        ]
        best = int(np.argmax(gains))
        error.append(error[-1] - gains[best])
        order.append(left.pop(best))
        for view in views:
            view.take(order[-1])
    error = np.array(error).clip(0)
    error[-1] = 0
    return Ranking(np.array(order, np.intp), error, len(views))


class _View:
    """The vectors as one reader sees them, less what is explained already.

    Attributes:
        covariance: C, shape (n d, n d).
        read: C W, shape (n d, outputs).
        total: the whole error, before any step.
    """

    def __init__(self, reader):
        self.covariance = np.array(reader.covariance, np.float64)
        weights = np.asarray(reader.weights, np.float64)
        self.read = self.covariance @ weights
        self.total = float(np.vdot(weights, self.read))
        self._each = reader.each
        self._least = ROUNDING * np.diag(self.covariance).copy()

    def _own(self, unit):
        return slice(unit * self._each, (unit + 1) * self._each)

    def _root(self, unit) -> NDArray[np.float64]:
        """R with R R^T = C_jj^-1, as far as it is no rounding, (d, any)."""
        own = self._own(unit)
        values, vectors = np.linalg.eigh(self.covariance[own, own])
        varies = values > self._least[own].max(initial=0)
        return vectors[:, varies] / np.sqrt(values[varies])

    def gain(self, unit: int) -> float:
        """The share of the error that a vector would take away."""
        seen = self._root(unit).T @ self.read[self._own(unit)]
        return float(np.vdot(seen, seen)) / self.total

    def take(self, unit: int) -> None:
        own, root = self._own(unit), self._root(unit)
        columns = self.covariance[:, own] @ root
        self.read -= columns @ (root.T @ self.read[own])
        self.covariance -= columns @ columns.T
