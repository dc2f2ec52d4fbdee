"""Rank numbers by how much they tell of what is computed from them."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from keras_redundancy.numbers.regression import ROUNDING

EXPLAINED = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Numbers in the order in which they are kept.

    Attributes:
        order: shape (n,), the most important one first.
        error: shape (n + 1,): what share of all is not told by the first k
            numbers, from 1 for none to 0 for all; None where that is not
            known.
        readers: how many read the numbers: each of them gets the error.
    """

    order: NDArray[np.intp]
    error: NDArray[np.float64] | None = None
    readers: int = 1

    def count_at(self, tau: float) -> int:
        """How many to keep so that the others are told with correlation `tau`.

        The error that is left is then at most 1 - tau^2, as for a vector
        and its projection on another one with the cosine tau.
        """
        allowed = 1 - tau**2 + EXPLAINED
        return int(np.argmax(self.error <= allowed))

    @functools.cached_property
    def worth(self) -> NDArray[np.float64]:
        """How much error each number takes away in all, shape (n,).

        It never grows.

        Where a later number takes more than an earlier one, they share it:
        the slopes of the error's lower convex hull.
        """
        gains = -np.diff(self.error) * self.readers
        return -optimize.isotonic_regression(-gains).x

    def count_for(self, price: float) -> int:
        """How many to keep of those that are worth a price."""
        return int(np.count_nonzero(self.worth > price))


def rank_by_pivots(
    covariance: NDArray, weights: NDArray, readers: int = 1
) -> Ranking:
    """Columns that span the others: QR with column pivoting.

    It is done as a Cholesky factorisation of the covariance with pivoting,
    which takes the same columns as the QR of the data would.

    Args:
        covariance: shape (n, n).
        weights: how much each number counts, shape (n,), all at least 0.
        readers: how many read the numbers.

    Source: LAPACK's pstrf; Higham, Analysis of the Cholesky Decomposition of
    a Semi-Definite Matrix (1990).
    """
    weighted = covariance * weights * weights[:, None]
    total = np.trace(weighted)
    if total <= 0:
        nothing = np.zeros(len(weights) + 1)
        return Ranking(np.arange(len(weights)), nothing, readers)
    factor, pivots, rank, _ = linalg.lapack.dpstrf(weighted, lower=1)
    columns = np.tril(factor)[:, :rank]
    error = np.zeros(len(weights) + 1)
    error[0] = 1
    error[1:rank] = 1 - (columns**2).sum(axis=0).cumsum()[:-1] / total
    return Ranking(pivots - 1, error.clip(0), readers)


def rank_by_outputs(views: list[tuple[NDArray, NDArray]]) -> Ranking:
    """Add the number that most reduces the error at what reads them.

    What reads the numbers x computes W^T x; x is replaced by its least
    squares prediction from the kept ones. Greedy orthogonal selection: each
    step takes the number that tells most of all outputs together.

    Args:
        views: for each reader the covariance and W W^T, both of shape (n, n).
            Each counts by the share of its outputs' variance.

    Source: Natarajan, Sparse Approximate Solutions to Linear Systems (1995);
    the updates are those of Chen, Cowan and Grant, Orthogonal Least Squares
    Learning Algorithm for Radial Basis Function Networks (1991).
    """
    readers = [_Reader(*view) for view in views]
    readers = [reader for reader in readers if reader.total > 0]
    n = len(views[0][0])
    order, error = [], [1.0 if readers else 0.0]
    is_left = np.ones(n, bool)
    while readers and len(order) < n:
        gains = sum(reader.gains() for reader in readers) / len(readers)
        best = int(np.where(is_left, gains, -1).argmax())
        if gains[best] <= 0:
            break
        for reader in readers:
            reader.take(best)
        order.append(best)
        is_left[best] = False
        error.append(max(error[-1] - gains[best], 0))
    rest = np.flatnonzero(is_left)
    error += [0.0] * len(rest)
    order = np.array([*order, *rest], np.intp)
    return Ranking(order, np.array(error), max(len(readers), 1))


class _Reader:
    """The numbers as one reader sees them, less what is told already.

    With C the covariance of what is left of each number, taking number j
    subtracts v v^T / v_j from C, v its column j, and (C H C)_jj / C_jj from
    the reader's error trace(C H).
    """

    def __init__(self, covariance, reads):
        self.covariance, self.reads = covariance, reads
        self.told = np.empty((len(covariance), len(covariance)))
        self.steps = 0
        self.variance = np.diag(covariance).copy()
        self.least = ROUNDING * self.variance
        self.total = float(np.einsum("ij,ij->", covariance, reads))
        product = covariance @ reads
        self.strength = np.einsum("ij,ij->i", product, covariance)

    def gains(self):
        """The share of the error that each number would take away."""
        is_new = self.variance > self.least
        gains = np.zeros(len(self.variance))
        np.divide(self.strength, self.variance, out=gains, where=is_new)
        return gains.clip(0) / self.total

    def take(self, number):
        left = self.variance[number]
        if left <= self.least[number]:
            return
        told = self.told[:, : self.steps]
        column = self.covariance[:, number] - told @ told[number]
        read = self.reads @ column
        self.strength += column**2 * (column @ read) / left**2
        rest = self.covariance @ read - told @ (told.T @ read)
        self.strength -= 2 * column * rest / left
        self.variance -= column**2 / left
        self.told[:, self.steps] = column / np.sqrt(left)
        self.steps += 1
