"""Many small ridge regressions at once are those done one by one."""

import numpy as np
import pytest

from keras_redundancy.numbers import grouped_regression, regression
from keras_redundancy.numbers.grouped_regression import grouped_ridge
from keras_redundancy.numbers.regression import Equations


def equations(rows):
    """Those of rows of nine inputs and then outputs, in groups."""
    products = np.einsum("grn,grm->gnm", rows, rows) / rows.shape[1]
    known, shared = products[:, :9, :9], products[:, :9, 9:]
    size = np.diagonal(products, axis1=1, axis2=2)[:, 9:]
    return Equations(known, shared, size)


def of_group(many, group):
    return Equations(many.known[group], many.shared[group], many.size[group])


@pytest.mark.parametrize("ridge", [1e-4, 0.1])
@pytest.mark.parametrize("noise", [0.05, 3.0])
def test_each_group_by_itself(noise, ridge, monkeypatch):
    for module in (regression, grouped_regression):
        monkeypatch.setattr(module, "RIDGES", np.array([ridge, ridge]))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 100, 9))
    starts = rng.normal(size=(7, 9, 2))
    change = np.array([0, 0, 0.1, 0.5, 1, 2, 5])[:, None, None]
    wanted = x @ (starts + change * rng.normal(size=starts.shape))
    wanted[1:] += noise * rng.normal(size=(6, 100, 2))
    rows = np.concatenate([x, wanted], axis=2)
    moments = [equations(x) for x in (rows, rows[:, :80], rows[:, 80:])]
    found = grouped_ridge(*moments, starts)
    for group, start in enumerate(starts):
        alone = regression.ridge_from_moments(
            *(of_group(each, group) for each in moments), start
        )
        np.testing.assert_allclose(found[group], alone, rtol=1e-6)
    np.testing.assert_array_equal(found[0], starts[0])


def test_nothing_to_fit_to():
    starts = np.ones((2, 3, 1))
    moments = Equations(
        np.zeros((2, 3, 3)), np.zeros((2, 3, 1)), np.zeros((2, 1))
    )
    found = grouped_ridge(moments, moments, moments, starts)
    np.testing.assert_array_equal(found, starts)


def test_an_input_that_hardly_varies_keeps_its_weights():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 100, 9))
    x[1, :, 4] *= 1e-3
    starts = rng.normal(size=(2, 9, 2))
    wanted = x @ (starts + 0.5) + rng.normal(size=(2, 100, 2))
    rows = np.concatenate([x, wanted], axis=2)
    moments = [equations(x) for x in (rows, rows[:, :80], rows[:, 80:])]
    is_kept = np.all(grouped_ridge(*moments, starts) == starts, axis=2)
    assert list(zip(*np.nonzero(is_kept), strict=True)) == [(1, 4)]


def test_an_input_that_hardly_varies_may_count_all_the_same():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 100, 9))
    x[:, :, 4] *= 1e-3
    starts = rng.normal(size=(2, 9, 2))
    starts[:, 4] *= 1000
    rows = np.concatenate([x, x @ starts], axis=2)
    moments = [equations(x) for x in (rows, rows[:, :80], rows[:, 80:])]
    np.testing.assert_array_equal(grouped_ridge(*moments, starts), starts)
