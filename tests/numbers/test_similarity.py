"""Cosine similarity of filters."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from keras_redundancy.numbers import similarity
from keras_redundancy.numbers.similarity import (
    assign_to_nearest,
    cosine_similarity,
    similarity_blocks,
    sketches,
    unit_filters,
)


def kernel_matrix(z, n, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((z, n)).astype(dtype)


def direct_cosine(W):
    W = np.asarray(W, np.longdouble)
    norms = np.sqrt((W**2).sum(axis=0))
    return (W.T @ W / np.outer(norms, norms)).astype(np.float64)


@pytest.mark.parametrize(
    ("dtype", "result", "error"),
    [
        (np.float16, np.float32, 2e-6),
        (np.float32, np.float32, 2e-6),
        (np.float64, np.float64, 1e-14),
        (np.longdouble, np.float64, 1e-14),
    ],
)
def test_equals_definition_in_the_dtype_of_the_kernel(dtype, result, error):
    W = kernel_matrix(40, 30, dtype)
    found = cosine_similarity(W)
    assert found.dtype == result
    np.testing.assert_allclose(found, direct_cosine(W), atol=error)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found.diagonal(), 1)
    assert np.abs(found).max() <= 1


def test_integers_and_bfloat16_become_float32():
    import ml_dtypes

    W = np.array([[3, 0, 6], [4, 5, 8]])
    expected = [[1, 0.8, 1], [0.8, 1, 0.8], [1, 0.8, 1]]
    for matrix in (W, W.tolist(), W.astype(ml_dtypes.bfloat16)):
        found = cosine_similarity(matrix)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filters_of_extreme_size_are_compared_like_others(dtype):
    W = kernel_matrix(20, 12, dtype)
    powers = [-44, -30, -25, -10, 0, 10, 25, 30, 37, 0, 0, 0]
    if dtype == np.float64:
        powers = [7 * power for power in powers]
    exponents = np.round(np.array(powers) * np.log2(10)).astype(int)
    scaled = np.ldexp(W, exponents)
    is_normal = np.abs(scaled).max(axis=0) > np.finfo(dtype).tiny * 1e4
    assert 10 <= is_normal.sum() < 12
    found = cosine_similarity(scaled)
    assert np.isfinite(found).all()
    expected = cosine_similarity(W)
    np.testing.assert_allclose(
        found[np.ix_(is_normal, is_normal)],
        expected[np.ix_(is_normal, is_normal)],
        atol=1e-5 if dtype == np.float32 else 1e-12,
    )
    units, is_zero = unit_filters(scaled)
    assert not is_zero.any()
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, rtol=1e-5)


def test_zero_filters_resemble_each_other_only():
    W = kernel_matrix(5, 6, np.float32)
    W[:, [1, 4]] = 0
    found = cosine_similarity(W)
    np.testing.assert_array_equal(found[1], [0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(found[4], found[1])
    assert abs(found[0, 2]) > 0
    np.testing.assert_array_equal(cosine_similarity(np.zeros((3, 2))), 1)


def test_kernel_is_not_modified():
    W = kernel_matrix(6, 5, np.float32)
    W[:, 2] *= 1e-25
    before = W.copy()
    cosine_similarity(W)
    assign_to_nearest(W, [0, 1])
    np.testing.assert_array_equal(W, before)


@pytest.mark.parametrize("layout", ["F", "strided", "reversed"])
def test_memory_layout_does_not_matter(layout):
    W = kernel_matrix(12, 10)
    views = {
        "F": np.asfortranarray(W),
        "strided": np.repeat(W, 2, axis=1)[:, ::2],
        "reversed": W[::-1].copy()[::-1],
    }
    np.testing.assert_allclose(
        cosine_similarity(views[layout]), cosine_similarity(W), atol=1e-14
    )


@pytest.mark.parametrize("block", [1, 7, 40, 10**6])
def test_blocks_cover_the_upper_triangle(monkeypatch, block):
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", block)
    units, _ = unit_filters(kernel_matrix(4, 13))
    found = np.full((13, 13), np.nan)
    for start, part in similarity_blocks(units):
        assert part.size <= max(block, 13)
        found[start : start + len(part), start:] = part
    upper = np.triu_indices(13)
    np.testing.assert_allclose(
        found[upper], (units @ units.T)[upper], atol=1e-14
    )


@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_units_go_to_the_most_similar_kept_unit(monkeypatch, block):
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", block)
    W = kernel_matrix(6, 40)
    kept = np.array([30, 2, 17, 5])
    nearest = assign_to_nearest(W, kept)
    assert nearest.dtype.kind == "i"
    np.testing.assert_array_equal(nearest[kept], np.arange(4))
    expected = cosine_similarity(W)[:, kept].argmax(axis=1)
    np.testing.assert_array_equal(nearest, expected)


def test_kept_duplicates_and_zeros_are_assigned_by_definition():
    W = np.array([[1.0, 1, 0, 0, -1], [0, 0, 0, 0, 0.1]])
    # Unit 1 is kept, though unit 0 has the same filter.
    np.testing.assert_array_equal(assign_to_nearest(W, [0, 1])[:2], [0, 1])
    # Zero goes to zero, and so does what points away from all others.
    np.testing.assert_array_equal(assign_to_nearest(W, [0, 2]), [0, 0, 1, 1, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("function", [cosine_similarity, unit_filters])
def test_broken_filters_are_named(value, function):
    W = kernel_matrix(3, 12, np.float32)
    W[1, [4, 9]] = value
    with pytest.raises(ValueError, match=r"units 4, 9 hold NaN or infinity"):
        function(W)
    W[2, :] = value
    with pytest.raises(ValueError, match=r"0, 1, 2, 3, 4, \.\.\. hold"):
        function(W)


@pytest.mark.parametrize(
    ("W", "error", "words"),
    [
        (np.ones(3), ValueError, "shape"),
        (np.ones((2, 3, 4)), ValueError, "reshape"),
        (np.ones((0, 3)), ValueError, "nothing to compare"),
        (np.ones((3, 0)), ValueError, "nothing to compare"),
        (np.ones((3, 3), complex), TypeError, "complex128"),
        ([["a"]], TypeError, "floats or integers"),
        (np.ones((2, 2), bool), TypeError, "bool"),
        (None, TypeError, "object"),
    ],
)
def test_what_is_no_kernel_matrix_is_refused(W, error, words):
    with pytest.raises(error, match=words):
        cosine_similarity(W)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_summary_is_that_of_all_pairs(seed, n):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(rng.integers(1, 9), n))
    W[:, rng.random(n) < 0.2] = 0
    pairs = similarity.cosine_similarity(W)[np.triu_indices(n, 1)]
    zero = ~W.any(axis=0)
    both_zero = np.logical_and.outer(zero, zero)[np.triu_indices(n, 1)]
    pairs[both_zero] = 0
    mean, largest = similarity.similarity_summary(W)
    assert mean == pytest.approx(pairs.mean(), abs=1e-12)
    assert largest == pytest.approx(pairs.max(), abs=1e-12)


def test_summary_of_a_single_unit_is_empty():
    assert similarity.similarity_summary(np.ones((3, 1))) == (None, None)


@pytest.mark.parametrize("weights", [1, 7, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_sketches_bound_the_similarities(weights, dtype):
    W = kernel_matrix(40, 60, dtype) * np.geomspace(1e-3, 1e3, 60, dtype=dtype)
    W[1:, :10] *= 1e-4  # nearly all of a filter in its first weight
    W[:, 10:20] = W[:, 20:30] + 0.1 * W[:, 10:20]
    W[0, 30:35] = 0
    short = sketches(W, weights)
    assert short.shape == (60, weights + 1)
    bounds = short @ short.T
    assert (bounds >= direct_cosine(W) - 1e-6).all()
    if weights == 40:
        np.testing.assert_allclose(bounds, direct_cosine(W), atol=2e-4)


def test_there_are_no_sketches_of_filters_without_a_length():
    for broken in (0, np.nan, np.inf, 1e-30, 1e30):
        W = kernel_matrix(40, 5, np.float32)
        W[:, 3] = broken
        assert sketches(W, 10) is None
