"""Least squares from rows, and from covariance matrices alone."""

import numpy as np
import pytest

from keras_redundancy.numbers import regression


def samples(count=400, n=12, rank=12, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, rank)) @ rng.normal(size=(rank, n))
    return x + noise * rng.normal(size=(count, n))


def covariance_of(x):
    return np.cov(x, rowvar=False, bias=True)


def least_squares(x, kept, removed):
    """Every fifth row is held out."""
    is_held_out = np.arange(len(x)) % 5 == 4
    rows = x - x[~is_held_out].mean(axis=0)
    parts = rows[~is_held_out], rows[is_held_out]
    return regression.least_squares(
        covariance_of(x),
        kept,
        removed,
        *(part.T @ part / len(part) for part in parts),
    )


KEPT, REMOVED = np.array([0, 2, 5, 7, 11]), np.array([1, 3, 4, 6, 8, 9, 10])


def test_slopes_are_those_of_the_best_single_predictor():
    x = samples()
    found = regression.slopes(covariance_of(x), KEPT, REMOVED)
    assert ((found != 0).sum(axis=0) == 1).all()
    for column, unit in enumerate(REMOVED):
        errors, slopes = [], []
        for other in KEPT:
            slope, shift = np.polyfit(x[:, other], x[:, unit], 1)
            rest = x[:, unit] - slope * x[:, other] - shift
            errors.append((rest**2).sum())
            slopes.append(slope)
        best = int(np.argmin(errors))
        assert found[best, column] == pytest.approx(slopes[best])


def test_least_squares_is_that_of_numpy_where_samples_abound():
    x = samples(count=20000)
    found = least_squares(x, KEPT, REMOVED)
    centered = x - x.mean(axis=0)
    wanted = np.linalg.lstsq(centered[:, KEPT], centered[:, REMOVED])[0]
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_what_one_number_tells_exactly_is_told_exactly():
    x = samples(count=50)
    x[:, 3] = -2 * x[:, 5] + 1
    x[:, 8] = x[:, 0]
    found = least_squares(x, KEPT, REMOVED)
    told = x[:, KEPT] @ found
    for column in (1, 4):
        rest = told[:, column] - x[:, REMOVED[column]]
        assert rest.std() < 1e-6


def test_combinations_of_several_are_told_exactly():
    x = samples(count=500, rank=5, noise=0)
    found = least_squares(x, KEPT, REMOVED)
    rest = (x[:, KEPT] @ found - x[:, REMOVED]).std(axis=0)
    assert (rest < 1e-4 * x[:, REMOVED].std(axis=0)).all()


def test_few_samples_do_not_blow_it_up():
    """With fewer samples than numbers, plain least squares learns noise."""
    n = 60
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2040, 4)) @ rng.normal(size=(4, n))
    x += 0.5 * rng.normal(size=x.shape)
    few, many = x[:40], x[40:]
    kept, removed = np.arange(50), np.arange(50, n)
    found = least_squares(few, kept, removed)
    plain = np.linalg.lstsq(few[:, kept], few[:, removed])[0]
    error, worse = (
        ((many[:, kept] @ b - many[:, removed]) ** 2).mean()
        for b in (found, plain)
    )
    assert error < 0.5 * worse


def test_constant_numbers_tell_nothing():
    x = samples()
    x[:, [0, 3]] = 4.0
    found = least_squares(x, KEPT, REMOVED)
    assert np.isfinite(found).all()
    assert not found[0].any()
    assert not found[:, 1].any()


def test_no_number_kept_or_removed():
    covariance = covariance_of(samples())
    none, everyone = np.array([], int), np.arange(12)
    for solve in (regression.slopes, regression.least_squares):
        for kept, removed in ((none, everyone), (everyone, none)):
            found = solve(covariance, kept, removed, covariance, covariance)
            assert found.shape == (len(kept), len(removed))


# --- ridge regression that is checked on rows held out -----------------------


