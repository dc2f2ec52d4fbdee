"""What a model's outputs are, and how those of two models differ."""

import keras
import numpy as np
import pytest
from keras import layers, losses, ops
from scipy import special

from keras_redundancy.calibration.outputs import Output, outputs_of
from tests import models


def network(*ends, loss=None):
    inputs = x = keras.Input((10,))
    for layer in ends:
        x = layer(x)
    model = models.randomized(keras.Model(inputs, x))
    if loss is not None:
        model.compile("sgd", loss)
    return model


def found(model, kinds=None):
    data = models.random_inputs(model, batch=50)
    outputs = outputs_of(model, kinds, models.outputs(model, data))
    return [(output.kind, output.is_logits) for output in outputs]


def softmax(x):
    """Of that name, and not what the name says."""
    return ops.tanh(x)


CASES = {
    "softmax inside": (lambda: network(layers.Dense(4, "softmax")), "softmax"),
    "sigmoid inside": (lambda: network(layers.Dense(3, "sigmoid")), "sigmoid"),
    "a softmax of one's own": (
        lambda: network(layers.Dense(4, lambda x: ops.softmax(x))),
        "softmax",
    ),
    "a layer behind": (
        lambda: network(layers.Dense(4), layers.Softmax()),
        "softmax",
    ),
    "an operation behind": (
        lambda: network(layers.Dense(4), ops.softmax),
        "softmax",
    ),
    "a sigmoid operation": (
        lambda: network(layers.Dense(4), ops.sigmoid),
        "sigmoid",
    ),
    "an activation behind": (
        lambda: network(layers.Dense(1), layers.Activation("sigmoid")),
        "sigmoid",
    ),
    "of each position": (
        lambda: network(
            layers.Reshape((5, 2)), layers.Conv1D(3, 1, activation="softmax")
        ),
        "softmax",
    ),
    "in a nested model": (
        lambda: network(
            keras.Sequential(
                [keras.Input((10,)), layers.Dense(3), layers.Softmax()]
            )
        ),
        "softmax",
    ),
    "by the loss": (
        lambda: network(
            layers.Dense(4, "softmax"),
            layers.Reshape((4,)),
            loss="categorical_crossentropy",
        ),
        "softmax",
    ),
    "softmax over something else": (
        lambda: network(
            layers.Reshape((5, 2)), layers.Dense(4), layers.Softmax(axis=1)
        ),
        "values",
    ),
    "no probabilities": (lambda: network(layers.Dense(4)), "values"),
    "a loss of values": (
        lambda: network(layers.Dense(4), loss="mse"),
        "values",
    ),
    "only the name": (lambda: network(layers.Dense(4, softmax)), "values"),
}
LOGITS = {
    "labels": (
        losses.SparseCategoricalCrossentropy(from_logits=True),
        4,
        "softmax",
    ),
    "shares": (losses.CategoricalCrossentropy(from_logits=True), 4, "softmax"),
    "two classes": (losses.BinaryCrossentropy(from_logits=True), 1, "sigmoid"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_an_output_is(name):
    make, kind = CASES[name]
    assert found(make()) == [(kind, False)]


@pytest.mark.parametrize("name", LOGITS)
def test_a_loss_says_what_logits_are_of(name, tmp_path):
    loss, units, kind = LOGITS[name]
    model = network(layers.Dense(units), loss=loss)
    assert found(model) == [(kind, True)]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert found(loaded) == [(kind, True)]


def test_each_output_is_looked_at_by_itself():
    inputs = keras.Input((10,))
    parts = [
        layers.Dense(4, name="logits")(inputs),
        layers.Dense(2, name="values")(inputs),
        layers.Dense(3, "sigmoid", name="shares")(inputs),
    ]
    model = keras.Model(inputs, parts)
    assert found(model) == [
        ("values", False),
        ("values", False),
        ("sigmoid", False),
    ]
    expected = [("softmax", True), ("values", False), ("sigmoid", False)]
    loss = losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", [loss, "mse", None])
    assert found(model) == expected
    model.compile("sgd", {"logits": loss, "values": "mse"})
    assert found(model) == expected
    model = keras.Model(inputs, parts)
    assert found(model, ["softmax", "values", "sigmoid"]) == expected


def test_values_are_measured_in_their_variance():
    model = network(layers.Dense(3))
    (wanted,) = models.outputs(model, models.random_inputs(model, batch=50))
    (output,) = outputs_of(model, None, [wanted])
    assert output.variance == pytest.approx(wanted.var(axis=0).mean())
    difference = output.difference(wanted, np.zeros_like(wanted), 1.0)
    expected = np.square(wanted).mean() / wanted.var(axis=0).mean()
    assert float(difference) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("is_logits", [True, False])
def test_probabilities_differ_by_their_divergence(is_logits, temperature):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 4))
    softer = [x / temperature for x in (a, b)]
    p, q = (special.softmax(x, axis=1) for x in softer)
    expected = temperature**2 * special.kl_div(p, q).sum(axis=1).mean()
    given = [x if is_logits else special.softmax(x, axis=1) for x in (a, b)]
    output = Output("softmax", is_logits)
    difference = output.difference(*given, temperature)
    assert float(difference) == pytest.approx(expected, rel=1e-3)
    p, q = map(special.expit, softer)
    both = special.kl_div(p, q) + special.kl_div(1 - p, 1 - q)
    expected = temperature**2 * both.sum(axis=1).mean()
    given = [x if is_logits else special.expit(x) for x in (a, b)]
    output = Output("sigmoid", is_logits)
    difference = output.difference(*given, temperature)
    assert float(difference) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["values", "softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_answers_are_drawn_in_any_dtype(kind, dtype):
    usual = keras.config.floatx()
    found = np.random.default_rng(0).uniform(size=(6, 4))
    found /= found.sum(axis=1, keepdims=True)
    found = found.astype("float32")

    def drawn(found):
        return float(Output(kind).log_probability(found, np.array(7)))

    expected = drawn(found)
    try:
        keras.config.set_floatx(dtype)
        assert drawn(found.astype(dtype)) == pytest.approx(expected, rel=1e-2)
    finally:
        keras.config.set_floatx(usual)
