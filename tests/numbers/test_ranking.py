"""Rankings: the units that tell most of what is computed from all."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from keras_redundancy.numbers import ranking as rankings
from keras_redundancy.numbers.ranking import (
    Readout,
    rank_by_outputs,
    rank_by_pivots,
    reading_factor,
)
from tests.numbers.test_regression import covariance_of, samples


def one_at_a_time(readers):
    """Errors of greedy selection, by its definition: shape (n + 1,)."""
    left = [reader.covariance.copy() for reader in readers]
    wholes = [
        np.trace(reader.weights.T @ reader.covariance @ reader.weights)
        for reader in readers
    ]
    least = [1e-6 * np.diag(c) for c in left]
    errors = [1.0]
    for _ in range(len(left[0])):
        gains = 0
        for c, reader, whole, few in zip(
            left, readers, wholes, least, strict=True
        ):
            variance = np.diag(c)
            strength = np.square(c @ reader.weights).sum(axis=1)
            is_new = variance > few
            own = np.divide(
                strength, variance, out=np.zeros_like(few), where=is_new
            )
            gains = gains + own / whole / len(readers)
        best = gains.argmax()
        for c, few in zip(left, least, strict=True):
            if c[best, best] > few[best]:
                c -= np.outer(c[:, best], c[best]) / c[best, best]
                c[best] = c[:, best] = 0
        errors.append(errors[-1] - gains[best])
    return np.array(errors).clip(0)


def random_readers(n, readers=1, outputs=5, rank=None, seed=0):
    """Activations of a layer with ReLU, and kernels that read them."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(readers):
        x = samples(4 * n, n, rank or n, 0.1 * (rank or n) ** 0.5, rng)
        x = np.maximum(x, 0) * rng.uniform(0.1, 2, n)
        found.append(Readout(covariance_of(x), rng.normal(size=(n, outputs))))
    return found


def errors_of(order, readers, counts):
    """The error with the first numbers of an order, for some counts."""
    found = []
    for count in counts:
        shares = [
            output_error(
                reader.covariance,
                reader.weights @ reader.weights.T,
                order[:count],
            )
            / np.vdot(reader.weights, reader.covariance @ reader.weights)
            for reader in readers
        ]
        found.append(np.mean(shares))
    return np.array(found)


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
    ranking = rank_by_outputs([Readout(covariance, weights)])
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
    loud = np.diag([1e3, 1e3, 0, 0])
    soft = np.diag([0, 0, 1, 0])
    ranking = rank_by_outputs(
        [Readout(covariance, loud), Readout(covariance, soft)]
    )
    assert ranking.order[0] == 2
    assert set(ranking.order[1:3]) == {0, 1}
    assert ranking.error[3] == pytest.approx(0, abs=1e-9)


def test_what_several_read_is_worth_more():
    reader = Readout(covariance_of(samples()), np.eye(12))
    one = rank_by_outputs([reader])
    three = rank_by_outputs([reader] * 3)
    np.testing.assert_array_equal(three.order, one.order)
    np.testing.assert_allclose(three.error, one.error, atol=1e-12)
    np.testing.assert_allclose(three.worth, 3 * one.worth)


def test_rankings_of_low_rank():
    x = samples(rank=5, noise=0)
    covariance = covariance_of(x)
    for ranking in (
        rank_by_pivots(covariance, np.ones(12)),
        rank_by_outputs([Readout(covariance, np.eye(12))]),
    ):
        assert sorted(ranking.order) == list(range(12))
        assert (np.diff(ranking.error) <= 0).all()
        assert ranking.count_at(1.0) == 5
        assert ranking.count_at(0.5) < 5


def test_rankings_of_nothing_but_constants():
    nothing = np.zeros((3, 3))
    assert rank_by_pivots(nothing, np.ones(3)).count_at(0.9) == 0
    ranking = rank_by_outputs([Readout(nothing, np.eye(3))])
    assert ranking.count_at(0.9) == 0
    assert sorted(ranking.order) == [0, 1, 2]


