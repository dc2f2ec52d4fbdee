"""Rank numbers by how well the first ones predict what is computed from all.

Everything here is arrays in, arrays out. Of n numbers x, such as the channels
of a space, the first k are kept and the others are replaced by their least
squares prediction from these. `Ranking.error` says what that costs, for each k.
"""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from keras_redundancy.numbers.regression import ROUNDING

# The share of an error that may be rounding.
EXPLAINED = 1e-6
# So many numbers are taken at once, out of so many that are best before.
BLOCK = 32
CANDIDATES = 4 * BLOCK
# So many rows are changed at once, which stay in the processor's cache.
PART = 256
# Scores that differ by less are the same up to rounding.
TIE = 1e-9
# Numbers taken are forgotten when fewer than this share are left.
SHRINK = 0.75


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Numbers in the order in which they are kept.

    Attributes:
        order: shape (n,), the most important number first.
        error: shape (n + 1,): the share of the whole error that is left when
            the first k numbers are kept, from 1 for k = 0 to 0 for k = n; None
            for rankings by importance alone, which know no error.
        whole: the whole error in all, in the unit in which it counts beside
            that of other rankings: by default 1 for each that reads the
            numbers.
    """

    order: NDArray[np.intp]
    error: NDArray[np.float64] | None = None
    whole: float = 1.0

    def count_at(self, tau: float) -> int:
        """How many to keep so that outputs correlate with `tau` or more.

        The correlation is that of what is computed before and after. The
        error that is left is then at most 1 - tau^2, as for a vector and its
        projection on another one with the cosine tau.
        """
        return int(np.argmax(self.error <= allowed_error(tau)))

    @functools.cached_property
    def worth(self) -> NDArray[np.float64]:
        """How much error each number takes away in all, shape (n,).

        It never grows. Where a later number takes more than an earlier one,
        they share it: the slopes of the error's lower convex hull.
        """
        gains = -np.diff(self.error) * self.whole
        return -optimize.isotonic_regression(-gains).x

    def count_for(self, price: float) -> int:
        """How many numbers are worth more than a price."""
        return int(np.count_nonzero(self.worth > price))


def allowed_error(tau: float) -> float:
    """The error at which outputs correlate with `tau`, up to rounding."""
    return 1 - tau**2 + EXPLAINED


def rank_by_pivots(
    covariance: NDArray, weights: NDArray, readers: int = 1
) -> Ranking:
    """Rank numbers so that the first ones span the others.

    Each step takes the number of which the ones before leave most variance:
    QR with column pivoting, of the data. It is done as a Cholesky
    factorisation of the covariance with pivoting, which takes the same
    columns.

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


@dataclasses.dataclass(frozen=True, eq=False)
class Readout:
    """What a reader computes from n numbers x: W^T x.

    Attributes:
        covariance: that of x, as this reader sees it, shape (n, n); E[x x^T]
            where means have to be predicted too.
        weights: W, shape (n, outputs), or any other matrix with the same
            W W^T: see `reading_factor`.
        each: how many numbers belong together, as one vector: see
            `rank_vectors`.
    """

    covariance: NDArray
    weights: NDArray
    each: int = 1


def rank_by_outputs(readers: list[Readout], as_shares: bool = True) -> Ranking:
    """Rank numbers by how well the first ones predict what is computed.

    A reader computes W^T x. With C the covariance of what the numbers taken
    so far leave of x, its error is trace(W^T C W), and number j would take
    |W^T C_j|^2 / C_jj away, C_j being column j of C. Each step takes the
    number with the largest sum over readers, of each as a share of the error
    that it started with (or as it is, if not `as_shares`): greedy orthogonal
    least squares.

    Numbers are taken in blocks. `_greedy` takes some among the ones that are
    best before the block, in small matrices. What these do to the scores of
    all others follows by matrix products, for each step of the block; where
    one of the others would have been taken, the block ends. So the order is
    that of taking one number at a time.

    Args:
        readers: what is computed from the numbers.
        as_shares: whether all readers matter alike, whatever their errors
            are; else the sum of these counts, as it is.

    Returns:
        A `Ranking` of all n numbers.

    Source: Chen, Cowan and Grant, Orthogonal Least Squares Learning Algorithm
    for Radial Basis Function Networks (1991); Natarajan, Sparse Approximate
    Solutions to Linear Systems (1995).
    """
    n = len(readers[0].covariance)
    views = list(map(_View, readers))
    views = [view for view in views if view.total > 0]
    if not views:
        return Ranking(np.arange(n), np.zeros(n + 1))
    whole = float(len(views))
    if not as_shares:
        whole = sum(view.total for view in views)
        for view in views:
            view.total = whole / len(views)
    numbers, order, error = np.arange(n), [], [1.0]
    while True:
        gains = _mean([view.gains() for view in views])
        short = np.argsort(-gains, kind="stable")[:CANDIDATES]
        short = short[gains[short] > 0]
        if not len(short):
            break
        count = BLOCK if len(short) == CANDIDATES else len(short)
        rows, taken = _block(views, short, count)
        order += list(numbers[rows])
        error += list(error[-1] - np.cumsum(taken))
        left = np.flatnonzero(views[0].is_left)
        if len(left) < SHRINK * len(numbers):
            numbers = numbers[left]
            for view in views:
                view.shrink(left)
    rest = np.flatnonzero(views[0].is_left)
    rest = rest[np.argsort(-gains[rest], kind="stable")]
    # Nothing is left to be taken away: what is left is rounding.
    error = np.array([*error, *np.zeros(len(rest))]).clip(0)
    error[-1] = 0
    order = np.array([*order, *numbers[rest]], np.intp)
    return Ranking(order, error, whole)


