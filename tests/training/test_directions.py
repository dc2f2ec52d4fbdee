"""Whether more or less of a monitored value is better."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr


@pytest.mark.parametrize("metric", ["mae", "mse", "mape"])
def test_errors_are_less_for_better_models(metric):
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)]
    )
    model.compile("sgd", "mse", metrics=[metric])
    found = kr.fit_and_prune(
        model,
        x,
        x[:, :1],
        prune={"ratio": 0.3},
        epochs=2,
        floor=1e6,
        monitor=metric,
        verbose=0,
    )
    assert len(found.cuts) == 1
