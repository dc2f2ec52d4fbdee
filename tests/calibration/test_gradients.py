"""How a model's answers depend on what kernels read."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.calibration.gradients import sensitivities_of
from tests import models
from tests.calibration.observed import between, views_by_layer


def sensitivities(model, data, batch_size=32):
    """{layer name: F of what its kernel reads}; None without gradients."""
    known = kr.calibrate(model, data, batch_size=batch_size)
    views = views_by_layer(known.graph, known.statistics)
    found = sensitivities_of(
        known.graph.model, known.statistics, known.data, batch_size
    )
    if found is None:
        return None
    return {name: found[id(view)].fisher for name, (view,) in views.items()}


def outer_mean(g):
    """Of gradients, shape (samples, positions, n)."""
    return np.einsum("spi,spj->ij", g, g) / len(g)


def test_gradients_of_one_value_through_a_nested_model():
    """The square of noise of one number is 1, so nothing is left to chance."""
    inner_in = keras.Input((4, 4, 3))
    hidden = layers.Conv2D(6, 1, activation="relu", name="inside")(inner_in)
    inner = keras.Model(inner_in, hidden)
    inputs = keras.Input((4, 4, 2))
    stem = layers.Conv2D(3, 3, padding="same", name="stem")(inputs)
    pooled = layers.GlobalAveragePooling2D()(inner(stem))
    top = layers.Dense(1, name="top")
    model = models.randomized(keras.Model(inputs, top(pooled)))
    data = models.random_inputs(model, batch=70)
    found = sensitivities(model, data)
    w = np.array(top.kernel)[:, 0]
    np.testing.assert_allclose(found["top"], np.outer(w, w), rtol=1e-4)
    through = between(model, stem, data) @ np.array(
        inner.get_layer("inside").kernel
    ).reshape(3, 6) + np.array(inner.get_layer("inside").bias)
    g = (through.reshape(70, 16, 6) > 0) * w / 16
    g = g @ np.array(inner.get_layer("inside").kernel).reshape(3, 6).T
    np.testing.assert_allclose(
        found["inside"], outer_mean(g), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_answers_are_drawn_from_probabilities(activation):
    """On average, Fisher's information is that of the distribution."""
    inputs = keras.Input((5,))
    hidden = layers.Dense(4, activation="tanh", name="hidden")(inputs)
    top = layers.Dense(3, activation=activation, name="top")
    model = models.randomized(keras.Model(inputs, top(hidden)))
    data = models.random_inputs(model, batch=4096)
    found = sensitivities(model, data)["top"]
    p, w = model.predict(data, verbose=0), np.array(top.kernel)
    own = np.stack([np.diag(x) for x in p * (1 - p)])
    if activation == "softmax":
        own = np.stack([np.diag(x) - np.outer(x, x) for x in p])
    wanted = w @ own.mean(axis=0) @ w.T
    np.testing.assert_allclose(found, wanted, atol=0.1 * np.abs(wanted).max())


def test_flattened_positions_and_a_layer_that_is_called_twice():
    inputs = keras.Input((2, 2, 3))
    conv = layers.Conv2D(4, 1, name="conv")(inputs)
    flat = layers.Flatten()(conv)
    top = layers.Dense(1, name="top")
    shared = layers.Dense(4, name="shared")
    twice = shared(shared(layers.GlobalAveragePooling2D()(conv)))
    last = layers.Dense(1, name="last")
    outputs = layers.Concatenate()([top(flat), last(twice)])
    model = models.randomized(keras.Model(inputs, outputs))
    data = models.random_inputs(model, batch=64)
    found = sensitivities(model, data)
    w = np.array(top.kernel).reshape(4, 4)
    np.testing.assert_allclose(found["top"], w.T @ w, rtol=1e-4)
    second = np.array(shared.kernel) @ np.array(last.kernel)
    first = np.array(shared.kernel) @ second
    np.testing.assert_allclose(
        found["shared"], first @ first.T + second @ second.T, rtol=1e-3
    )


@pytest.mark.parametrize("step", [ops.round, ops.sign, ops.stop_gradient])
def test_no_gradient_reaches_what_is_behind_a_step(step):
    inputs = keras.Input((5,))
    x = layers.Dense(4, name="hidden")(inputs)
    x = layers.Dense(4)(step(layers.Dense(6)(x)))
    model = models.randomized(keras.Model(inputs, x))
    data = models.random_inputs(model, batch=40)
    assert sensitivities(model, data) is None


def test_the_gradient_is_zero_where_answers_do_not_depend_on_a_branch():
    """As in a residual block whose last scale begins with zeros."""
    inputs = keras.Input((5,))
    hidden = layers.Dense(4, activation="relu", name="hidden")(inputs)
    off = layers.BatchNormalization(name="off")
    branch = off(layers.Dense(4, name="branch")(hidden))
    added = layers.Add()([branch, layers.Dense(4)(inputs)])
    model = keras.Model(inputs, layers.Dense(1, name="top")(added))
    models.randomized(model)
    off.gamma.assign(np.zeros(4))
    data = models.random_inputs(model, batch=40)
    found = sensitivities(model, data)
    np.testing.assert_array_equal(found["branch"], np.zeros((4, 4)))
    w = np.array(model.get_layer("top").kernel)[:, 0]
    np.testing.assert_allclose(found["top"], np.outer(w, w), rtol=1e-4)
    for method in ("taylor", kr.Greedy(errors="loss")):
        plan = kr.plan(model, method, target={"flops": 0.7}, data=data)
        cut = [d.space.name for d in plan.decisions if len(d.selection.removed)]
        assert cut == ["hidden"]


def test_what_is_read_inside_of_a_layer_has_no_gradient():
    inputs = keras.Input((4, 5))
    x = layers.LSTM(6)(layers.Dense(4, name="hidden")(inputs))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    data = models.random_inputs(model, batch=40)
    assert sensitivities(model, data) is None
