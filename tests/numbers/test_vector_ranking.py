"""Vectors, such as heads, ranked by what the first ones predict."""

import itertools

import numpy as np
import pytest

from keras_redundancy.numbers.ranking import Readout, rank_by_outputs
from keras_redundancy.numbers.vector_ranking import rank_vectors


def covariance(n, seed, rank=None):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, rank or n)) @ rng.normal(size=(rank or n, 4 * n))
    return x @ x.T / x.shape[1]


def reader(units, each, seed, outputs=5, rank=None):
    weights = np.random.default_rng(seed + 100)
    return Readout(
        covariance(units * each, seed, rank),
        weights.normal(size=(units * each, outputs)),
        each,
    )


def left_over(reader, units):
    """The share of the error that is left when some vectors are kept."""
    C, W, d = reader.covariance, reader.weights, reader.each
    kept = np.concatenate([np.arange(u * d, (u + 1) * d) for u in units])
    P = np.linalg.pinv(C[np.ix_(kept, kept)]) @ C[kept]
    rest = C - C[:, kept] @ P
    return np.vdot(W, rest @ W) / np.vdot(W, C @ W)


@pytest.mark.parametrize("each", [1, 3])
def test_errors_are_those_of_least_squares(each):
    readers = [reader(6, each, 0), reader(6, each, 1)]
    ranking = rank_vectors(readers)
    assert sorted(ranking.order) == list(range(6))
    for k in range(1, 6):
        wanted = np.mean([left_over(x, ranking.order[:k]) for x in readers])
        np.testing.assert_allclose(ranking.error[k], wanted, rtol=1e-4)


def test_each_step_takes_the_best():
    one = reader(6, 2, 3)
    order = list(rank_vectors([one]).order)
    for k in range(5):
        errors = {u: left_over(one, [*order[:k], u]) for u in order[k:]}
        assert min(errors, key=errors.get) == order[k]


def test_vectors_of_one_number_are_numbers():
    readers = [reader(9, 1, 0), reader(9, 1, 1)]
    found, wanted = rank_vectors(readers), rank_by_outputs(readers)
    np.testing.assert_array_equal(found.order, wanted.order)
    np.testing.assert_allclose(found.error, wanted.error, atol=1e-8)


def test_readers_with_vectors_of_other_lengths():
    readers = [reader(5, 3, 0), reader(5, 1, 1)]
    ranking = rank_vectors(readers)
    pairs = itertools.combinations(range(5), 1)
    best = min(pairs, key=lambda u: sum(left_over(x, u) for x in readers))
    assert ranking.order[0] == best[0]
    assert ranking.whole == 2


def test_what_is_known_already_takes_nothing_away():
    """The numbers of five vectors are combinations of those of two."""
    ranking = rank_vectors([reader(5, 2, 0, rank=4)])
    assert ranking.error[1] > 1e-3
    assert (ranking.error[2:] < 1e-6).all()


def test_nothing_to_predict():
    empty = Readout(np.zeros((6, 6)), np.ones((6, 2)), 2)
    ranking = rank_vectors([empty])
    np.testing.assert_array_equal(ranking.order, range(3))
    np.testing.assert_array_equal(ranking.error, np.zeros(4))
