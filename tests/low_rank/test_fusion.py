"""Parallel columns of a matrix are found, and two become one."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from keras_redundancy.low_rank.fusion import Fusion, parallel_columns
from tests.low_rank_models import joined, turned


def fusion_of(matrix, kept, gone):
    return Fusion.of(kept, gone, matrix[:, kept], matrix[:, gone])


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    ratio=st.floats(0.01, 100) | st.floats(-100, -0.01),
    axis=st.sampled_from([0, 1]),
)
def test_shares_of_the_joined_column_are_the_two_columns(seed, ratio, axis):
    matrix = np.random.default_rng(seed).normal(size=(4, 4))
    columns = np.moveaxis(matrix, axis, -1)
    columns[:, 2] = ratio * columns[:, 0]
    before = columns[:, [2, 0]].copy()
    fusion = fusion_of(columns, kept=0, gone=2)
    found = np.moveaxis(joined(fusion, matrix, axis), axis, -1)
    np.testing.assert_allclose(fusion.ratio, ratio)
    np.testing.assert_allclose(
        np.outer(found[:, 0], fusion.shares), before, rtol=1e-9
    )
    np.testing.assert_array_equal(found[:, 2], 0)
    np.testing.assert_array_equal(found[:, [1, 3]], columns[:, [1, 3]])


def test_what_is_joined_is_nearest_to_both():
    """Of all multiples, with these shares: the least squares solution."""
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    matrix = np.column_stack([a, b])
    fusion = fusion_of(matrix, kept=1, gone=0)
    shares = np.array(fusion.shares)
    expected = np.linalg.lstsq(shares[:, None], matrix.T, rcond=None)[0]
    np.testing.assert_allclose(joined(fusion, matrix, 1)[:, 1], expected[0])


def test_zeros_are_fused_into_others_but_not_kept():
    matrix = np.array([[0.0, 1.0], [0.0, 2.0]])
    fusion = fusion_of(matrix, kept=1, gone=0)
    assert fusion.shares == (0, 1)
    with pytest.raises(ValueError, match="is 0"):
        fusion_of(matrix, kept=0, gone=1)
    with pytest.raises(ValueError, match="the same"):
        fusion_of(matrix, kept=1, gone=1)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    numbers=st.sampled_from([5, 33, 200]),
    tau=st.sampled_from([1e-2, 1e-4, 1e-6]),
    sign=st.sampled_from([-1, 1]),
)
def test_pairs_below_the_angle_are_found_and_no_others(
    seed, numbers, tau, sign
):
    rng = np.random.default_rng(seed)
    matrix = np.linalg.qr(rng.normal(size=(numbers, 5)))[0]
    near, far = turned(matrix[:, 0], 0.9 * tau, rng), rng.normal(size=numbers)
    far = turned(matrix[:, 1], 1.2 * tau, rng)
    matrix = np.column_stack([matrix, sign * near, far])
    found = parallel_columns(matrix, np.arange(7), tau, np.inf)
    assert [{fusion.kept, fusion.gone} for fusion in found] == [{0, 5}]
    assert np.sign(found[0].ratio) == sign


def test_one_vector_may_take_several():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    matrix = np.column_stack([a, 3 * a, b, -a, np.zeros(50), 2 * b])
    used = np.arange(6)
    fusions = parallel_columns(matrix, used, 1e-6, np.inf)
    left = matrix
    for fusion in fusions:
        left = joined(fusion, left, 1)
    assert len(fusions) == 4
    assert np.count_nonzero(np.linalg.norm(left, axis=0)) == 2
    assert not parallel_columns(matrix, np.array([0, 2]), 1e-6, np.inf)


def test_the_distance_counts_in_units_of_the_usual_size():
    rng = np.random.default_rng(0)
    matrix = np.linalg.qr(rng.normal(size=(40, 4)))[0]
    near = turned(matrix[:, 0], 1e-3, rng)
    distance = np.sqrt(2e-3)
    for size, scale in ((1, 1), (1, 100), (5, 1)):
        vectors = scale * np.column_stack([matrix, size * near])
        vectors[:, 0] *= size
        usual = np.sqrt(np.mean(np.sum(vectors**2, axis=0)))
        relative = size * scale * distance / usual
        for tau, count in ((1.01 * relative, 1), (0.99 * relative, 0)):
            found = parallel_columns(vectors, np.arange(5), 1e-2, tau)
            assert len(found) == count


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_what_has_no_direction_anywhere_is_left(value):
    matrix = np.full((40, 4), value)
    assert not parallel_columns(matrix, np.arange(4), 1e-4, 0.1)
