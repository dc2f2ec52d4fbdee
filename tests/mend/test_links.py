"""Kernels are fitted to what stands behind them: probabilities, ReLUs."""

import keras
import numpy as np
import pytest
from keras import layers, losses
from scipy import special

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.mend import reconstruct, repair
from keras_redundancy.mend.links import Surroundings
from tests import models


def network(*ends):
    inputs = x = keras.Input((10,))
    x = layers.Dense(30, activation="relu")(x)
    x = layers.BatchNormalization()(x)
    for layer in ends:
        x = layer(x)
    model = models.randomized(keras.Model(inputs, x))
    for layer in ends:
        if isinstance(layer, layers.Dense):
            # Most classes are clear.
            layer.kernel.assign(10 * layer.kernel)
    return model


def compiled(loss, *ends):
    model = network(*ends)
    model.compile("sgd", loss)
    return model


ENDS = {
    "softmax inside": (lambda: network(layers.Dense(4, "softmax")), None),
    "sigmoid inside": (lambda: network(layers.Dense(3, "sigmoid")), None),
    "a softmax of one's own": (
        lambda: network(layers.Dense(4, lambda x: keras.ops.softmax(x))),
        None,
    ),
    "no bias": (
        lambda: network(layers.Dense(4, "softmax", use_bias=False)),
        None,
    ),
    "a layer behind": (
        lambda: network(layers.Dense(4), layers.Softmax()),
        None,
    ),
    "an activation behind": (
        lambda: network(layers.Dense(1), layers.Activation("sigmoid")),
        None,
    ),
    "logits and labels": (
        lambda: compiled(
            losses.SparseCategoricalCrossentropy(from_logits=True),
            layers.Dense(4),
        ),
        special.softmax,
    ),
    "logits and shares": (
        lambda: compiled(
            losses.CategoricalCrossentropy(from_logits=True), layers.Dense(4)
        ),
        special.softmax,
    ),
    "binary logits": (
        lambda: compiled(
            losses.BinaryCrossentropy(from_logits=True), layers.Dense(1)
        ),
        lambda x, axis: special.expit(x),
    ),
}


def divergence(model, small, data, link):
    """Of Kullback and Leibler, the mean over samples; sums over outputs."""
    wanted, found = (models.outputs(m, data)[0] for m in (model, small))
    if link is not None:
        wanted, found = (link(x, axis=1) for x in (wanted, found))
    wanted, found = (x.astype(float).clip(1e-6, 1) for x in (wanted, found))
    result = special.kl_div(wanted, found).sum(axis=1)
    if wanted.shape[1] in (1, 3):
        wanted, found = ((1 - x).clip(1e-6, 1) for x in (wanted, found))
        result += special.kl_div(wanted, found).sum(axis=1)
    return result.mean()


@pytest.fixture
def by_squares(monkeypatch):
    """Apply a plan with nothing but least squares."""

    def as_it_is(read, wanted, sides, matrix, shift, *others):
        return matrix, shift

    def apply(plan):
        with monkeypatch.context() as patch:
            patch.setattr(reconstruct, "fit_to_link", as_it_is)
            return plan.apply()

    return apply


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("softmax inside", 0.95),
        ("no bias", 0.95),
        # Least squares tell a few logits well enough.
        ("sigmoid inside", 0.98),
        ("binary logits", 1.01),
    ],
)
def test_probabilities_come_nearer(name, most, by_squares):
    make, link = ENDS[name]
    model = make()
    data = models.random_inputs(model, batch=1536)
    new_data = models.random_inputs(model, seed=1, batch=500)
    plan = kr.plan(model, ratio=0.6, data=data)
    found, before = (
        divergence(model, small, new_data, link)
        for small in (plan.apply(), by_squares(plan))
    )
    assert found < most * before


def test_a_saved_classifier_is_known(tmp_path, by_squares):
    make, link = ENDS["logits and labels"]
    make().save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    data = models.random_inputs(model, batch=1024)
    plan = kr.plan(model, ratio=0.6, data=data)
    found, before = (
        divergence(model, small, data, link)
        for small in (plan.apply(), by_squares(plan))
    )
    assert found < 0.95 * before


def two_outputs():
    model = network(layers.Dense(4, "softmax"))
    other = layers.Dense(2)(model.layers[-2].output)
    return models.randomized(keras.Model(model.inputs, [*model.outputs, other]))


OTHERS = {
    "no probabilities": lambda: network(layers.Dense(4)),
    "a loss that is none": lambda: compiled("mse", layers.Dense(4)),
    "a loss of probabilities": lambda: compiled(
        "categorical_crossentropy", layers.Dense(4)
    ),
    "an activation before": lambda: network(
        layers.Dense(4, "relu"), layers.Softmax()
    ),
    "a layer between": lambda: network(
        layers.Dense(4), layers.Reshape((2, 2)), layers.Softmax()
    ),
    "softmax over something else": lambda: network(
        layers.Reshape((5, 6)), layers.Dense(4), layers.Softmax(axis=1)
    ),
    "rows": lambda: network(layers.Reshape((5, 6)), layers.Dense(4, "softmax")),
    "two outputs": two_outputs,
    "only the name of a softmax": lambda: network(layers.Dense(4, softmax)),
}


