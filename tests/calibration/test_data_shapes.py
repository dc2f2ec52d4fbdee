"""Models of open input sizes get them from the data."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration.data import Samples
from keras_redundancy.planning import latency
from tests import models


def images(size=None, width=12):
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(width, 3, activation="relu")(inputs)
    return models.randomized(keras.Model(inputs, layers.Conv2D(2, 3)(x)))


def test_flops_are_counted_on_the_data():
    """On the shape of the first batch, where there are several."""
    opened, fixed = images(), images(10)
    data = np.random.default_rng(0).normal(size=(32, 10, 10, 3))
    larger = np.random.default_rng(0).normal(size=(32, 14, 14, 3))
    options = {"target": {"flops": 0.5}, "rounds": 0}
    expected = kr.plan(fixed, data=data, **options).flops
    for given in (
        data,
        kr.calibrate(opened, data),
        iter([data, larger]),
        Samples(data).data,
    ):
        plan = kr.plan(opened, data=given, **options)
        assert plan.flops == expected
        small = plan.apply()
        assert kr.flops(small, input_shape=(10, 10, 3)) == expected[1]
    without_statistics = {"select": "l1", "absorb": "merge"}
    for given in (data, iter([data, larger])):
        plan = kr.plan(opened, data=given, **options, **without_statistics)
        assert plan.flops[0] == expected[0]
    plan = kr.plan(opened, data=data, input_shape=(14, 14, 3), **options)
    assert plan.flops[0] == kr.flops(images(14))


def test_flops_on_a_shape_without_data():
    opened, fixed = images(), images(10)
    target = {"target": {"flops": 0.5}}
    plan = kr.plan(opened, **target, input_shape=(10, 10, 3))
    assert plan.flops == kr.plan(fixed, **target).flops
    with pytest.raises(ValueError, match=r"input_shape=.*or data="):
        kr.plan(opened, **target)
    with pytest.raises(ValueError, match="is not the shape"):
        kr.plan(fixed, **target, input_shape=(12, 12, 3))


def test_the_latency_of_a_model_with_open_sizes(monkeypatch):
    monkeypatch.setattr(latency, "LEAST_SECONDS", 0.0)
    model = images(width=64)
    data = np.random.default_rng(0).normal(size=(16, 24, 24, 3))
    for given in ({"data": data, "rounds": 0}, {"input_shape": (24, 24, 3)}):
        plan = kr.plan(model, target={"latency": 1.0}, batch_size=16, **given)
        assert plan.latency <= 1
    with pytest.raises(ValueError, match=r"input_shape=.*or data="):
        kr.plan(model, target={"latency": 0.9})


def test_trials_of_a_model_with_open_sizes():
    model = images()
    data = np.random.default_rng(0).normal(size=(16, 10, 10, 3))
    scores = iter(range(100, 0, -1))

    def evaluate(model):
        return float(next(scores))

    options = {"data": data, "rounds": 0, "verbose": False}
    found = kr.sensitivity(model, evaluate, ratios=[0.5], **options)
    trials = next(iter(found.trials.values()))
    assert trials[0].flops == pytest.approx(0.5)
    methods = {
        "l1": {"select": "l1"},
        "of ones own": lambda model, share: images(width=6),
    }
    found = kr.compare(model, evaluate, methods, shares=[0.5], **options)
    for trials in found.trials.values():
        assert trials[0].flops == pytest.approx(0.5)
