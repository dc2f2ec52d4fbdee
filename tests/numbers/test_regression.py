"""Least squares and rankings from a covariance matrix alone."""

import numpy as np
import pytest
from scipy import linalg

from keras_redundancy.numbers import regression


def samples(count=400, n=12, rank=12, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, rank)) @ rng.normal(size=(rank, n))
    return x + noise * rng.normal(size=(count, n))


def covariance_of(x):
    return np.cov(x, rowvar=False, bias=True)


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
    found = regression.least_squares(covariance_of(x), KEPT, REMOVED, len(x))
    centered = x - x.mean(axis=0)
    wanted = np.linalg.lstsq(centered[:, KEPT], centered[:, REMOVED])[0]
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_what_one_number_tells_exactly_is_told_exactly():
    x = samples(count=50)
    x[:, 3] = -2 * x[:, 5] + 1
    x[:, 8] = x[:, 0]
    found = regression.least_squares(covariance_of(x), KEPT, REMOVED, len(x))
    told = x[:, KEPT] @ found
    for column in (1, 4):
        rest = told[:, column] - x[:, REMOVED[column]]
        assert rest.std() < 1e-6


def test_combinations_of_several_are_told_exactly():
    x = samples(count=500, rank=5, noise=0)
    covariance = covariance_of(x)
    found = regression.least_squares(covariance, KEPT, REMOVED, len(x))
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
    found = regression.least_squares(covariance_of(few), kept, removed, 40)
    plain = np.linalg.lstsq(few[:, kept], few[:, removed])[0]
    error, worse = (
        ((many[:, kept] @ b - many[:, removed]) ** 2).mean()
        for b in (found, plain)
    )
    assert error < 0.5 * worse


def test_constant_numbers_tell_nothing():
    x = samples()
    x[:, [0, 3]] = 4.0
    found = regression.least_squares(covariance_of(x), KEPT, REMOVED, len(x))
    assert np.isfinite(found).all()
    assert not found[0].any()
    assert not found[:, 1].any()


def test_no_number_kept_or_removed():
    covariance = covariance_of(samples())
    none, everyone = np.array([], int), np.arange(12)
    for solve in (regression.slopes, regression.least_squares):
        assert solve(covariance, none, everyone, 400).shape == (0, 12)
        assert solve(covariance, everyone, none, 400).shape == (12, 0)


def test_pivots_are_those_of_a_pivoted_qr():
    x = samples()
    weights = np.random.default_rng(1).uniform(0.5, 2, 12)
    ranking = regression.rank_by_pivots(covariance_of(x), weights)
    weighted = (x - x.mean(axis=0)) * weights
    _, r, pivots = linalg.qr(weighted, mode="economic", pivoting=True)
    np.testing.assert_array_equal(ranking.order, pivots)
    left = 1 - np.cumsum((r**2).sum(axis=1)) / (weighted**2).sum()
    np.testing.assert_allclose(ranking.error[1:], left, atol=1e-9)


def output_error(covariance, reads, kept):
    """tr(S W W^T) with S what the kept numbers leave, by plain algebra."""
    rest = np.setdiff1d(np.arange(len(covariance)), kept)
    if not len(rest):
        return 0.0
    cross = covariance[np.ix_(kept, rest)]
    told = cross.T @ np.linalg.solve(covariance[np.ix_(kept, kept)], cross)
    left = covariance[np.ix_(rest, rest)] - told
    return np.trace(left @ reads[np.ix_(rest, rest)])


def test_each_step_of_greedy_is_the_best_one():
    covariance = covariance_of(samples())
    weights = np.random.default_rng(1).normal(size=(12, 4))
    reads = weights @ weights.T
    ranking = regression.rank_by_outputs([(covariance, reads)])
    assert sorted(ranking.order) == list(range(12))
    whole = np.trace(covariance @ reads)
    for k in range(1, 11):
        first, following = ranking.order[:k], ranking.order[k:]
        error = output_error(covariance, reads, first)
        assert ranking.error[k] == pytest.approx(error / whole, abs=1e-9)
        nexts = [
            output_error(covariance, reads, [*first, unit])
            for unit in following
        ]
        assert following[np.argmin(nexts)] == following[0]


def test_greedy_weighs_readers_by_their_own_size():
    """A reader a thousand times louder does not silence the other."""
    covariance = np.eye(4)
    loud = np.diag([1e6, 1e6, 0, 0])
    soft = np.diag([0, 0, 1, 0])
    ranking = regression.rank_by_outputs(
        [(covariance, loud), (covariance, soft)]
    )
    assert ranking.order[0] == 2
    assert set(ranking.order[1:3]) == {0, 1}
    assert ranking.error[3] == pytest.approx(0, abs=1e-9)


def test_what_several_read_is_worth_more():
    covariance, reads = covariance_of(samples()), np.eye(12)
    one = regression.rank_by_outputs([(covariance, reads)])
    three = regression.rank_by_outputs([(covariance, reads)] * 3)
    np.testing.assert_array_equal(three.order, one.order)
    np.testing.assert_allclose(three.error, one.error, atol=1e-12)
    np.testing.assert_allclose(three.worth, 3 * one.worth)


def test_rankings_of_low_rank():
    x = samples(rank=5, noise=0)
    covariance = covariance_of(x)
    for ranking in (
        regression.rank_by_pivots(covariance, np.ones(12)),
        regression.rank_by_outputs([(covariance, np.eye(12))]),
    ):
        assert sorted(ranking.order) == list(range(12))
        assert (np.diff(ranking.error) <= 0).all()
        assert ranking.count_at(1.0) == 5
        assert ranking.count_at(0.5) < 5


def test_rankings_of_nothing_but_constants():
    nothing = np.zeros((3, 3))
    assert regression.rank_by_pivots(nothing, np.ones(3)).count_at(0.9) == 0
    ranking = regression.rank_by_outputs([(nothing, np.eye(3))])
    assert ranking.count_at(0.9) == 0
    assert sorted(ranking.order) == [0, 1, 2]
