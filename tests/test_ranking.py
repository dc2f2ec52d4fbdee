"""Rankings: the units that tell most of what is computed from all."""

import numpy as np
import pytest
from scipy import linalg

from keras_redundancy.numbers.ranking import rank_by_outputs, rank_by_pivots
from tests.test_regression import covariance_of, samples


def test_pivots_are_those_of_a_pivoted_qr():
    x = samples()
    weights = np.random.default_rng(1).uniform(0.5, 2, 12)
    ranking = rank_by_pivots(covariance_of(x), weights)
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
    ranking = rank_by_outputs([(covariance, reads)])
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
    ranking = rank_by_outputs([(covariance, loud), (covariance, soft)])
    assert ranking.order[0] == 2
    assert set(ranking.order[1:3]) == {0, 1}
    assert ranking.error[3] == pytest.approx(0, abs=1e-9)


def test_what_several_read_is_worth_more():
    covariance, reads = covariance_of(samples()), np.eye(12)
    one = rank_by_outputs([(covariance, reads)])
    three = rank_by_outputs([(covariance, reads)] * 3)
    np.testing.assert_array_equal(three.order, one.order)
    np.testing.assert_allclose(three.error, one.error, atol=1e-12)
    np.testing.assert_allclose(three.worth, 3 * one.worth)


def test_rankings_of_low_rank():
    x = samples(rank=5, noise=0)
    covariance = covariance_of(x)
    for ranking in (
        rank_by_pivots(covariance, np.ones(12)),
        rank_by_outputs([(covariance, np.eye(12))]),
    ):
        assert sorted(ranking.order) == list(range(12))
        assert (np.diff(ranking.error) <= 0).all()
        assert ranking.count_at(1.0) == 5
        assert ranking.count_at(0.5) < 5


def test_rankings_of_nothing_but_constants():
    nothing = np.zeros((3, 3))
    assert rank_by_pivots(nothing, np.ones(3)).count_at(0.9) == 0
    ranking = rank_by_outputs([(nothing, np.eye(3))])
    assert ranking.count_at(0.9) == 0
    assert sorted(ranking.order) == [0, 1, 2]