# --- blocks of numbers are those that one at a time would be ------------------


@pytest.mark.parametrize(
    ("n", "readers", "outputs", "rank"),
    [(20, 1, 3, None), (150, 4, 8, None), (140, 2, 160, 30), (260, 1, 20, 60)],
)
def test_blocks_are_what_one_at_a_time_gives(n, readers, outputs, rank):
    readers = random_readers(n, readers, outputs, rank)
    ranking = rank_by_outputs(readers)
    assert sorted(ranking.order) == list(range(n))
    np.testing.assert_allclose(ranking.error, one_at_a_time(readers), atol=1e-8)
    counts = [1, n // 8, n // 3]
    np.testing.assert_allclose(
        errors_of(ranking.order, readers, counts),
        ranking.error[counts],
        atol=1e-8,
    )


def test_numbers_that_turn_out_better_end_a_block(monkeypatch):
    """Only those that predict a second group well once the first is known."""
    readers = random_readers(60, 2, 10)
    wanted = one_at_a_time(readers)
    taken = []

    def block(views, short, count):
        rows, gains = found(views, short, count)
        taken.append((count, len(rows)))
        return rows, gains

    found = rankings._block
    monkeypatch.setattr(rankings, "_block", block)
    monkeypatch.setattr(rankings, "BLOCK", 8)
    monkeypatch.setattr(rankings, "CANDIDATES", 9)
    np.testing.assert_allclose(
        rank_by_outputs(readers).error, wanted, atol=1e-10
    )
    assert any(rows < count for count, rows in taken)
    assert any(rows > 1 for _, rows in taken)


@pytest.fixture(scope="module")
def digits():
    """What two layers read of the 200 hidden units of a trained network."""
    images, labels = load_digits(return_X_y=True)
    network = MLPClassifier((200, 30), max_iter=3, random_state=0)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        network.fit(images / 16, labels)
    first, second, _ = network.coefs_
    x = np.maximum(images / 16 @ first + network.intercepts_[0], 0)
    return [
        Readout(covariance_of(x), second),
        Readout(x.T @ x / len(x), second[:, :7] ** 2),
    ]


def test_blocks_on_activations_of_a_trained_network(digits):
    ranking = rank_by_outputs(digits)
    wanted = one_at_a_time(digits)
    np.testing.assert_allclose(ranking.error, wanted, rtol=0.01, atol=1e-6)
    counts = [5, 20, 60]
    np.testing.assert_allclose(
        errors_of(ranking.order, digits, counts), wanted[counts], rtol=0.01
    )


def test_pivots_on_activations_of_a_trained_network(digits):
    """Of the number that is left most of, one after the other."""
    covariance = digits[0].covariance
    ranking = rank_by_pivots(covariance, np.ones(200))
    left, wanted = covariance.copy(), [1.0]
    for _ in range(150):
        best = np.diag(left).argmax()
        left -= np.outer(left[:, best], left[best]) / left[best, best]
        wanted.append(np.trace(left) / np.trace(covariance))
    np.testing.assert_allclose(ranking.error[:151], wanted, rtol=1e-6)


@pytest.mark.parametrize("widths", [(3, 4), (8, 9), (30,), (9, 1, 40)])
def test_a_factor_reads_what_all_parts_read(widths):
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(10, width)).astype("float32") for width in widths]
    factor = reading_factor(iter(parts))
    assert factor.shape[0] == 10
    assert factor.shape[1] <= 10
    wanted = sum(part.astype(float) @ part.T for part in parts)
    np.testing.assert_allclose(factor @ factor.T, wanted, rtol=1e-6)


def test_a_factor_of_parts_of_low_rank():
    rng = np.random.default_rng(0)
    part = rng.normal(size=(10, 2)) @ rng.normal(size=(2, 30))
    factor = reading_factor([part])
    assert factor.shape == (10, 2)
    np.testing.assert_allclose(factor @ factor.T, part @ part.T, rtol=1e-6)
