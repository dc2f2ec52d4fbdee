"""Calibration observes what kernels read."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_redundancy.calibration import observer
from tests import models
from tests.calibration.observed import (
    assert_moments,
    between,
    statistics_of,
    views_by_layer,
)


def test_convolutions_and_nested_models():
    inner_in = keras.Input((8, 8, 6))
    x = layers.Conv2D(7, 3, activation="relu", name="in0")(inner_in)
    inner = keras.Model(inner_in, layers.Conv2D(5, 3, name="in1")(x))
    inputs = keras.Input((8, 8, 3))
    stem = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    relu = layers.ReLU()(layers.BatchNormalization()(stem))
    top = layers.Conv2D(2, 3, name="top")(inner(relu))
    model = models.randomized(keras.Model(inputs, top))
    data = models.random_inputs(model, batch=80)
    views = views_by_layer(*statistics_of(model, data))
    rows = between(model, relu, data)
    (view,) = views["in0"]
    assert_moments(view.moments, rows.reshape(-1, 6))
    (view,) = views["in1"]
    first = keras.Model(inner_in, x).predict(rows, verbose=0)
    assert_moments(view.moments, first.reshape(-1, 7))
    assert view.moments.samples == 80


def test_flattened_positions_are_rows():
    """A unit of the convolution is one number, at nine positions."""
    inputs = keras.Input((3, 3, 2))
    x = layers.Conv2D(5, 1, name="wide")(inputs)
    y = layers.Conv2D(4, 1, name="narrow")(inputs)
    both = layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(y)])
    model = models.randomized(
        keras.Model(inputs, layers.Dense(2, name="top")(both))
    )
    data = models.random_inputs(model, batch=50)
    (view,) = views_by_layer(*statistics_of(model, data))["top"]
    assert view.positions.shape == (9, 9)
    rows = np.concatenate(
        [
            between(model, tensor, data).reshape(-1, n)
            for tensor, n in ((y, 4), (x, 5))
        ],
        axis=1,
    )
    assert_moments(view.moments, rows)


def test_one_joint_view_of_what_a_kernel_reads_side_by_side():
    model = models.randomized(models.dense_block())
    data = models.random_inputs(model, batch=64)
    graph, statistics = statistics_of(model, data)
    sizes = [
        len(view.positions)
        for views in statistics.views.values()
        for view in views
    ]
    assert sorted(sizes) == [6, 11, 16, 21]
    # All but the last space are read by several kernels.
    counts = [len(statistics.of_space(space)) for space in graph.prunable]
    assert counts == [4, 3, 2, 1]


def test_both_calls_of_a_shared_layer_count():
    model = models.randomized(models.shared())
    data = [
        np.random.default_rng(n).normal(n, 1, (60, 10)).astype("float32")
        for n in (0, 1)
    ]
    (view,) = views_by_layer(*statistics_of(model, data))["second"]
    tower = model.get_layer("tower")
    assert_moments(
        view.moments, np.concatenate([models.numpy(tower(x)) for x in data])
    )


def test_groups_read_the_same_units():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 1, activation="relu", name="first")(inputs)
    y = layers.Conv2D(6, 3, groups=2, name="grouped")(x)
    model = models.randomized(keras.Model(inputs, layers.Conv2D(2, 1)(y)))
    data = models.random_inputs(model, batch=40)
    (view,) = views_by_layer(*statistics_of(model, data))["grouped"]
    rows = between(model, x, data).reshape(-1, 2, 4)
    assert view.positions.shape == (4, 1)
    assert_moments(view.moments, rows.swapaxes(0, 1).reshape(-1, 4))


def test_layers_inside_a_wrapper_read_the_tensor_around_it():
    inputs = keras.Input((5, 3))
    x = layers.Dense(6, activation="relu")(inputs)
    y = layers.TimeDistributed(layers.Dense(4, name="each"))(x)
    model = models.randomized(keras.Model(inputs, y))
    data = models.random_inputs(model, batch=40)
    (view,) = views_by_layer(*statistics_of(model, data))["each"]
    assert_moments(view.moments, between(model, x, data).reshape(-1, 6))


def test_channels_first():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow convolves channels_first on a GPU alone")
    inputs = keras.Input((2, 6, 6))
    x = layers.Conv2D(5, 3, data_format="channels_first")(inputs)
    y = layers.Conv2D(3, 3, data_format="channels_first", name="top")(x)
    model = models.randomized(keras.Model(inputs, y))
    data = models.random_inputs(model, batch=20)
    (view,) = views_by_layer(*statistics_of(model, data))["top"]
    rows = np.moveaxis(between(model, x, data), 1, -1)
    assert_moments(view.moments, rows.reshape(-1, 5))


# --- sampling ---------------------------------------------------------------


def test_many_positions_are_sampled_over_all_of_the_image():
    """The number at a position says which one it is."""
    inputs = keras.Input((20, 30, 1))
    x = layers.Conv2D(2, 1, name="stem")(inputs)
    model = keras.Model(inputs, layers.Conv2D(1, 1, name="top")(x))
    model.get_layer("stem").kernel.assign(np.ones((1, 1, 1, 2)))
    place = np.arange(600.0).reshape(1, 20, 30, 1).astype("float32")
    data = np.repeat(place, 512, axis=0)
    (view,) = views_by_layer(*statistics_of(model, data))["top"]
    assert view.moments.count == 512 * observer.POSITIONS
    uniform = (600**2 - 1) / 12
    assert view.moments.mean[0] == pytest.approx(299.5, rel=0.01)
    assert view.moments.covariance[0, 0] == pytest.approx(uniform, rel=0.02)


def test_open_sizes():
    inputs = keras.Input((None, None, 2))
    x = layers.Conv2D(4, 1, name="stem")(inputs)
    model = models.randomized(
        keras.Model(inputs, layers.Conv2D(1, 3, name="top")(x))
    )
    data = np.random.default_rng(0).normal(size=(64, 12, 12, 2))
    (view,) = views_by_layer(*statistics_of(model, data))["top"]
    rows = between(model, x, data).reshape(-1, 4)
    assert view.moments.count == 64 * observer.POSITIONS
    covariance = np.cov(rows, rowvar=False, bias=True)
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(
        view.moments.covariance, covariance, atol=0.1 * scale
    )


def test_layers_too_wide_for_statistics():
    """Their matrices would take more memory than there is."""
    window = observer.Window(None, np.zeros((65_536, 1), int))
    with pytest.raises(ValueError, match=r"65,536 units.* take 34 GB.*skip="):
        observer.observe(None, {"wide": [window]}, None, 1)
