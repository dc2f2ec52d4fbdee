"""Predict some numbers from others by least squares.

Everything here is arrays in, arrays out. The covariance matrix of n numbers,
shape (n, n), is all that least squares of any of them on any others need; where
there are fewer rows than inputs, the rows themselves are the shorter way.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

# Ridges that are tried, in units of a kept number's variance.
RIDGES = 10.0 ** np.arange(-6, 1.5, 0.5)
# A number whose variance is this small beside the largest is constant.
CONSTANT = 1e-12
# What of the mean variance is added to that of a number to say how large a
# change of its coefficient is: one that hardly varies gets none for a chance.
TYPICAL = 1e-2
# Covariances of float32 activations are known to about 1e-7 of their size.
ROUNDING = 1e-6


def slopes(
    covariance: NDArray,
    kept: NDArray,
    removed: NDArray,
    fitted: NDArray | None = None,
    held_out: NDArray | None = None,
) -> NDArray:
    """Least squares of each removed number on the kept one most correlated.

    Args:
        covariance: shape (n, n).
        kept, removed: indices, shapes (k,) and (r,).
        fitted, held_out: not needed; `least_squares` has them.

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
    covariance: NDArray,
    kept: NDArray,
    removed: NDArray,
    fitted: NDArray,
    held_out: NDArray,
) -> NDArray:
    """Ridge regression of the removed numbers on all kept ones.

    It is shrunk towards `slopes`, not towards zero, so that what one kept
    number predicts exactly is predicted exactly.

    Args:
        covariance: of all rows, shape (n, n).
        kept, removed: indices, shapes (k,) and (r,).
        fitted, held_out: as for `ridge_from_moments`.

    Returns:
        Shape (k, r): removed ~ kept @ result, up to a shift.
    """
    start = slopes(covariance, kept, removed)
    return ridge_from_moments(
        covariance, fitted, held_out, kept, removed, start
    )


def ridge_from_moments(
    whole: NDArray,
    fitted: NDArray,
    held_out: NDArray,
    inputs: NDArray,
    outputs: NDArray,
    start: NDArray,
    rounding: float = ROUNDING,
) -> NDArray:
    """Ridge regression towards a start, checked on rows that are held out.

    For rows of inputs x and outputs y it minimises, over matrices B (k, r),

        mean |y - B^T x|^2 + ridge * sum_i s_i |B_i - start_i|^2

    where s_i is the variance of input i over all rows, plus `TYPICAL` of the
    mean one. Fitted to the rows of `fitted`, the ridge is the one of
    `RIDGES` with the least error on those held out. With this ridge, B is
    then fitted to all rows.

    Args:
        whole: the mean of z z^T over all rows z = (x, y), shape (n, n).
            Where a shift is fitted too, z is taken about its mean.
        fitted: that of the rows to fit to, about their own mean.
        held_out: that of the other rows, about the mean of the rows to fit
            to; zeros if there are none.
        inputs, outputs: which of the n numbers are x and y, shapes (k,) and
            (r,).
        start: shape (k, r).
        rounding: the share of an output's variance that may be rounding.
            Outputs of which the start leaves no more are not fitted.

    Returns:
        B, shape (k, r); the start where no ridge has less error than it on
        the rows held out.
    """
    variance = np.diag(whole)
    alive, scale = _scales(variance[inputs])
    if not len(alive) or not len(outputs):
        return start.copy()
    among, prior = inputs[alive], start[alive]

    def equations(moments):
        known = moments[np.ix_(among, among)] * scale * scale[:, None]
        rest, left = _left_by(prior, moments, among, outputs)
        return known, rest * scale[:, None], left

    *all_rows, left = equations(whole)
    is_open = left > rounding * variance[outputs]
    known, shared, _ = equations(fitted)
    seen, seen_shared, _ = equations(held_out)

    def change(more):
        return np.vdot(more, seen @ more - 2 * seen_shared)

    negligible = rounding * variance[outputs] @ is_open
    number = _best_ridge(known, shared * is_open, change, negligible)
    if number is None:
        return start.copy()
    more = _first_solution(*all_rows, number)
    result = start.copy()
    result[alive] += more * is_open * scale[:, None]
    return result


