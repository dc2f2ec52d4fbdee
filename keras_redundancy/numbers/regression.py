"""Predict some numbers from others, given their covariance matrix.

Everything here is numbers in, numbers out: `covariance` is that of n numbers,
shape ``(n, n)``, in float64. With it alone, least squares of any of the
numbers on any others can be solved, for which the data is needed no more.
"""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

# Ridges that are tried, in units of a kept number's variance.
RIDGES = 10.0 ** np.arange(-6, 1.5, 0.5)
# A number whose variance is this small beside the largest is constant, and
# one of which so little is left unexplained is explained.
CONSTANT = 1e-12
# What of the mean variance is added to that of a number to say how large a
# change of its coefficient is: one that hardly varies gets none for a chance.
TYPICAL = 1e-2
# How much more than one each parameter counts, so that noise is not fitted.
INFLATION = 1.4
# The share of samples that has to be more than the parameters take.
LEAST_SHARE = 0.1
EXPLAINED = 1e-6
# Covariances of float32 activations are known to about 1e-7 of their size.
ROUNDING = 1e-6


def slopes(
    covariance: NDArray,
    kept: NDArray,
    removed: NDArray,
    samples: float | None = None,
) -> NDArray:
    """Least squares of each removed number on the kept one most correlated.

    Args:
        covariance: shape (n, n).
        kept, removed: indices, shapes (k,) and (r,).
        samples: not needed; `least_squares` has it.

    Returns:
        Shape (k, r), at most one entry per column that is not 0.

    Source: Babaeizadeh, Smaragdis and Campbell, NoiseOut (2016).
    """
    variance = np.diag(covariance)
    result = np.zeros((len(kept), len(removed)))
    alive = np.flatnonzero(varies(variance[kept]))
    if not len(alive) or not len(removed):
        return result
    shared = covariance[np.ix_(kept[alive], removed)]
    own = variance[kept[alive], None]
    best = np.abs(shared / np.sqrt(own)).argmax(axis=0)
    column = np.arange(len(removed))
    result[alive[best], column] = shared[best, column] / own[best, 0]
    return result


def least_squares(
    covariance: NDArray, kept: NDArray, removed: NDArray, samples: float
) -> NDArray:
    """Ridge regression of the removed numbers on all kept ones.

    It is shrunk towards `slopes`, not towards zero, so that what one kept
    number tells exactly is told exactly.

    Args:
        covariance: shape (n, n).
        kept, removed: indices, shapes (k,) and (r,).
        samples: how many samples the covariance is from.

    Returns:
        Shape (k, r): removed ~ kept @ result, up to a shift.
    """
    start = slopes(covariance, kept, removed)
    return ridge_regression(covariance, kept, removed, start, samples)


def ridge_regression(
    covariance: NDArray,
    inputs: NDArray,
    outputs: NDArray,
    start: NDArray,
    samples: float,
    rounding: float = ROUNDING,
) -> NDArray:
    """Least squares of some numbers on others, shrunk towards `start`.

    One ridge for all outputs is chosen by generalised cross-validation. What
    `start` leaves nothing of stays as it is.

    Args:
        covariance: shape (n, n).
        inputs, outputs: indices, shapes (k,) and (r,).
        start: shape (k, r).
        samples: how many samples the covariance is from.
        rounding: the share of a number's variance that may be rounding.

    Returns:
        Shape (k, r): outputs ~ inputs @ result, up to a shift.

    Source: Golub, Heath and Wahba, Generalized Cross-Validation as a Method
    for Choosing a Good Ridge Parameter (1979); Kim and Gu, Smoothing Spline
    Gaussian Regression (2004), for counting parameters 1.4 times.
    """
    problem = _Ridge.of(covariance, inputs, outputs, start, rounding)
    if problem is None:
        return start.copy()
    return problem.solution(problem.by_validation(samples))


