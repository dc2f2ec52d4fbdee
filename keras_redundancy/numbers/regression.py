"""Predict some numbers from others by least squares.

Everything here is arrays in, arrays out. The covariance matrix of n numbers,
shape (n, n), is all that least squares of any of them on any others need; where
there are fewer rows than inputs, the rows themselves are the shorter way.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

# Ridges that are tried, in units of a kept number's variance.
RIDGES = 10.0 ** np.arange(-6, 2)
# The one that is tried first.
FIRST = 4
# From this one on ridges are compared in float32, where there are many inputs:
# that halves the time, and rounding is far below the ridge.
FIRST_IN_FLOAT32 = 3
MANY = 256
# So many mixtures of outputs choose the ridge for all.
MIXTURES = 32
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


@dataclasses.dataclass(frozen=True, eq=False)
class Equations:
    """What least squares of outputs y on inputs x need to know of rows.

    Attributes:
        known: the mean of x x^T, shape (k, k).
        shared: that of x y^T, shape (k, r).
        size: that of y^2, shape (r,).

    `grouped_regression` has one more axis before these, for the groups.
    """

    known: NDArray
    shared: NDArray
    size: NDArray

    @classmethod
    def among(cls, moments, inputs, outputs) -> "Equations":
        """Of some of n numbers, given the mean outer products, (n, n)."""
        return cls(
            moments[np.ix_(inputs, inputs)],
            moments[np.ix_(inputs, outputs)],
            np.diag(moments)[outputs],
        )


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
        fitted, held_out: the mean outer products of the rows to fit to and of
            those held out, as for `ridge_from_moments`, shape (n, n).

    Returns:
        Shape (k, r): removed ~ kept @ result, up to a shift.
    """
    start = slopes(covariance, kept, removed)
    sides = (
        Equations.among(moments, kept, removed)
        for moments in (covariance, fitted, held_out)
    )
    return ridge_from_moments(*sides, start)


