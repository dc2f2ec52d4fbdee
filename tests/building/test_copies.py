"""Models that are made of another one have nothing in common with it."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models

# JAX gives arrays away in what it compiles; TensorFlow is faster without.
COMPILES = keras.backend.backend() == "jax"


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(16, 8)).astype("float32"), np.arange(16) % 3


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=COMPILES,
        run_eagerly=models.EAGERLY,
    )
    model.train_on_batch(*data())
    return model


@pytest.fixture(scope="module")
def model():
    """With states of all kinds: adapted, moving, random, an optimizer's."""
    normalization = layers.Normalization()
    normalization.adapt(data()[0])
    parts = [
        keras.Input((8,)),
        normalization,
        layers.Dense(8, activation="relu", name="one"),
        layers.BatchNormalization(),
        layers.Dropout(0.1, seed=1),
        kr.NoiseOutputs(4, seed=1),
        layers.Dense(6, activation="relu", name="two"),
        layers.Dense(3, name="top"),
    ]
    return compiled(keras.Sequential(parts))


def fitted(model):
    return kr.fit_and_prune(
        model,
        *data(),
        prune={"ratio": 0.2},
        epochs=1,
        floor=9.0,
        monitor="loss",
        verbose=0,
    ).model


FUNCTIONS = {
    "prune": lambda m: kr.prune(m, ratio=0.3),
    "prune, nothing": lambda m: kr.prune(m, tau=1.0),
    "prune one layer": lambda m: kr.prune(m, ratio=0.3, layers="two"),
    "prune with data": lambda m: kr.prune(m, ratio=0.3, data=data()[0]),
    "prune, optimizer": lambda m: kr.prune(m, ratio=0.3, optimizer=True),
    "means": lambda m: kr.prune(m, 0.5, keep="mean"),
    "plan": lambda m: kr.plan(m, ratio=0.3).apply(),
    "merge_correlated": lambda m: kr.merge_correlated(m, data()[0], count=2),
    "merge, optimizer": lambda m: kr.merge_correlated(
        m, data()[0], count=2, optimizer=True
    ),
    "strip": kr.strip,
    "apply_rare": kr.apply_rare,
    "factorize": kr.factorize,
    "to_dense": kr.to_dense,
    "compact": kr.compact,
    "fit_and_prune": fitted,
}


def assert_independent(model, other):
    """Training one leaves the other as it was, and able to be used."""
    for one, used in ((model, other), (other, model)):
        variables = [*used.variables, *used.metrics_variables]
        variables += used.optimizer.variables
        before = [models.numpy(x) for x in variables]
        answers = models.outputs(used, data()[0])
        one.train_on_batch(*data(seed=1))
        for x, y in zip(before, variables, strict=True):
            np.testing.assert_array_equal(x, models.numpy(y))
        np.testing.assert_array_equal(answers, models.outputs(used, data()[0]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_model_and_what_is_made_of_it(model, name):
    other = FUNCTIONS[name](model)
    assert other is not model
    assert_independent(model, other)


@pytest.mark.parametrize("function", [kr.strip, kr.to_dense, kr.compact])
def test_stock_layers_in_place_of_factorized_ones(model, function):
    model = compiled(kr.factorize(model, layers="two"))
    assert_independent(model, function(model))


@pytest.mark.parametrize("name", ["strip", "prune"])
def test_stock_layers_in_place_of_normalized_ones(name):
    inputs = keras.Input((8,))
    x = kr.FrobeniusNormalization(layers.Dense(6, activation="relu"))(inputs)
    model = compiled(keras.Model(inputs, layers.Dense(3)(x)))
    assert_independent(model, FUNCTIONS[name](model))
