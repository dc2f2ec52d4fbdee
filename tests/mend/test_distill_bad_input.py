"""What cannot be distilled, and what is said then."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests.mend.networks import Numbered, classifier, ends_in, logits


def other_outputs():
    inputs = keras.Input((12,))
    return keras.Model(inputs, layers.Dense(4)(inputs))


def frozen():
    small = classifier()
    small.trainable = False
    return small


X = np.random.default_rng(0).normal(size=(100, 12)).astype("float32")
BAD = {
    "other outputs": (classifier, other_outputs, {}, "outputs of shapes"),
    "other inputs": (
        lambda: ends_in(layers.Reshape((12, 1)), layers.Flatten()),
        lambda: keras.Sequential([keras.Input((9,)), layers.Dense(12)]),
        {},
        "inputs of shapes",
    ),
    "all frozen": (classifier, frozen, {}, "no trainable weights"),
    "no probabilities": (
        lambda: ends_in(layers.Dense(3), loss="categorical_crossentropy"),
        None,
        {},
        "categorical_crossentropy, a loss for probabilities",
    ),
    "a softmax of one": (
        lambda: ends_in(layers.Dense(1)),
        None,
        {"outputs": "softmax"},
        "whose softmax is always 1",
    ),
    "another kind": (
        classifier,
        None,
        {"outputs": "sigmoid"},
        "made by a softmax, but outputs='sigmoid'",
    ),
    "no kind": (classifier, None, {"outputs": "logits"}, "is not known"),
    "kinds of two": (
        classifier,
        None,
        {"outputs": ["values", "values"]},
        "2 outputs",
    ),
    "a single sample": (classifier, None, {"data": X[:1]}, "the 0 samples"),
    "patience for what": (
        classifier,
        None,
        {"patience": 2, "held_out": 0},
        "patience=2 would have no effect",
    ),
    "steps of arrays": (
        classifier,
        None,
        {"steps": 3},
        "steps=3 would have no effect",
    ),
    "less than a batch": (
        classifier,
        None,
        {"batch_size": 91},
        "batch_size=91 is more than the 90 samples",
    ),
    "no data": (classifier, None, {"data": X[:0]}, "empty"),
    "data that does not fit": (
        classifier,
        None,
        {"data": X[:, :5]},
        "the model takes",
    ),
    "NaN": (classifier, None, {"data": X * np.nan}, "holds NaN"),
    "no such feature": (
        classifier,
        None,
        {"features": ["none"]},
        "has no layer of this name. It has .*, among them 'dense",
    ),
    "features and labels": (
        logits,
        None,
        {"features": ["hidden"], "labels": np.zeros(100)},
        "cannot be compared with labels=",
    ),
    "no loss": (classifier, None, {"labels": X[:, 0]}, "with no loss"),
    "a weight of no labels": (
        logits,
        None,
        {"label_weight": 0.9},
        "label_weight=0.9 would have no effect",
    ),
    "no weight": (
        logits,
        None,
        {"labels": X[:, 0], "label_weight": 0.0},
        "label_weight is 0.0",
    ),
    "too few labels": (logits, None, {"labels": X[:50, 0]}, "50 entries"),
    "labels of arrays": (
        logits,
        None,
        {"labels": True},
        "the labels themselves",
    ),
    "labels of datasets": (
        logits,
        None,
        {"labels": X[:, 0], "data": Numbered(X, X)},
        "labels=True",
    ),
    "changed datasets": (
        classifier,
        None,
        {"augment": np.sin, "data": Numbered(X, X)},
        "augment= changes arrays",
    ),
    "batches of datasets": (
        classifier,
        None,
        {"batch_size": 16, "data": Numbered(X, X)},
        "batch_size=16 would have no effect: data is Numbered",
    ),
    "held out of datasets": (
        classifier,
        None,
        {"held_out": 0.1, "data": Numbered(X, X)},
        "held_out=0.1 would have no effect.*validation_data=",
    ),
    "validation beside arrays": (
        classifier,
        None,
        {"validation_data": X},
        "held_out= is held out",
    ),
    "epochs": (classifier, None, {"epochs": 0}, "epochs must be"),
    "rate": (classifier, None, {"learning_rate": -1.0}, "learning_rate"),
    "temperature": (classifier, None, {"temperature": 0}, "temperature"),
    "share held out": (classifier, None, {"held_out": 1.0}, "held_out"),
    "endless": (
        classifier,
        None,
        {"data": itertools.cycle([X])},
        "without an end",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    make_model, make_small, options, message = BAD[name]
    model = make_model()
    small = make_small() if make_small else model
    options = {"data": X, "verbose": 0} | options
    with pytest.raises(ValueError, match=message):
        kr.distill(small, model, **options)


def test_the_smaller_model_comes_first():
    large = keras.Sequential([keras.Input((12,)), layers.Dense(999)])
    large.add(layers.Dense(3, activation="softmax"))
    with pytest.warns(UserWarning, match="The smaller model comes first"):
        kr.distill(large, classifier(), X, epochs=1, verbose=0)


def test_what_is_no_function():
    with pytest.raises(TypeError, match="augment is a function"):
        kr.Distill(augment=3)
    with pytest.raises(ValueError, match="patience=2 would have no effect"):
        kr.Distill(patience=2, held_out=0)
    with pytest.raises(ValueError, match="would have no effect"):
        kr.prune(classifier(), 0.9, mend=kr.Distill())
