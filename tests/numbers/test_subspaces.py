"""`svcca`: correlations of what two layers make of the same samples."""

import keras
import numpy as np
import pytest

import keras_redundancy as kr


def activations(units, samples=300, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, units))


def test_linear_maps_say_the_same():
    A = activations(6)
    mixed = A @ activations(9, samples=6, seed=1) + 3
    found = kr.svcca(A, mixed, energy=1)
    np.testing.assert_allclose(found[:6], 1, atol=1e-7)
    assert len(found) == 6


def test_one_unit_each_is_their_correlation():
    A, B = activations(1), activations(1, seed=1)
    B = B + A
    expected = abs(np.corrcoef(A[:, 0], B[:, 0])[0, 1])
    np.testing.assert_allclose(kr.svcca(A, B), [expected])


def test_it_is_canonical_correlation():
    """As scikit-learn finds it, one pair after the other."""
    from sklearn.cross_decomposition import CCA

    A = activations(4)
    B = np.hstack([A[:, :2] + activations(2, seed=1), activations(1, seed=2)])
    cca = CCA(3, max_iter=10_000, tol=1e-12).fit(A, B)
    scores = zip(*(x.T for x in cca.transform(A, B)), strict=True)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in scores]
    np.testing.assert_allclose(kr.svcca(A, B, 1), expected, atol=1e-4)


def test_directions_of_little_variance_do_not_count():
    A = activations(5) * [1, 1, 1, 1e-3, 1e-3]
    assert len(kr.svcca(A, activations(5, seed=1))) == 3
    assert len(kr.svcca(A, activations(5, seed=1), energy=1)) == 5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision(dtype):
    """As models with such a policy predict."""
    A, B = (activations(3, seed=seed) for seed in (0, 1))
    low = keras.ops.convert_to_numpy(keras.ops.cast(A, dtype))
    assert low.dtype.name == dtype
    np.testing.assert_allclose(kr.svcca(low, B), kr.svcca(A, B), atol=0.01)


def test_positions_are_samples():
    A, B = activations(4), activations(3, seed=1)
    np.testing.assert_array_equal(
        kr.svcca(A.reshape(12, 5, 5, 4), B.reshape(12, 5, 5, 3)),
        kr.svcca(A, B),
    )


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (activations(3, samples=7), ValueError, "A has 7 samples and B has 9"),
        (activations(9, samples=9), ValueError, "Pass more samples than units"),
        (np.ones((9, 2)), ValueError, "A is the same for all samples"),
        (np.full((9, 2), np.nan), ValueError, "A holds NaN or infinity"),
        (np.ones(9), ValueError, r"A has shape \(9,\)"),
        (np.full((9, 2), "x"), TypeError, "A has dtype"),
    ],
)
def test_bad_input(A, error, message):
    with pytest.raises(error, match=message):
        kr.svcca(A, activations(2, samples=9))
