"""The last kernel of a classifier is fitted to its probabilities."""

import keras
import numpy as np
import pytest
from keras import layers, losses
from scipy import special

import keras_redundancy as kr
from keras_redundancy.pruning import repair
from keras_redundancy.pruning.classifier import fit_classifier
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
        wanted, found = (link(x.astype(float), axis=1) for x in (wanted, found))
    result = special.kl_div(wanted, found).sum(axis=1)
    if wanted.shape[1] in (1, 3):
        result += special.kl_div(1 - wanted, 1 - found).sum(axis=1)
    return result.mean()


@pytest.mark.parametrize("name", ENDS)
def test_probabilities_come_nearer(name):
    make, link = ENDS[name]
    model = make()
    data = models.random_inputs(model, batch=500)
    new_data = models.random_inputs(model, seed=1, batch=500)
    small = kr.prune(model, ratio=0.6, data=data, rounds=0)
    before = divergence(model, small, new_data, link)
    fit_classifier(model, small, data, 100)
    # One logit is told well enough by least squares.
    least = 1.25 if model.output.shape[-1] == 1 else 0.95
    assert divergence(model, small, new_data, link) < least * before


def test_it_is_part_of_a_round(monkeypatch):
    make, link = ENDS["softmax inside"]
    model = make()
    data = models.random_inputs(model, batch=500)
    plan = kr.plan(model, ratio=0.6, data=data)
    fitted = divergence(model, plan.apply(), data, link)
    monkeypatch.setattr(repair, "fit_classifier", lambda *args: None)
    assert fitted < 0.95 * divergence(model, plan.apply(), data, link)


def test_a_saved_classifier_is_known(tmp_path):
    make, link = ENDS["logits and labels"]
    make().save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    data = models.random_inputs(model, batch=500)
    small = kr.prune(model, ratio=0.6, data=data, rounds=0)
    before = divergence(model, small, data, link)
    fit_classifier(model, small, data, 100)
    assert divergence(model, small, data, link) < 0.95 * before


def test_one_sample_changes_little():
    model = network(layers.Dense(4, "softmax"))
    data = models.random_inputs(model, batch=500)
    small = kr.prune(model, ratio=0.6, data=data, rounds=0)
    before = divergence(model, small, data, None)
    fit_classifier(model, small, data[:1], 1)
    assert divergence(model, small, data, None) < 2 * before


def two_outputs():
    model = network(layers.Dense(4, "softmax"))
    other = layers.Dense(2)(model.layers[-2].output)
    return models.randomized(keras.Model(model.inputs, [*model.outputs, other]))


def called_twice():
    last = layers.Dense(30, "softmax")
    return network(last, last)


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
    "a layer that is called twice": called_twice,
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_stay_as_they_are(name):
    model = OTHERS[name]()
    data = models.random_inputs(model, batch=100)
    small = kr.prune(model, ratio=0.5, data=data, rounds=0)
    before = [models.numpy(v) for v in small.variables]
    fit_classifier(model, small, data, 100)
    for old, new in zip(before, small.variables, strict=True):
        np.testing.assert_array_equal(old, models.numpy(new))


def test_what_is_right_stays_as_it_is():
    model = network(layers.Dense(4, "softmax"))
    small = keras.models.clone_model(model)
    small.set_weights(model.get_weights())
    fit_classifier(model, small, models.random_inputs(model, batch=100), 50)
    models.assert_same_function(model, small, tolerance=1e-6)