def ridge_from_rows(
    x: NDArray,
    y: NDArray,
    is_held_out: NDArray[np.bool_],
    start: NDArray,
    has_shift: bool = True,
    rounding: float = ROUNDING,
) -> tuple[NDArray, NDArray]:
    """The problem of `ridge_from_moments`, given the rows themselves.

    With fewer rows than inputs it is solved in the dual: B differs from the
    start by a combination of rows, so the equations are as many as rows,
    and memory is rows x inputs. Otherwise the moments of the rows are taken.

    Args:
        x: inputs, shape (rows, k).
        y: outputs, shape (rows, r).
        is_held_out: which rows choose the ridge, shape (rows,). Rows that
            are like one another, as those of one image, belong together.
        start: shape (k, r).
        has_shift: whether there is a shift to be fitted beside B; otherwise
            y ~ B^T x without one.
        rounding: as for `ridge_from_moments`.

    Returns:
        B of shape (k, r), and the shift of shape (r,): zeros without one.

    Source: Saunders, Gammerman and Vovk, Ridge Regression Learning Algorithm
    in Dual Variables (1998).
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    is_fitted = ~is_held_out
    if not is_fitted.any():
        solution = start.copy()
    elif is_fitted.sum() < x.shape[1]:
        solution = _dual(x, y, is_fitted, start, has_shift, rounding)
    else:
        rows = np.concatenate([x, y], axis=1)
        inputs, outputs = np.split(np.arange(rows.shape[1]), [x.shape[1]])
        center = rows[is_fitted].mean(axis=0) if has_shift else 0
        solution = ridge_from_moments(
            _second_moments(rows - (rows.mean(axis=0) if has_shift else 0)),
            _second_moments(rows[is_fitted] - center),
            _second_moments(rows[is_held_out] - center),
            inputs,
            outputs,
            start,
            rounding,
        )
    if not has_shift or not len(x):
        return solution, np.zeros(y.shape[1])
    return solution, y.mean(axis=0) - x.mean(axis=0) @ solution


def _dual(x, y, is_fitted, start, has_shift, rounding):
    """B of `ridge_from_rows`; the equations are one for each row.

    With Z the scaled inputs and E what the start leaves of the outputs,
    B - start = Z^T A for the A that solves (Z Z^T / rows + ridge) A = E / rows.
    """
    if has_shift:
        x, y = (z - z[is_fitted].mean(axis=0) for z in (x, y))

    def about_mean(z):
        return z - z.mean(axis=0) if has_shift else z

    alive, scale = _scales(np.square(about_mean(x)).mean(axis=0))
    errors = y - x[:, alive] @ start[alive]
    left, size = (np.square(about_mean(z)).mean(axis=0) for z in (errors, y))
    is_open = left > rounding * size
    errors *= is_open
    if not len(alive) or not errors.any():
        return start.copy()
    scaled = x[:, alive] * scale
    gram = scaled @ scaled.T
    count = is_fitted.sum()
    across = gram[np.ix_(~is_fitted, is_fitted)]

    def change(more):
        found = across @ more
        change = np.vdot(found, found - 2 * errors[~is_fitted])
        return change / max(len(across), 1)

    number = _best_ridge(
        gram[np.ix_(is_fitted, is_fitted)] / count,
        errors[is_fitted] / count,
        change,
        rounding * size @ is_open,
    )
    if number is None:
        return start.copy()
    scaled, errors = about_mean(scaled), about_mean(errors)
    gram = about_mean(about_mean(gram).T)
    more = _first_solution(gram / len(x), errors / len(x), number)
    result = start.copy()
    result[alive] += (scaled.T @ more) * scale[:, None]
    return result


def _second_moments(rows):
    """The mean outer product of rows, shape (n, n)."""
    return rows.T @ rows / max(len(rows), 1)


def _scales(variance):
    """The inputs that vary, and what divides each by its size.

    A coefficient counts in units of this size. One of an input that varies by
    less than `TYPICAL` of the typical standard deviation keeps its start: it
    would be decided by a few rows, and count where the input varies more.
    """
    least = TYPICAL**2 * variance.sum() / max(len(variance), 1)
    alive = np.flatnonzero(varies(variance) & (variance > least))
    if not len(alive):
        return alive, np.ones(0)
    typical = TYPICAL * variance[alive].mean()
    return alive, 1 / np.sqrt(variance[alive] + typical)


def _best_ridge(
    known, shared, change: Callable, negligible: float
) -> int | None:
    """Number of the best one of `RIDGES`; None: none is better than zero.

    It looks at every third one, and then on both sides of the best of these.
    Of ridges with errors that differ by rounding the smallest one is best.

    Args:
        known: shape (p, p), symmetric.
        shared: shape (p, r).
        change: a function of the solution of (known + ridge) X = shared,
            shape (p, r), that returns the error less that of X = 0.
        negligible: an error that may be rounding.
    """

    @functools.cache
    def error(number):
        solution = _solved(known, shared, RIDGES[number])
        found = np.inf if solution is None else change(solution)
        return found if np.isfinite(found) else np.inf

    def first_best(numbers):
        least = min(map(error, numbers))
        return next(n for n in numbers if error(n) <= least + negligible)

    near = first_best(range(1, len(RIDGES), 3))
    best = first_best(range(near - 1, min(near + 2, len(RIDGES))))
    return best if error(best) < 0 else None


def _solved(known, shared, ridge):
    """X with (known + ridge) X = shared; None where rounding forbids it."""
    matrix = known.copy()
    np.fill_diagonal(matrix, matrix.diagonal() + ridge)
    try:
        factor = linalg.cho_factor(
            matrix, lower=True, overwrite_a=True, check_finite=False
        )
    except linalg.LinAlgError:
        return None
    return linalg.cho_solve(factor, shared, check_finite=False)


def _first_solution(known, shared, number):
    """With the first ridge from this one on that rounding allows."""
    for ridge in RIDGES[number:]:
        solution = _solved(known, shared, ridge)
        if solution is not None:
            return solution
    return np.zeros_like(shared)


def _left_by(prior, covariance, inputs, outputs):
    """What a prediction leaves of the outputs.

    Returns:
        What that has in common with the inputs, shape (k, r), and its
        variance, shape (r,).
    """
    between = covariance[np.ix_(inputs, outputs)]
    predicted = covariance[np.ix_(inputs, inputs)] @ prior
    left = np.diag(covariance)[outputs] + np.einsum(
        "kr,kr->r", prior, predicted - 2 * between
    )
    return between - predicted, left


def varies(variance: NDArray) -> NDArray[np.bool_]:
    """Which numbers are not constant, given the variance of each."""
    return variance > CONSTANT * variance.max(initial=0)
