"""Kernels that are fitted anew: to which rows, and whether it is better."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration import observer
from keras_redundancy.calibration.moments import Divided
from keras_redundancy.mend import reconstruct
from keras_redundancy.mend.kernels import product_of
from keras_redundancy.numbers import regression
from tests import models
from tests.numbers.test_regression import equations_of


def error(model, small, data):
    (a,), (b,) = models.outputs(model, data), models.outputs(small, data)
    return np.square(a - b).mean() / a.var()


# --- which rows -------------------------------------------------------------


def image_net(size, depth=3, **settings):
    inputs = x = keras.Input((size, size, 3))
    for _ in range(depth):
        x = layers.Conv2D(12, 3, activation="relu", **settings)(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    return models.randomized(model)


def test_few_large_images_are_enough():
    """As many positions of each are looked at as the fit needs rows."""
    model = image_net(48, padding="same")
    new, data = (
        kr.pink_noise((48, 48, 3), samples=6, seed=seed) for seed in (1, 0)
    )
    options = {"target": {"flops": 0.5}, "data": data}
    once, fitted = (
        error(model, kr.prune(model, **options, **rounds), new)
        for rounds in ({"rounds": 0}, {})
    )
    assert fitted < 0.95 * once


@pytest.mark.parametrize("batch_size", [2, 6])
def test_two_images_do_no_harm(batch_size):
    """Too few to hold some out: then of each some positions are."""
    model = image_net(32)
    new, data = (
        kr.pink_noise((32, 32, 3), samples=2, seed=seed) for seed in (1, 0)
    )
    options = {"ratio": 0.4, "data": data, "batch_size": batch_size}
    once, fitted = (
        error(model, kr.prune(model, **options, **rounds), new)
        for rounds in ({"rounds": 0}, {})
    )
    assert fitted < once


@pytest.mark.parametrize(
    ("samples", "numbers", "most"), [(1000, 10, 16), (4, 100, 500), (0, 1, 20)]
)
def test_positions_follow_from_the_rows_that_are_needed(samples, numbers, most):
    assert observer.positions_for(numbers, samples, 16) == most


@pytest.mark.parametrize("kind", ["array", "list", "tf.data", "generator"])
def test_how_many_samples_there_are(kind):
    """An iterator tells no more than what was taken of it."""
    x = np.zeros((100, 4), "float32")
    batches = [[x[:16]], [x[16:32]]]
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow")
        data = tf.data.Dataset.from_tensor_slices(x).batch(16)
    else:
        data = {"array": x, "list": [x], "generator": iter(x)}[kind]
    count = observer.expected_samples(data, batches)
    assert count == (32 if kind == "generator" else 7 * 16)
    assert observer.expected_samples(data, batches[:1]) == 16


@pytest.mark.parametrize("count", [1, 4, 5, 9, 10, 23])
def test_every_fifth_sample_is_held_out(count):
    """Or every fifth position, where there are fewer samples."""
    x = np.arange(count * 12.0).reshape(count, 4, 3).astype("float32")
    parts = observer.divided_moments([keras.ops.convert_to_tensor(x)])
    moments = Divided.of_no_rows(3)
    moments.add(count, *([*map(models.numpy, part)] for part in parts))
    rows = x.reshape(-1, 3) if count < 5 else x
    is_held_out = np.arange(len(rows)) % 5 == 4
    for own, wanted in (
        (moments.fitted, rows[~is_held_out]),
        (moments.held_out, rows[is_held_out]),
        (moments.whole, rows),
    ):
        wanted = wanted.reshape(-1, 3)
        assert own.count == len(wanted)
        if len(wanted):
            np.testing.assert_allclose(own.mean, wanted.mean(axis=0))
    assert moments.whole.samples == count


@pytest.mark.parametrize("size", [1, 3])
def test_of_small_batches_every_fifth_is_held_out(size):
    x = np.arange(11 * size * 2.0).reshape(11, size, 1, 2).astype("float32")
    moments = Divided.of_no_rows(2)
    for part in x:
        parts = observer.divided_moments([keras.ops.convert_to_tensor(part)])
        moments.add(size, *([*map(models.numpy, each)] for each in parts))
    assert moments.whole.samples == 11 * size
    assert moments.held_out.count == 2 * size
    wanted = x[[4, 9]].reshape(-1, 2)
    np.testing.assert_allclose(moments.held_out.mean, wanted.mean(axis=0))


# --- open sizes -------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"strides": 2},
        {"padding": "same", "strides": 2},
        {"padding": "same", "dilation_rate": 2},
    ],
)
def test_open_sizes_are_fitted_like_fixed_ones(settings):
    fixed = image_net(13, depth=2, **settings)
    opened = image_net(None, depth=2, **settings)
    opened.set_weights(fixed.get_weights())
    data = models.random_inputs(fixed, batch=48)
    small = [
        kr.prune(model, ratio=0.4, data=data, batch_size=32)
        for model in (fixed, opened)
    ]
    once = kr.prune(fixed, ratio=0.4, data=data, rounds=0)
    errors = [error(fixed, each, data) for each in (*small, once)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)
    assert errors[1] < errors[2]


def test_batches_of_several_sizes():
    model = image_net(None, padding="same", strides=2)
    rng = np.random.default_rng(0)
    parts = [
        rng.normal(size=(8, size, size + 1, 3)).astype("float32")
        for size in (12, 15, 18)
    ]
    once, fitted = (
        kr.prune(model, ratio=0.4, data=iter(parts), **rounds)
        for rounds in ({"rounds": 0}, {})
    )
    errors = [
        sum(error(model, small, part) for part in parts)
        for small in (once, fitted)
    ]
    assert errors[1] < errors[0]


# --- no fit that is worse on rows held out ----------------------------------


def second_moments(x):
    return x.T @ x / len(x)


def checked(fitted, held_out, start):
    fitted, held_out = (
        equations_of(*np.split(rows, [len(start)], axis=1))
        for rows in (fitted, held_out)
    )
    return regression.ridge_from_moments(fitted, fitted, held_out, start)


def test_a_fit_is_as_good_on_rows_held_out_as_any_ridge():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 30))
    wanted = x @ rng.normal(size=(30, 4)) + rng.normal(size=(300, 4))
    rows = np.concatenate([x, wanted], axis=1)
    start = np.zeros((30, 4))
    fitted, held_out = rows[:60], rows[60:]
    found = checked(fitted, held_out, start)
    errors = {}
    for ridge in regression.RIDGES:
        known = second_moments(fitted)
        size = np.diag(known)[:30]
        size = size + regression.TYPICAL * size.mean()
        more = np.linalg.solve(
            known[:30, :30] + ridge * np.diag(size), known[:30, 30:]
        )
        left = held_out[:, 30:] - held_out[:, :30] @ more
        errors[ridge] = np.square(left).mean()
    left = held_out[:, 30:] - held_out[:, :30] @ found
    assert np.square(left).mean() == pytest.approx(min(errors.values()))


def test_a_fit_that_is_worse_on_rows_held_out_is_not_kept():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 20))
    start = rng.normal(size=(20, 3))
    wanted = x @ start + 1e-3 * rng.normal(size=(2000, 3))
    rows = np.concatenate([x, wanted], axis=1)
    # In the few rows of the fit there is what is not in the others.
    rows[:25, 20:] += rng.normal(size=(25, 3))
    found = checked(rows[:25], rows[25:], start)
    np.testing.assert_array_equal(found, start)


def fit_of(old, new):
    """The `KernelFit` of a layer to another one of the same shape."""
    kept = np.arange(old.kernel.shape[-1])
    return reconstruct.KernelFit(
        product_of(old), product_of(new), kept, "linear", False
    )


def test_rows_that_are_alike_are_held_out_together():
    """All positions of every fifth sample, whatever the batches."""
    layer = layers.Conv1D(2, 1)
    layer.build((None, 6, 3))
    pieces = []
    for first, size in ((0, 4), (4, 5)):
        x = np.arange(first, first + size)[:, None, None] * np.ones((6, 3))
        read = keras.ops.cast(x, "float32")
        pieces.append((first, size, layer(read), read))
    fit = fit_of(layer, layer)

    def rows_where(counting):
        most = reconstruct.NUMBERS
        rows = reconstruct._rows(fit, pieces, 9, 20, most, counting)
        return reconstruct.joined(rows)

    rows = rows_where(lambda first, positions: None)
    assert rows.read.shape == (54, 1, 3)
    assert rows.wanted.shape == (54, 1, 2)
    sample = models.numpy(rows.read)[:, 0, 0]
    np.testing.assert_array_equal(rows.is_held_out, sample == 4)
    wanted = models.numpy(layer(rows.read))
    np.testing.assert_allclose(models.numpy(rows.wanted), wanted, rtol=1e-6)


def test_positions_lie_in_all_columns_of_an_image():
    chosen = reconstruct.spread(32 * 32, 0, 16)
    assert len(np.unique(chosen // 32)) > 8
    assert len(np.unique(chosen % 32)) > 8
