"""Mean and covariance of rows that come in batches."""

import keras
import numpy as np
from keras import layers

from keras_redundancy.calibration import Moments, moments, observer
from keras_redundancy.calibration.moments import in_blocks
from tests.calibration.observed import (
    assert_moments,
    between,
    statistics_of,
    views_by_layer,
)


def test_batches_add_up_to_the_whole():
    x = np.random.default_rng(0).normal(3, 2, size=(100, 4))
    sums = Moments.of_no_rows(4)
    for part in np.split(x, [10, 11, 60]):
        rest = part - part.mean(axis=0)
        found = in_blocks(rest.T @ rest)
        sums.add(len(part), len(part), part.mean(axis=0), found)
    assert_moments(sums, x, tolerance=1e-12)
    assert sums.samples == 100


def test_a_large_mean_does_not_drown_a_small_variance():
    """E[x^2] - E[x]^2 in float32 would be all noise here."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(3, name="dense"),
            layers.Dense(2, name="top"),
        ]
    )
    model.layers[0].kernel.assign(np.eye(3))
    model.layers[0].bias.assign([1e4, 1e4, 1e4])
    data = np.random.default_rng(0).normal(size=(500, 3)).astype("float32")
    graph, statistics = statistics_of(model, data)
    (view,) = views_by_layer(graph, statistics)["top"]
    covariance = np.cov(data, rowvar=False, bias=True)
    np.testing.assert_allclose(view.moments.covariance, covariance, atol=0.01)


def test_half_of_each_matrix_is_held_in_the_precision_of_the_rows(monkeypatch):
    """Also where batches are compiled, and where each layer adds its own."""
    monkeypatch.setattr(moments, "BLOCK", 3)
    hidden, top = layers.Dense(7, "relu"), layers.Dense(2, name="top")
    model = keras.Sequential([keras.Input((5,)), hidden, top])
    data = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    rows = between(model, hidden.output, data)
    for batch_size, many in (60, observer.MANY), (16, observer.MANY), (16, 0):
        monkeypatch.setattr(observer, "MANY", many)
        graph, statistics = statistics_of(model, data, batch_size)
        (view,) = views_by_layer(graph, statistics)["top"]
        for side in view.divided.fitted, view.divided.held_out:
            shapes = [block.shape for block in side.blocks]
            assert shapes == [(3, 7), (3, 4), (1, 1)]
            assert {block.dtype for block in side.blocks} == {np.dtype("f4")}
        assert_moments(view.moments, rows)
        covariance = view.moments.covariance
        np.testing.assert_array_equal(covariance, covariance.T)
        np.testing.assert_array_equal(
            view.moments.variance, covariance.diagonal()
        )
        assert_moments(view.moments.part([5, 1]), rows[:, [5, 1]])
