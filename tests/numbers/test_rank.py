"""Measures of rank, against numpy.linalg.svd and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from keras_redundancy.numbers import rank
from keras_redundancy.numbers.rank import (
    effective_rank,
    energy_rank,
    singular_values,
    stable_rank,
    trace_complexity,
)

MEASURES = [
    effective_rank,
    stable_rank,
    energy_rank,
    lambda s: trace_complexity(s, (2, 3)),
]


@given(
    z=st.integers(1, 40),
    n=st.integers(1, 40),
    inner=st.integers(1, 40),
    dtype=st.sampled_from([np.float32, np.float64]),
    exponent=st.sampled_from([-100, 0, 100]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_singular_values_equal_those_of_svd(z, n, inner, dtype, exponent, seed):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((z, inner)) @ rng.standard_normal((inner, n))
    W = np.ldexp(W.astype(dtype), exponent)
    found = singular_values(W)
    expected = np.linalg.svd(W.astype(np.float64), compute_uv=False)
    assert found.shape == (min(z, n),)
    assert np.all(np.diff(found) <= 0)
    np.testing.assert_allclose(found, expected, atol=3e-7 * expected[0])


def test_long_side_is_read_in_blocks(monkeypatch):
    W = np.random.default_rng(0).standard_normal((50, 6))
    whole = singular_values(W)
    monkeypatch.setattr(rank, "_ROWS_PER_BLOCK", 7)
    np.testing.assert_allclose(singular_values(W), whole, rtol=1e-12)
    np.testing.assert_allclose(singular_values(W.T), whole, rtol=1e-12)


def test_lost_rank_is_returned_as_zeros():
    W = np.ones((30, 8), np.float32)
    W[:, 4:] *= np.arange(30)[:, None]
    found = singular_values(W)
    assert np.all(found[:2] > 1)
    np.testing.assert_array_equal(found[2:], 0)


def test_measures_of_equal_singular_values():
    s = np.full(8, 3.0)
    assert effective_rank(s) == pytest.approx(8)
    assert stable_rank(s) == pytest.approx(8)
    assert trace_complexity(s, (8, 32)) == pytest.approx(24 / 16)
    assert [energy_rank(s, e) for e in (0.125, 0.126, 0.5, 1)] == [1, 2, 4, 8]


def test_measures_by_hand():
    s = [1.0, 3.0]
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert effective_rank(s) == pytest.approx(np.exp(entropy))
    assert stable_rank(s) == pytest.approx(10 / 9)
    assert [energy_rank(s, e) for e in (0.9, 0.91)] == [1, 2]
    assert effective_rank([5, 0, 0]) == 1


def test_energy_rank_allows_for_rounding():
    assert energy_rank(np.full(100, 0.1), 0.99) == 99
    assert energy_rank(np.full(100, 0.1), 0.991) == 100
    assert energy_rank([1, 1], 1e-300) == 1


@pytest.mark.parametrize("measure", MEASURES)
def test_zero_matrix_has_rank_zero(measure):
    s = singular_values(np.zeros((3, 4), np.float32))
    np.testing.assert_array_equal(s, np.zeros(3))
    assert measure(s) == 0


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e300])
def test_extreme_values_neither_overflow_nor_vanish(scale):
    s = np.array([2.0, 1.0, 1.0]) * scale
    assert stable_rank(s) == pytest.approx(1.5)
    assert effective_rank(s) == pytest.approx(2**1.5)
    assert energy_rank(s, 0.8) == 2
    W = np.diag([2.0, 1.0]) * scale
    np.testing.assert_allclose(singular_values(W), [2 * scale, scale])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_matrices_are_refused(value):
    W = np.ones((3, 2))
    W[2, 1] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        singular_values(W)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("s", "error", "words"),
    [
        ([], ValueError, "at least one"),
        (np.eye(2), ValueError, "shape"),
        ([1.0, -1.0], ValueError, "negative"),
        ([1.0, np.nan], ValueError, "NaN"),
        (["a"], TypeError, "real numbers"),
    ],
)
def test_what_are_no_singular_values_is_refused(measure, s, error, words):
    with pytest.raises(error, match=words):
        measure(s)


@pytest.mark.parametrize("energy", [0, -1, 1.01, np.nan])
def test_energy_out_of_range_is_refused(energy):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        energy_rank([1.0], energy)


@pytest.mark.parametrize("energy", [True, "0.9", None])
def test_energy_that_is_no_number_is_refused(energy):
    with pytest.raises(TypeError, match=r"\(0, 1\]"):
        energy_rank([1.0], energy)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3), (0, 3)])
def test_shape_that_is_no_matrix_is_refused(shape):
    with pytest.raises(ValueError, match="two sides"):
        trace_complexity([1.0], shape)
