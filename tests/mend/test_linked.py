"""Kernels are fitted with what becomes of their outputs in mind."""

import numpy as np
import pytest
from keras import ops
from scipy import optimize

from keras_redundancy.mend import linked
from keras_redundancy.mend.linked import LOSSES, fit_to_link
from tests import models

LINKS = list(LOSSES)


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, "float32"))


def rows(count, numbers, seed=0):
    return np.random.default_rng(seed).normal(size=(count, numbers))


def fitted(x, wanted, matrix, shift, link, has_shift=True):
    numbers = np.arange(len(x))
    is_held_out = numbers % 5 == 4
    sides = [numbers[~is_held_out], numbers[is_held_out]]
    return fit_to_link(
        tensor(x), tensor(wanted), sides, matrix, shift, link, has_shift
    )


def value(link, outputs, wanted):
    return float(LOSSES[link][0](tensor(outputs), tensor(wanted))[0])


@pytest.mark.parametrize("link", LINKS)
def test_slopes_are_those_of_the_loss(link):
    outputs, wanted = rows(4, 3), rows(4, 3, seed=1)

    def total(flat):
        return len(outputs) * value(link, flat.reshape(outputs.shape), wanted)

    expected = optimize.approx_fprime(outputs.reshape(-1), total, 1e-2)
    _, slope = LOSSES[link][0](tensor(outputs), tensor(wanted))
    np.testing.assert_allclose(
        models.numpy(slope).reshape(-1), expected, atol=0.02
    )


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("has_shift", [True, False])
def test_what_was_disturbed_comes_back(link, has_shift):
    matrix, shift = rows(8, 3, seed=1), rows(1, 3, seed=2)[0] * has_shift
    x, new_x = rows(2000, 8), rows(500, 8, seed=4)
    start = matrix + 0.3 * rows(8, 3, seed=3), shift + 0.3 * has_shift
    found = fitted(x, x @ matrix + shift, *start, link, has_shift)
    wanted = new_x @ matrix + shift
    before, after = (
        value(link, new_x @ a + b, wanted) - value(link, wanted, wanted)
        for a, b in (start, found)
    )
    assert after < 0.1 * before
    assert has_shift or not found[1].any()


def test_what_a_relu_cuts_off_is_free():
    """Least squares cannot have these: they are no linear function."""
    x = rows(2000, 6)
    wanted = x @ rows(6, 4, seed=1)
    wanted = np.where(wanted > 0, wanted, wanted**3)
    least = np.linalg.lstsq(x, wanted, rcond=None)[0]
    matrix, shift = fitted(x, wanted, least, np.zeros(4), "relu")
    before, after = (
        np.square((x @ a + b).clip(0) - wanted.clip(0)).mean()
        for a, b in ((least, 0), (matrix, shift))
    )
    assert after < 0.1 * before


@pytest.mark.parametrize("link", LINKS)
def test_what_is_no_better_on_rows_held_out_is_not_taken(link):
    x, matrix = rows(40, 12), rows(12, 3, seed=1)
    noise = 3 * rows(40, 3, seed=2)
    # The rows that are held out have none of it.
    noise[4::5] = 0
    found, shift = fitted(x, x @ matrix + noise, matrix, np.zeros(3), link)
    np.testing.assert_array_equal(found, matrix)
    assert not shift.any()


def test_inputs_that_are_all_alike():
    """Rounding leaves their second moments an eigenvalue below zero."""
    x = 10 * rows(60, 1) * np.ones(800) + 1e-4 * rows(60, 800)
    wanted = rows(60, 3, seed=1)
    start = np.zeros((800, 3)), np.zeros(3)
    matrix, shift = fitted(x, wanted, *start, "relu")
    assert np.isfinite(matrix).all()
    before, after = (
        value("relu", x @ matrix + shift, wanted)
        for matrix, shift in (start, (matrix, shift))
    )
    assert after <= before


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("has_shift", [True, False])
def test_fewer_rows_than_numbers(link, has_shift, monkeypatch):
    """Their directions are all that the steps need to know."""
    x, matrix, shift = rows(80, 200), rows(200, 3, seed=1), rows(1, 3)[0]
    start = matrix + 0.3 * rows(200, 3, seed=3), np.zeros(3)
    given = x, x @ matrix + shift, *start, link, has_shift
    found = fitted(*given)
    assert np.abs(found[0] - start[0]).max() > 0.01
    monkeypatch.setattr(linked, "_basis", lambda x: None)
    for a, b in zip(found, fitted(*given), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_numbers_of_which_no_matrix_could_be_held():
    """Of 25,088 numbers, as in VGG16, their products would take 5 GB."""
    x, matrix = rows(60, 25_088), rows(25_088, 2, seed=1)
    start = matrix + rows(25_088, 2, seed=2), np.zeros(2)
    found = fitted(x, x @ matrix, *start, "relu")
    assert np.abs(found[0] - start[0]).max() > 0.01
