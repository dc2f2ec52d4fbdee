"""Units by what the model's answers make of them: gradients, and scales."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


@pytest.fixture(scope="module")
def model():
    """Two hidden layers side by side: the answer hardly sees the first."""
    inputs = keras.Input((8,))
    sides = [
        layers.Dense(12, activation="relu", name=name)(inputs)
        for name in ("faint", "loud")
    ]
    tops = [layers.Dense(4, name=f"{x.name}_top")(x) for x in sides]
    x = layers.Dense(1, name="top")(layers.Add()(tops))
    model = models.randomized(keras.Model(inputs, x))
    names = ("faint", "loud")
    assert [x.name for x in model.layers[1:3]] == list(names)
    top = model.layers[3]
    top.kernel.assign(0.01 * top.kernel)
    return model


@pytest.fixture(scope="module")
def data(model):
    return models.random_inputs(model, batch=200)


def widths(plan):
    return {
        d.space.name: len(d.selection.kept)
        for d in plan.decisions
        if d.reason is None
    }


def test_errors_of_the_loss_leave_what_matters(model, data):
    """As shares, the errors of both layers' consumers count alike."""
    options = {"target": {"units": 0.6}, "data": data, "mend": False}
    alike = widths(kr.plan(model, kr.Greedy(), **options))
    by_loss = kr.plan(model, kr.Greedy(errors="loss"), **options)
    found = widths(by_loss)
    assert found["faint"] < alike["faint"]
    assert found["loud"] > alike["loud"]
    wanted = model.predict(data, verbose=0)
    errors = [
        np.square(p.apply().predict(data, verbose=0) - wanted).mean()
        for p in (by_loss, kr.plan(model, kr.Greedy(), **options))
    ]
    assert errors[0] < 0.5 * errors[1]


def test_taylor_scores_are_changes_of_the_answer(model, data):
    """Of one value, the score is the mean square of what a unit adds to it."""
    found = {}

    class Noted(kr.Taylor):
        def scores(self, units):
            found[units.name] = super().scores(units)
            return found[units.name]

    kr.plan(model, Noted(), ratio=0.5, data=data)
    hidden = keras.Model(model.inputs, model.get_layer("loud").output)
    x = hidden.predict(data, verbose=0)
    w = models.numpy(model.layers[4].kernel) @ models.numpy(
        model.get_layer("top").kernel
    )
    np.testing.assert_allclose(
        found["loud"], np.square(x * w[:, 0]).mean(axis=0), rtol=1e-4
    )
    kept = widths(kr.plan(model, "taylor", target={"units": 0.5}, data=data))
    assert kept["faint"] < kept["loud"]


def test_one_calibration_takes_gradients_once(model, data, monkeypatch):
    from keras_redundancy.calibration import reuse

    calls, function = [], reuse.sensitivities_of
    monkeypatch.setattr(
        reuse, "sensitivities_of", lambda *a: calls.append(1) or function(*a)
    )
    known = kr.calibrate(model, data)
    for share in (0.6, 0.4):
        kr.plan(
            model, kr.Greedy(errors="loss"), target={"units": share}, data=known
        )
    assert len(calls) == 1


def test_without_gradients_the_errors_of_outputs_count():
    inputs = keras.Input((4, 5))
    x = layers.LSTM(6)(layers.Dense(4, name="hidden")(inputs))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    options = {"ratio": 0.5, "data": models.random_inputs(model, batch=40)}
    with pytest.warns(UserWarning, match="inside of a layer"):
        found = kr.plan(model, kr.Greedy(errors="loss"), **options)
    assert widths(found) == widths(kr.plan(model, **options))
    with pytest.raises(ValueError, match="Taylor needs gradients"):
        kr.plan(model, kr.Taylor(), **options)


def test_errors_that_do_not_go_together(model, data):
    with pytest.raises(ValueError, match="one of"):
        kr.Greedy(errors="labels")
    with pytest.raises(ValueError, match="does not go with correlation"):
        kr.plan(model, kr.Greedy(0.9, errors="loss"), data=data)


def test_scales_of_batch_normalization():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(4, 3, name="second")(layers.ReLU()(x))
    model = models.randomized(keras.Model(inputs, x))
    gamma = np.float32([1, -5, 0.1, 2, -0.2, 3])
    model.get_layer("norm").gamma.assign(gamma)
    found = kr.plan(model, kr.BatchNormalizationScales(), ratio=0.5)
    assert found["first"].selection.kept.tolist() == [1, 3, 5]
    with pytest.raises(ValueError, match="pass through none"):
        kr.plan(models.mlp(), kr.BatchNormalizationScales(), ratio=0.5)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("method", [kr.Taylor(), kr.Greedy(errors="loss")])
def test_the_scale_of_the_answer_does_not_matter(model, data, method, scale):
    options = {"target": {"flops": 0.5}, "data": data, "mend": False}
    scaled = keras.models.clone_model(model)
    scaled.set_weights(model.get_weights())
    top = scaled.get_layer("top")
    top.kernel.assign(scale * top.kernel)
    top.bias.assign(scale * top.bias)
    plan = kr.plan(scaled, method, **options)
    assert widths(plan) == widths(kr.plan(model, method, **options))
    assert plan.flops[1] > 0.4 * plan.flops[0]