def reading_factor(parts: Iterable[NDArray]) -> NDArray[np.float64]:
    """A matrix W of at most n columns with the sum of V V^T for W W^T.

    Args:
        parts: the matrices V, each of shape (n, any).

    Returns:
        Shape (n, m): the V side by side where they have no more than n
        columns together, or else the Cholesky factor of the sum.
    """
    beside, total = [], 0
    for part in parts:
        beside.append(np.asarray(part, np.float64))
        if sum(v.shape[1] for v in beside) > len(part):
            total = total + sum(v @ v.T for v in beside)
            beside = []
    if np.ndim(total) == 0:
        return np.concatenate(beside, axis=1)
    return root_of(sum((v @ v.T for v in beside), total))


def root_of(matrix: NDArray) -> NDArray[np.float64]:
    """W with W W^T equal to a positive semidefinite matrix, (n, rank)."""
    total = np.asarray(matrix, np.float64)
    factor, pivots, rank, _ = linalg.lapack.dpstrf(total, lower=1)
    result = np.empty((len(total), rank))
    result[pivots - 1] = np.tril(factor)[:, :rank]
    return result


def _block(views, short, count):
    """Take up to `count` of the candidates `short`, one after the other.

    Returns:
        The numbers taken, shape (b,), and the share of the error that each
        takes away.
    """
    parts = [view.among(short) for view in views]
    picks, factors = _greedy(*map(np.stack, zip(*parts, strict=True)), count)
    rows, steps = short[picks], np.arange(len(picks))
    found = [
        view.steps(rows, factor[picks])
        for view, factor in zip(views, factors, strict=True)
    ]
    scores = _mean([step.gains for step in found])
    own = scores[steps, rows]
    scores[:, short] = 0
    # The first one is the best of all in any case.
    is_beaten = scores.max(axis=1) > own * (1 + TIE)
    is_beaten[0] = False
    taken = int(is_beaten.argmax()) if is_beaten.any() else len(rows)
    for view, step in zip(views, found, strict=True):
        view.take(rows[:taken], step)
    return rows[:taken], own[:taken]


def _greedy(covariance, product, variance, strength, least, total, count):
    """Greedy selection in small matrices, for all v readers at a time.

    Args:
        covariance: C of `rank_by_outputs`, shape (v, s, s).
        product: C W W^T C, shape (v, s, s).
        variance, strength: their diagonals, shape (v, s).
        least: what of a variance may be rounding, shape (v, s): a number
            with no more is explained by those taken already.
        total: the whole error, shape (v, 1).
        count: how many to take.

    Returns:
        The b numbers taken, and the columns L of shape (v, s, b): taking
        them leaves C - L L^T.
    """
    readers, s = variance.shape
    factor, read = np.zeros((2, readers, s, count))
    lengths = np.zeros((readers, count))
    picks = []
    for k in range(count):
        gains = _mean(_shares(variance, strength, least, total))
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        left = variance[:, best]
        root = np.sqrt(np.where(left > least[:, best], left, np.inf))[:, None]
        v, q = factor[..., :k], read[..., :k]
        own = factor[:, best, :k, None]
        column = (covariance[:, best] - (v @ own)[..., 0]) / root
        turned = read[:, best, :k, None] - lengths[:, :k, None] * own
        seen = (product[:, best] - (v @ turned + q @ own)[..., 0]) / root
        length = seen[:, best, None] / root
        factor[..., k], read[..., k], lengths[:, k] = column, seen, length[:, 0]
        variance -= column**2
        strength -= column * (2 * seen - column * length)
        variance[:, best] = 0
        picks.append(best)
    return np.array(picks), factor[..., : len(picks)]