def problem(rows, k=40, r=5, seed=0):
    """Inputs behind a ReLU, outputs, a start, and which rows are held out."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, k)) @ rng.normal(size=(k, k)) / np.sqrt(k)
    x = np.maximum(x + 0.5, 0)
    weights = rng.normal(size=(k, r))
    y = x @ weights + 0.3 * rng.normal(size=(rows, r)) + 2
    start = weights + 0.5 * rng.normal(size=weights.shape)
    return x, y, start, np.arange(rows) % 5 == 4


def equations_of(x, y):
    """The `Equations` of inputs (rows, k) and outputs (rows, r)."""
    count = max(len(x), 1)
    size = np.einsum("ir,ir->r", y, y)
    return regression.Equations(x.T @ x / count, x.T @ y / count, size / count)


def by_moments(x, y, start, is_held_out, has_shift):
    """`ridge_from_moments` of these rows."""
    everyone = np.ones(len(x), bool)
    equations = []
    for part, about in (
        (everyone, everyone),
        (~is_held_out, ~is_held_out),
        (is_held_out, ~is_held_out),
    ):
        centered = (z[part] - z[about].mean(axis=0) * has_shift for z in (x, y))
        equations.append(equations_of(*centered))
    return regression.ridge_from_moments(*equations, start)


@pytest.mark.parametrize("has_shift", [True, False])
@pytest.mark.parametrize("count", [12, 30, 45, 200])
def test_rows_give_what_their_moments_give(count, has_shift):
    """With fewer rows than inputs, about as many, and more."""
    x, y, start, is_held_out = problem(count)
    x[:, 3], x[:, 5] = 2, 0
    wanted = by_moments(x, y, start, is_held_out, has_shift)
    found, shift = regression.ridge_from_rows(
        x, y, is_held_out, start, has_shift
    )
    assert np.abs(wanted - start).max() > 0.01
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    left = y - x @ found - shift
    assert np.abs(left.mean(axis=0)).max() < 1e-9 or not has_shift
    assert shift.any() == has_shift


@pytest.mark.parametrize("noise", [0.0, 0.5, 5.0])
def test_ridges_are_told_apart_in_float32_as_in_float64(noise, monkeypatch):
    """Small ridges are best without noise, large ones with much of it."""
    x, y, start, is_held_out = problem(900, k=regression.MANY)
    y = y + noise * np.random.default_rng(1).normal(size=y.shape)
    found = by_moments(x, y, start, is_held_out, True)
    monkeypatch.setattr(regression, "MANY", np.inf)
    wanted = by_moments(x, y, start, is_held_out, True)
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(wanted - start).max() > 0.01


def test_rows_fit_better_than_the_start_with_fewer_rows_than_inputs():
    x, y, start, is_held_out = problem(2000, k=300)
    few = slice(100)
    found, _ = regression.ridge_from_rows(
        x[few], y[few], is_held_out[few], start
    )
    errors = [
        (y - x @ weights)[100:].var(axis=0).sum() for weights in (found, start)
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("count", [60, 400])
def test_what_is_worse_on_rows_held_out_is_not_kept(count):
    x, y, start, is_held_out = problem(count, k=100)
    y = x @ start
    y[~is_held_out] += np.random.default_rng(1).normal(
        size=y[~is_held_out].shape
    )
    y[is_held_out] += 1e-3
    found, _ = regression.ridge_from_rows(x, y, is_held_out, start, False)
    np.testing.assert_array_equal(found, start)


@pytest.mark.parametrize("count", [60, 400])
def test_outputs_that_the_start_gives_are_left_as_they_are(count):
    x, y, start, is_held_out = problem(count, k=100)
    y[:, 2] = x @ start[:, 2] - 1
    found, shift = regression.ridge_from_rows(x, y, is_held_out, start)
    np.testing.assert_array_equal(found[:, 2], start[:, 2])
    assert shift[2] == pytest.approx(-1)
    assert np.abs(found - start).max(axis=0)[[0, 1, 3, 4]].min() > 0


@pytest.mark.parametrize("is_held_out", [True, False])
def test_without_both_kinds_of_rows_the_start_stays(is_held_out):
    x, y, start, _ = problem(20)
    found, _ = regression.ridge_from_rows(x, y, np.full(20, is_held_out), start)
    np.testing.assert_array_equal(found, start)


@pytest.mark.parametrize("has_shift", [True, False])
@pytest.mark.parametrize("count", [60, 400])
def test_inputs_that_hardly_vary_are_part_of_what_the_start_predicts(
    count, has_shift
):
    """They keep their coefficients, however much these count."""
    x, _, start, is_held_out = problem(count, k=100)
    x[:, 7] *= 2e-3
    start[7] *= 500
    y = x @ start
    for found in (
        regression.ridge_from_rows(x, y, is_held_out, start, has_shift)[0],
        by_moments(x, y, start, is_held_out, has_shift),
    ):
        np.testing.assert_array_equal(found, start)