def surroundings(model):
    """What is behind the calls of `Dense` layers."""
    around = Surroundings(model)
    return [
        around.link(call)
        for call in _keras.flat_graph(model).calls
        if isinstance(call.operation, layers.Dense)
    ]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_classifier(name):
    *_, link = surroundings(OTHERS[name]())
    assert link in ("linear", "relu")


@pytest.mark.parametrize("name", ENDS)
def test_what_is_one(name):
    make, _ = ENDS[name]
    *_, link = surroundings(make())
    assert link in ("softmax", "sigmoid")


def test_a_layer_that_is_called_twice_has_no_link():
    inputs = x = keras.Input((30,))
    last = layers.Dense(30, "softmax")
    for layer in (layers.Dense(8), last, layers.Dense(8), last):
        x = layer(x)
    model = models.randomized(keras.Model(inputs, x))
    plan = kr.plan(model, ratio=0.3, data=models.random_inputs(model, batch=64))
    menders = repair._menders(plan.graph, plan.removed, model, True)
    links = [menders[id(x)].link for x in model.layers if x.weights]
    assert links == ["linear"] * 3


def chain_of(*between, ends=()):
    """`Dense` layers "first" and "second", and what is between and behind."""
    inputs = x = keras.Input((6,))
    for layer in (
        layers.Dense(5, name="first"),
        *between,
        layers.Dense(4, name="second"),
        *ends,
    ):
        x = layer(x)
    return keras.Model(inputs, x)


def read_by_others():
    model = chain_of(layers.ReLU(name="relu"))
    other = model.get_layer("relu").output
    return keras.Model(model.inputs, [model.output, other])


def relu(x):
    """Of that name, and not what the name says."""
    return keras.ops.tanh(x)


def softmax(x):
    return keras.ops.sigmoid(x) / 2


def split():
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="first")(inputs)
    y = layers.Dense(4, name="second")(keras.ops.relu(x))
    return keras.Model(inputs, layers.Concatenate()([y, x]))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: chain_of(layers.ReLU()),
            ["relu", "linear"],
        ),
        (
            lambda: chain_of(keras.ops.relu, ends=[layers.Activation("relu")]),
            ["relu", "relu"],
        ),
        (
            lambda: chain_of(layers.Dropout(0.1), layers.ReLU()),
            ["relu", "linear"],
        ),
        (chain_of, ["linear"] * 2),
        (
            # The second layer's ReLU is behind its own kernel.
            lambda: chain_of(layers.Dense(3, activation="relu")),
            ["linear", "relu", "linear"],
        ),
        (
            lambda: chain_of(layers.Activation(lambda x: x), layers.ReLU()),
            ["relu", "linear"],
        ),
        (
            lambda: chain_of(layers.Activation(layers.ReLU())),
            ["relu", "linear"],
        ),
        (lambda: chain_of(layers.Activation(relu)), ["linear"] * 2),
        (lambda: chain_of(layers.ReLU(6.0)), ["linear"] * 2),
        (
            lambda: chain_of(layers.ReLU(negative_slope=0.1)),
            ["linear"] * 2,
        ),
        (lambda: chain_of(layers.ReLU(threshold=0.1)), ["linear"] * 2),
        (
            lambda: chain_of(layers.BatchNormalization(), layers.ReLU()),
            ["linear"] * 2,
        ),
        (lambda: chain_of(layers.Activation("tanh")), ["linear"] * 2),
        (read_by_others, ["relu", "linear"]),
        (split, ["linear", "linear"]),
    ],
)
def test_what_stands_behind(make, expected):
    assert surroundings(make()) == expected


def test_links_go_through_nested_models():
    """Each of their calls has a reader of its own."""
    parts = [keras.Input((5,)), layers.ReLU(), layers.Dense(5, name="third")]
    inner = keras.Sequential(parts)
    assert surroundings(chain_of(inner, inner)) == [
        "relu",
        "relu",
        "linear",
        "linear",
    ]


def test_a_nested_model_is_a_classifier():
    parts = [keras.Input((5,)), layers.Dense(3), layers.Softmax()]
    model = chain_of(ends=[layers.Dense(5), keras.Sequential(parts)])
    *_, link = surroundings(model)
    assert link == "softmax"


def test_convolutions_know_their_relu(by_squares):
    """Where most of what they return is lost in it, and much went."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 3, activation="relu")(inputs)
    x = layers.Conv2D(12, 3, activation="relu")(x)
    model = models.randomized(keras.Model(inputs, layers.Flatten()(x)))
    data = models.random_inputs(model, batch=384)
    last = model.layers[2]
    sums = last.convolution_op(model.layers[1](data), last.kernel)
    sums = models.numpy(sums)
    last.bias.assign(-sums.std((0, 1, 2)) - sums.mean((0, 1, 2)))
    plan = kr.plan(model, ratio=0.75, data=data)
    new_data = models.random_inputs(model, seed=1, batch=100)
    wanted, found, before = (
        models.outputs(each, new_data)[0]
        for each in (model, plan.apply(), by_squares(plan))
    )
    errors = [np.square(x - wanted).mean() for x in (found, before)]
    assert errors[0] < 0.95 * errors[1]