def checked_regression(
    covariance: NDArray,
    fitted: NDArray,
    held_out: NDArray,
    inputs: NDArray,
    outputs: NDArray,
    start: NDArray,
    rounding: float = ROUNDING,
) -> NDArray:
    """As `ridge_regression`, with a ridge that is best for rows held out.

    Args:
        covariance: of all rows, shape (n, n).
        fitted: of most of them.
        held_out: of the others, about the mean of those; all 0 if there are
            none.
        inputs, outputs: indices, shapes (k,) and (r,).
        start: shape (k, r).
        rounding: as for `ridge_regression`.

    Returns:
        Shape (k, r); the start where nothing is better on rows held out.
    """
    problem = _Ridge.of(fitted, inputs, outputs, start, rounding)
    ridge = None if problem is None else problem.by_held_out(held_out)
    if ridge is None:
        return start.copy()
    return _Ridge.of(covariance, inputs, outputs, start, rounding).solution(
        ridge
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Ridge:
    """Ridge regression of what a start leaves of some numbers.

    Attributes:
        start: shape (k, r).
        inputs, outputs: indices, shapes (k,) and (r,).
        alive: which of the inputs vary.
        scale: one over the size of each of these.
        known: their covariance, scaled.
        rest: what they have in common with what the start leaves of the
            outputs, scaled, shape (alive, r).
        left: the variance that the start leaves of all outputs.
    """

    start: NDArray
    inputs: NDArray
    outputs: NDArray
    alive: NDArray
    scale: NDArray
    known: NDArray
    rest: NDArray
    left: float

    @classmethod
    def of(cls, covariance, inputs, outputs, start, rounding):
        """None where there is nothing to fit, or to fit it to."""
        variance = np.diag(covariance)
        alive = np.flatnonzero(varies(variance[inputs]))
        if not len(alive) or not len(outputs):
            return None
        among = inputs[alive]
        typical = TYPICAL * variance[among].mean()
        scale = 1 / np.sqrt(variance[among] + typical)
        known = covariance[np.ix_(among, among)]
        rest, left = _left_by(start[alive], covariance, among, outputs)
        # Less than this is rounding, and would be fitted as if it were data.
        is_told = left <= rounding * variance[outputs]
        rest[:, is_told] = 0
        left[is_told] = 0
        return cls(
            start,
            inputs,
            outputs,
            alive,
            scale,
            known * scale * scale[:, None],
            rest * scale[:, None],
            left.sum(),
        )

    @functools.cached_property
    def _decomposed(self):
        values, vectors = linalg.eigh(self.known)
        return values.clip(0), vectors

    @functools.cached_property
    def _shared(self):
        return self._decomposed[1].T @ self.rest

    def solution(self, ridge: float) -> NDArray:
        """The start and what is fitted more, shape (k, r)."""
        result = self.start.copy()
        values, vectors = self._decomposed
        more = vectors @ (self._shared / (values + ridge)[:, None])
        result[self.alive] += more * self.scale[:, None]
        return result

    def by_validation(self, samples: float) -> float:
        """The one of `RIDGES` with the least error for new data, estimated."""
        values, ridge = self._decomposed[0], RIDGES[:, None]
        shared = (self._shared**2).sum(axis=1)
        told = shared * (values + 2 * ridge) / (values + ridge) ** 2
        error = (self.left - told.sum(axis=1)).clip(0)
        freedom = 1 + (values / (values + ridge)).sum(axis=1)
        # As many parameters as samples leave no error, and say nothing of it.
        share = (1 - INFLATION * freedom / samples).clip(LEAST_SHARE)
        error = np.where(share > LEAST_SHARE, error, self.left)
        return RIDGES[(error / share**2).argmin()]

    def by_held_out(self, covariance: NDArray) -> float | None:
        """The one with the least error for other rows; None: no one has less.

        With h the covariance of these rows, what is fitted more, V w S for
        the eigenvectors V and the weights w = 1 / (values + ridge) of the
        shared S, changes their error by w^T M w - 2 w^T q.
        """
        among = self.inputs[self.alive]
        prior = self.start[self.alive]
        values, vectors = self._decomposed
        turn = vectors * self.scale[:, None]
        rest, _ = _left_by(prior, covariance, among, self.outputs)
        gain = ((turn.T @ rest) * self._shared).sum(axis=1)
        known = turn.T @ covariance[np.ix_(among, among)] @ turn
        known *= self._shared @ self._shared.T
        weights = 1 / (values + RIDGES[:, None])
        change = np.einsum("nk,nk->n", weights @ known, weights)
        change -= 2 * weights @ gain
        best = change.argmin()
        return RIDGES[best] if change[best] < 0 else None


def _left_by(prior, covariance, inputs, outputs):
    """What a prediction leaves of the outputs.

    Returns:
        What that has in common with the inputs, shape (k, r), and its
        variance, shape (r,).
    """
    between = covariance[np.ix_(inputs, outputs)]
    told = covariance[np.ix_(inputs, inputs)] @ prior
    left = np.diag(covariance)[outputs] + np.einsum(
        "kr,kr->r", prior, told - 2 * between
    )
    return between - told, left


def varies(variance: NDArray) -> NDArray[np.bool_]:
    """Which numbers are not constant, given the variance of each."""
    return variance > CONSTANT * variance.max(initial=0)


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
