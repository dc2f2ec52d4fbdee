"""Mean and covariance of rows that come in batches."""

import keras
import numpy as np
from keras import layers

from keras_redundancy.calibration import Moments
from keras_redundancy.calibration.moments import in_blocks
from tests.calibration.observed import (
    assert_moments,
    statistics_of,
    views_by_layer,
)


def test_batches_add_up_to_the_whole():
    x = np.random.default_rng(0).normal(3, 2, size=(100, 4))
    moments = Moments.of_no_rows(4)
    for part in np.split(x, [10, 11, 60]):
        rest = part - part.mean(axis=0)
        found = in_blocks(rest.T @ rest)
        moments.add(len(part), len(part), part.mean(axis=0), found)
    assert_moments(moments, x, tolerance=1e-12)
    assert moments.samples == 100


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