def _shares(variance, strength, least, total):
    """The share of the error that each number would take away."""
    shares = np.zeros(strength.shape)
    np.divide(strength, variance, out=shares, where=variance > least)
    return shares.clip(0) / total


def _mean(shares):
    return sum(shares) / len(shares)


@dataclasses.dataclass(frozen=True, eq=False)
class _Steps:
    """What taking b numbers one after the other changes for a reader.

    Attributes:
        columns: v for each step, which leaves C - v v^T, shape (b, n).
        outputs: u for each step, which leaves G - v u^T, shape (b, m).
        gains: those of all numbers before each step, shape (b, n).
    """

    columns: NDArray
    outputs: NDArray
    gains: NDArray


class _View:
    """The numbers as one reader sees them, less what is explained already.

    With C the covariance of what the numbers taken so far leave of each.

    Attributes:
        covariance: C before any step, shape (n, n).
        total: the whole error, trace(W^T C W), before any step.
        numbers: those of the n that are held here: m of them.
        factor: L^T with C = covariance - L L^T, shape (most, m); its first
            `count` rows are filled. What is done step by step is laid out so
            that the numbers of a step lie together in memory.
        read: G = C W, shape (m, outputs).
        variance, strength: the diagonals of C and of G G^T, shape (m,).
        least: the variances that may be rounding, shape (m,).
        is_left: which numbers are not taken yet, shape (m,).
    """

    def __init__(self, reader):
        covariance, weights = (
            np.asarray(x, np.float64)
            for x in (reader.covariance, reader.weights)
        )
        self.covariance, self.read = covariance, covariance @ weights
        self.total = float(np.vdot(weights, self.read))
        self.numbers = np.arange(len(covariance))
        self.factor = np.empty(covariance.shape)
        self.count = 0
        self.variance = np.diag(covariance).copy()
        self.least = ROUNDING * self.variance
        self.is_left = np.ones(len(covariance), bool)
        self._measure()

    def _measure(self):
        self.strength = np.einsum("nm,nm->n", self.read, self.read)

    def gains(self):
        """The share of the error that each number would take away."""
        return _shares(self.variance, self.strength, self.least, self.total)

    def _rows(self, rows, of):
        """C for some numbers, beside others."""
        factor = self.factor[: self.count]
        # Rows first: they lie together in memory.
        whole = self.covariance[self.numbers[rows]][:, self.numbers[of]]
        return whole - factor[:, rows].T @ factor[:, of]

    def among(self, short):
        """The arguments of `_greedy` for these candidates."""
        read = self.read[short]
        return (
            self._rows(short, short),
            read @ read.T,
            self.variance[short],
            self.strength[short],
            self.least[short],
            np.array([self.total]),
        )

    def steps(self, rows, factor) -> _Steps:
        """What taking these numbers would change.

        Args:
            rows: the numbers, shape (b,).
            factor: the Cholesky factor of C among them, shape (b, b). Those
                that are explained already have zeros on its diagonal, and
                change nothing.
        """
        is_known = factor.diagonal() == 0
        columns, outputs = self._rows(rows, slice(None)), self.read[rows]
        columns[is_known], outputs[is_known] = 0, 0
        factor = factor * ~is_known[:, None] + np.diag(is_known)
        # Not by SciPy, whose threads and NumPy's wait for each other.
        inverse = np.linalg.inv(factor)
        columns, outputs = inverse @ columns, inverse @ outputs
        lengths = outputs @ outputs.T
        seen = outputs @ self.read.T - np.triu(lengths, 1).T @ columns
        changes = columns * (2 * seen - columns * lengths.diagonal()[:, None])
        gains = _shares(
            self.variance - _before(columns**2),
            self.strength - _before(changes),
            self.least,
            self.total,
        )
        gains[:, ~self.is_left] = 0
        return _Steps(columns, outputs, gains)

    def take(self, rows, steps):
        """Take the first of these steps: those of `rows`."""
        count = len(rows)
        columns, outputs = steps.columns[:count], steps.outputs[:count]
        self.factor[self.count : self.count + count] = columns
        self.count += count
        for start in range(0, len(self.read), PART):
            part = slice(start, start + PART)
            self.read[part] -= columns[:, part].T @ outputs
        self.variance -= np.einsum("bn,bn->n", columns, columns)
        self.variance[rows] = 0
        self.is_left[rows] = False
        self._measure()

    def shrink(self, left):
        """Forget all numbers but those that are left."""
        self.numbers, self.is_left = self.numbers[left], self.is_left[left]
        self.factor, self.read = self.factor[:, left], self.read[left]
        self.variance, self.least = self.variance[left], self.least[left]
        self.strength = self.strength[left]


def _before(changes):
    """The sum of all rows before each one."""
    return np.cumsum(changes, axis=0) - changes
