"""Perceptrons are fitted to what another network computed."""

import itertools

import numpy as np
import pytest
from scipy import optimize

from keras_redundancy.numbers import perceptron
from keras_redundancy.numbers.perceptron import LOSSES, fit_perceptron

LINKS = list(LOSSES)


def perceptron_of(*sizes, bias=True, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (
            rng.normal(size=(inputs, units)) / np.sqrt(inputs),
            rng.normal(size=units) if bias else None,
        )
        for inputs, units in itertools.pairwise(sizes)
    ]


def outputs(layers, x):
    """Written once more, to compare with."""
    for number, (kernel, bias) in enumerate(layers):
        x = np.maximum(x, 0) if number else x
        x = x @ kernel + (0 if bias is None else bias)
    return x


def disturbed(layers, by, seed=1):
    rng = np.random.default_rng(seed)
    return [
        tuple(
            None if array is None else array + rng.normal(0, by, array.shape)
            for array in layer
        )
        for layer in layers
    ]


def rows(count, numbers, seed=2):
    return np.random.default_rng(seed).normal(size=(count, numbers))


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("sizes", [(5, 3), (5, 4, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_slopes_are_those_of_the_loss(link, sizes, bias):
    layers = perceptron_of(*sizes, bias=bias)
    x, wanted = rows(20, 5), rows(20, 3, seed=3)
    start, _ = perceptron._flat(layers)

    def value_and_slope(flat):
        changed, end = [], 0
        for layer in layers:
            arrays = []
            for old in layer:
                size = 0 if old is None else old.size
                new = flat[end : end + size]
                arrays.append(None if old is None else new.reshape(old.shape))
                end += size
            changed.append(tuple(arrays))
        return perceptron._value_and_slope(changed, x, wanted, LOSSES[link])

    expected = optimize.approx_fprime(
        start, lambda flat: value_and_slope(flat)[0], 1e-6
    )
    np.testing.assert_allclose(value_and_slope(start)[1], expected, atol=1e-4)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("sizes", [(8, 3), (8, 10, 3)])
def test_what_was_disturbed_comes_back(link, sizes):
    layers = perceptron_of(*sizes)
    x, new_x = rows(2000, 8), rows(500, 8, seed=4)
    start = disturbed(layers, 0.1)
    fitted = fit_perceptron(start, x, outputs(layers, x), link)

    def error(found):
        wanted, own = (outputs(each, new_x) for each in (layers, found))
        return LOSSES[link](own, wanted)[0] - LOSSES[link](wanted, wanted)[0]

    assert error(fitted) < 0.1 * error(start)


def test_what_a_relu_cuts_off_is_free():
    x = rows(500, 6)
    wanted = outputs(perceptron_of(6, 4), x)
    wanted = np.where(wanted > 0, wanted, wanted**3)
    start = perceptron_of(6, 4, seed=5)
    by_relu, by_squares = (
        fit_perceptron(start, x, wanted, link) for link in ("relu", "linear")
    )

    def error(found):
        return np.square(outputs(found, x).clip(0) - wanted.clip(0)).sum()

    assert error(by_relu) < 0.1 * error(by_squares)


def test_shapes_and_missing_biases_stay():
    layers = perceptron_of(4, 3, 2, bias=False)
    x = rows(100, 4)
    fitted = fit_perceptron(layers, x, rows(100, 2), "linear")
    assert [bias for _, bias in fitted] == [None, None]
    assert [kernel.shape for kernel, _ in fitted] == [(4, 3), (3, 2)]


@pytest.mark.parametrize("link", LINKS)
def test_what_is_right_stays(link):
    layers = perceptron_of(5, 4, 3)
    x = rows(100, 5)
    fitted = fit_perceptron(layers, x, outputs(layers, x), link)
    for own, old in zip(fitted, layers, strict=True):
        for a, b in zip(own, old, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_noise_is_not_learned():
    """There are fewer rows than weights, and nothing to be learned."""
    layers = perceptron_of(50, 20, 3)
    x, wanted = rows(64, 50), rows(64, 3, seed=6)
    fitted = fit_perceptron(layers, x, wanted, "linear")
    new_x, new_wanted = rows(2000, 50, seed=7), rows(2000, 3, seed=8)

    def error(found):
        return np.square(outputs(found, new_x) - new_wanted).mean()

    assert error(fitted) < error(layers)


@pytest.mark.parametrize("count", [1, 7])
def test_too_few_rows_change_nothing(count):
    layers = perceptron_of(5, 3)
    fitted = fit_perceptron(layers, rows(count, 5), rows(count, 3), "softmax")
    np.testing.assert_allclose(fitted[0][0], layers[0][0], rtol=1e-6)


def test_constant_outputs():
    layers = perceptron_of(5, 3)
    wanted = np.zeros((100, 3))
    ((kernel, bias),) = fit_perceptron(layers, rows(100, 5), wanted, "relu")
    assert np.isfinite(kernel).all()
    assert np.isfinite(bias).all()
