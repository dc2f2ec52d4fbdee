"""Many small ridge regressions at once are those done one by one."""

import numpy as np
import pytest

from keras_redundancy.numbers import grouped_regression, regression
from keras_redundancy.numbers.grouped_regression import grouped_ridge


def second_moments(x):
    return np.einsum("grn,grm->gnm", x, x) / x.shape[1]


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
    moments = [
        second_moments(part) for part in (rows, rows[:, :80], rows[:, 80:])
    ]
    found = grouped_ridge(*moments, starts)
    for group, start in enumerate(starts):
        alone = regression.ridge_from_moments(
            *(each[group] for each in moments),
            np.arange(9),
            np.arange(9, 11),
            start,
        )
        np.testing.assert_allclose(found[group], alone, rtol=1e-6)
    np.testing.assert_array_equal(found[0], starts[0])


def test_nothing_to_fit_to():
    starts = np.ones((2, 3, 1))
    moments = np.zeros((2, 4, 4))
    found = grouped_ridge(moments, moments, moments, starts)
    np.testing.assert_array_equal(found, starts)
