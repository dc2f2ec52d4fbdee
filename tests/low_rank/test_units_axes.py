"""RaRe on layers whose units are on other axes of the kernel than the last."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models

WRONG = {
    "transposed": (
        lambda rare: layers.Conv2DTranspose(4, 3, kernel_regularizer=rare),
        "units_axis=-2",
    ),
    "depthwise": (
        lambda rare: layers.DepthwiseConv2D(
            3, depth_multiplier=2, depthwise_regularizer=rare
        ),
        'units_axis=[-2, -1], vectors="units"',
    ),
    "separable": (
        lambda rare: layers.SeparableConv2D(4, 3, depthwise_regularizer=rare),
        'units_axis=[-2, -1], vectors="units"',
    ),
    "einsum": (
        lambda rare: layers.EinsumDense(
            "abcd,ed->abce", (8, 8, 4), kernel_regularizer=rare
        ),
        "units_axis=0",
    ),
}
RIGHT = {
    "transposed": {"units_axis": -2},
    "depthwise": {"units_axis": [3, 2], "vectors": "units"},
    "separable": {"units_axis": [-2, -1], "vectors": "units"},
    "einsum": {"units_axis": -2},
}


def network(name, rare):
    layer, _ = WRONG[name]
    inputs = keras.Input((8, 8, 6))
    x = layers.Conv2D(6, 1)(inputs)
    x = layer(rare)(x)
    outputs = layers.Conv2D(3, 3)(x)
    return models.randomized(keras.Model(inputs, outputs))


def train(model, callback):
    model.compile("sgd", "mse")
    (output,) = model.outputs
    x, y = np.zeros((4, 8, 8, 6)), np.zeros((4, *output.shape[1:]))
    model.fit(x, y, verbose=0, callbacks=[callback])


USES = {
    "strip": kr.strip,
    "prune": lambda model: kr.prune(model, ratio=0.25),
    "analyze": kr.analyze,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", WRONG)
def test_the_layer_and_what_to_write_are_named(name, use):
    model = network(name, kr.RaReRegularizer(5.0))
    _, remedy = WRONG[name]
    words = rf"{model.layers[2].name}.*Write .*\(5.0, {re.escape(remedy)}\)"
    with pytest.warns(UserWarning, match=words):
        USES[use](model)


@pytest.mark.parametrize("name", WRONG)
def test_what_to_write_is_not_warned_of(name):
    model = network(name, kr.RaReRegularizer(5.0, **RIGHT[name]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kr.strip(model)
        kr.strip(network(name, kr.RaReRegularizer(0.0)))


def test_a_layer_in_a_nested_model_is_found():
    inner = network("transposed", kr.RaReRegularizer(5.0))
    inputs = keras.Input((8, 8, 6))
    model = keras.Model(inputs, inner(inputs))
    with pytest.warns(UserWarning, match="units_axis=-2"):
        kr.strip(model)


def test_dynamic_low_rank_warns_when_training_begins():
    model = network("transposed", kr.RaReRegularizer(5.0))
    model = kr.factorize(model, layers="conv2d(_[0-9]+)?")
    with pytest.warns(UserWarning, match="units_axis=-2"):
        train(model, kr.callbacks.DynamicLowRank())


def test_the_monitor_warns_when_training_begins(tmp_path):
    model = network("transposed", kr.RaReRegularizer(5.0))
    with pytest.warns(UserWarning, match="units_axis=-2"):
        train(model, kr.callbacks.RedundancyMonitor(tmp_path, images=False))


def test_fit_and_prune_warns_before_it_trains():
    model = network("transposed", kr.RaReRegularizer(5.0))
    model.compile("sgd", "mse")
    (output,) = model.outputs
    x, y = np.zeros((4, 8, 8, 6)), np.zeros((4, *output.shape[1:]))
    with pytest.warns(UserWarning, match="units_axis=-2"):
        kr.fit_and_prune(
            model, x, y, prune={"ratio": 0.25}, epochs=1, monitor="loss"
        )