def ridge_from_moments(
    whole: Equations,
    fitted: Equations,
    held_out: Equations,
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
        whole: of all rows. Where a shift is fitted too, inputs and outputs
            are taken about their means.
        fitted: of the rows to fit to, about their own means.
        held_out: of the other rows, about the means of the rows to fit to;
            zeros if there are none.
        start: shape (k, r).
        rounding: the share of an output's variance that may be rounding.
            Outputs of which the start leaves no more are not fitted.

    Returns:
        B, shape (k, r); the start where no ridge has less error than it on
        the rows held out.
    """
    scale = scales(np.diag(whole.known)) if len(start) else np.zeros(0)
    alive = np.flatnonzero(scale)
    scale = scale[alive]
    if not len(alive) or not start.shape[1]:
        return start.copy()
    known, shared, left = _less_start(whole, start, alive, scale)
    is_open = left > rounding * whole.size
    few = _mixed(is_open)
    among, between, _ = _less_start(fitted, start, alive, scale, few)
    seen, seen_between, _ = _less_start(held_out, start, alive, scale, few)

    def change(more):
        return np.vdot(more, seen @ more - 2 * seen_between)

    negligible = rounding * whole.size @ is_open
    number = _best_ridge(among, between, change, negligible)
    if number is None:
        return start.copy()
    more = _first_solution(known, shared, number)
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

    It is solved in the dual, which is faster with fewer rows than inputs: B
    differs from the start by a combination of rows. With Z the scaled inputs
    and E what the start leaves of the outputs, B - start = Z^T A for the A
    that solves (Z Z^T / rows + ridge) A = E / rows. Beside the rows it takes
    memory for one copy of them and for a few matrices (rows, rows).

    Args:
        x: inputs, shape (rows, k). Products of float32 rows are computed in
            float32, all else in float64.
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
    is_fitted, count = ~is_held_out, len(x)
    means = [z.mean(axis=0, dtype=np.float64) for z in (x, y)]
    if not is_fitted.any():
        return start.copy(), means[1] - means[0] @ start
    middle = [z[is_fitted].mean(axis=0) * has_shift for z in (x, y)]
    x, y = x - middle[0], np.asarray(y - middle[1], np.float64)

    def about_mean(z):
        return z - z.mean(axis=0) if has_shift else z

    variance = np.einsum("ij,ij->j", x, x, dtype=np.float64) / count
    variance -= np.square(x.mean(axis=0)) * has_shift
    scale = scales(variance)
    errors = y - x @ start.astype(x.dtype)
    left, size = (np.square(about_mean(z)).mean(axis=0) for z in (errors, y))
    errors *= left > rounding * size
    x *= scale.astype(x.dtype)
    gram = (x @ x.T).astype(np.float64)
    number = _best_dual_ridge(gram, errors, is_fitted, rounding * size)
    solution = start.copy()
    if number is not None:
        equations = about_mean(about_mean(gram).T) / count
        more = _first_solution(equations, about_mean(errors) / count, number)
        more = x.T @ about_mean(more).astype(x.dtype)
        more *= scale[:, None].astype(x.dtype)
        solution += more
    if not has_shift:
        return solution, np.zeros(y.shape[1])
    return solution, means[1] - means[0] @ solution


def _best_dual_ridge(gram, errors, is_fitted, negligible):
    """Number of the best one of `RIDGES`, or None.

    Args:
        gram: products of the scaled rows, shape (rows, rows).
        errors: what the start leaves of the outputs, shape (rows, r).
        is_fitted: which rows to fit to.
        negligible: what of each output's mean squares may be rounding.
    """
    is_open = errors.any(axis=0)
    errors, count = errors @ _mixed(is_open), is_fitted.sum()
    held_out, across = errors[~is_fitted], gram[np.ix_(~is_fitted, is_fitted)]

    def change(more):
        found = across @ more
        return np.vdot(found, found - 2 * held_out) / max(len(across), 1)

    return _best_ridge(
        gram[np.ix_(is_fitted, is_fitted)] / count,
        errors[is_fitted] / count,
        change,
        negligible @ is_open,
    )


def scales(variance: NDArray) -> NDArray:
    """What each input is multiplied by, so that coefficients count alike.

    One over its size: the root of its variance, plus `TYPICAL` of the mean
    one. 0 for an input that varies by less than `TYPICAL` of the typical
    standard deviation: its coefficient keeps its start, since it would be
    decided by a few rows, and count where the input varies more.

    Args:
        variance: shape (..., k), the k inputs of one problem or of each.
    """
    variance = variance.clip(0)  # Rounding may have made it negative.
    mean = variance.mean(axis=-1, keepdims=True)
    is_alive = variance > TYPICAL**2 * mean
    count = np.maximum(is_alive.sum(axis=-1, keepdims=True), 1)
    typical = (variance * is_alive).sum(axis=-1, keepdims=True) / count
    size = np.sqrt(variance + TYPICAL * typical)
    return np.divide(1, size, out=np.zeros_like(size), where=is_alive)


def _best_ridge(
    known, shared, change: Callable, negligible: float
) -> int | None:
    """Number of the best one of `RIDGES`; None: none is better than zero.

    Along the ridges the error falls and then grows. So the search starts with
    `FIRST`, and goes on as long as that helps. Of ridges with errors that
    differ by rounding the smallest one is best.

    Args:
        known: shape (p, p), symmetric.
        shared: shape (p, r).
        change: a function of the solution of (known + ridge) X = shared,
            shape (p, r), that returns the error less that of X = 0.
        negligible: an error that may be rounding.
    """
    rounded = known.astype("float32") if len(known) >= MANY else known

    @functools.cache
    def error(number):
        solution = None
        if number >= FIRST_IN_FLOAT32:
            solution = _solved(rounded, shared, RIDGES[number])
        if solution is None:
            solution = _solved(known, shared, RIDGES[number])
        found = np.inf if solution is None else change(solution)
        return found if np.isfinite(found) else np.inf

    best = min(FIRST, len(RIDGES) - 1)
    while best > 0 and error(best - 1) <= error(best) + negligible:
        best -= 1
    while best + 1 < len(RIDGES) and (
        error(best + 1) < error(best) - negligible
    ):
        best += 1
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
    shared = shared.astype(matrix.dtype, copy=False)
    return linalg.cho_solve(factor, shared, check_finite=False)


def _first_solution(known, shared, number):
    """With the first ridge from this one on that rounding allows."""
    for ridge in RIDGES[number:]:
        solution = _solved(known, shared, ridge)
        if solution is not None:
            return solution
    return np.zeros_like(shared)


def _less_start(equations, start, alive, scale, few=None):
    """The equations of what the start leaves of the outputs, in scaled units.

    Args:
        equations: of n inputs and r outputs.
        start: shape (n, r).
        alive: the inputs to take, shape (k,).
        scale: what each is multiplied by, shape (k,).
        few: a matrix of shape (r, m), to take mixtures of the outputs; None
            for the outputs.

    Returns:
        The mean products of the inputs with one another, shape (k, k), and
        with what is left, shape (k, m), and the mean squares of what is left,
        shape (r,), None for mixtures.
    """
    known, shared, left = equations.known, equations.shared, None
    if few is not None:
        shared, start = shared @ few, start @ few
    # Inputs that are not taken keep their start, which predicts as well.
    predicted = known @ start
    if few is None:
        products = np.einsum("kr,kr->r", start, predicted - 2 * shared)
        left = equations.size + products
    rest = (shared - predicted)[alive] * scale[:, None]
    if len(alive) < len(known):
        known = known[np.ix_(alive, alive)]
    known = known * scale
    known *= scale[:, None]
    return known, rest, left


def _mixed(is_open):
    """What makes a few mixtures of outputs, in which errors are as large.

    Of many outputs `MIXTURES` sums with random signs tell ridges apart as
    well: their expected error is that of all outputs.

    Args:
        is_open: which outputs are looked at, shape (r,).

    Returns:
        Shape (r, m), the identity but for these outputs where they are few.

    Source: Hutchinson, A Stochastic Estimator of the Trace of the Influence
    Matrix (1989).
    """
    open_ones = np.flatnonzero(is_open)
    few = np.zeros((len(is_open), min(len(open_ones), MIXTURES)))
    if len(open_ones) <= MIXTURES:
        few[open_ones, np.arange(len(open_ones))] = 1
    else:
        signs = np.random.default_rng(0).integers(
            0, 2, (len(open_ones), MIXTURES)
        )
        few[open_ones] = (2 * signs - 1) / np.sqrt(MIXTURES)
    return few


def varies(variance: NDArray) -> NDArray[np.bool_]:
    """Which numbers are not constant, given the variance of each."""
    return variance > CONSTANT * variance.max(initial=0)
