"""Normalisation: exact per channel, inexact over channels."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from tests import models
from tests.rule_checks import assert_copies_go, assert_cut_builds


def image(between, width=12):
    inputs = keras.Input((6, 6, 5))
    x = layers.Conv2D(width, 3, activation="relu", name="before")(inputs)
    x = layers.Conv2D(6, 3, name="after")(between(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return models.randomized(keras.Model(inputs, layers.Dense(3)(x)))


PER_CHANNEL = {
    "batch": lambda: layers.BatchNormalization(),
    "batch, by axis": lambda: layers.BatchNormalization(axis=3),
    "batch, of a position": lambda: layers.BatchNormalization(axis=1),
    "layer, over positions": lambda: layers.LayerNormalization(axis=(1, 2)),
    "unit, over positions": lambda: layers.UnitNormalization(axis=(1, 2)),
    "instance": lambda: layers.GroupNormalization(groups=-1),
    "instance, by number": lambda: layers.GroupNormalization(groups=12),
    "prelu": lambda: layers.PReLU(),
    "prelu, shared": lambda: layers.PReLU(shared_axes=(1, 2)),
    "prelu, one for all": lambda: layers.PReLU(shared_axes=(1, 2, 3)),
    "layer scale": lambda: _keras.LayerScale(0.5, 12),
    "rescaling": lambda: layers.Rescaling(0.5, offset=0.25),
    "softmax over positions": lambda: layers.Softmax(axis=(1, 2)),
}
OVER_CHANNELS = {
    "layer": lambda: layers.LayerNormalization(),
    "layer, all axes": lambda: layers.LayerNormalization(axis=(1, 2, 3)),
    "rms": lambda: layers.RMSNormalization(),
    "unit": lambda: layers.UnitNormalization(),
    "group": lambda: layers.GroupNormalization(groups=3),
    "one group": lambda: layers.GroupNormalization(groups=1),
    "softmax": lambda: layers.Softmax(),
    "softmax activation": lambda: layers.Activation("softmax"),
    "softmax operation": lambda: lambda x: keras.ops.softmax(x, axis=-1),
    "dense with softmax": lambda: layers.Dense(8, activation="softmax"),
}


@pytest.mark.parametrize("name", PER_CHANNEL)
def test_per_channel_copies_go(name, tmp_path):
    if name == "layer, over positions" and keras.backend.backend() == "torch":
        pytest.skip("Keras 3.15 has PyTorch normalise over the last axes only")
    model = image(PER_CHANNEL[name]())
    graph = assert_copies_go(model, tmp_path)
    assert [s.name for s in graph.prunable] == ["before", "after"]
    assert not any(space.inexact for space in graph.spaces)


@pytest.mark.parametrize("name", OVER_CHANNELS)
def test_over_channels_they_are_frozen_unless_asked_for(name):
    model = image(OVER_CHANNELS[name]())
    frozen = [s for s in kr.trace(model).spaces if s.frozen]
    reasons = [s.frozen for s in frozen if "normalises over" in s.frozen]
    assert len(reasons) == 1
    asked = kr.trace(model, allow_inexact=True)
    (space,) = (s for s in asked.prunable if s.inexact)
    assert reasons[0].startswith(space.inexact + "; with allow_inexact=True")
    assert [s.inexact for s in asked.prunable if s.name == "after"] == [None]
    assert_cut_builds(model, models.random_inputs(model), allow_inexact=True)


def test_every_group_of_a_normalisation_keeps_as_many():
    model = image(layers.GroupNormalization(groups=3, name="groups"))
    (space,) = (
        s for s in kr.trace(model, allow_inexact=True).prunable if s.inexact
    )
    assert space.size == 4
    models.copy_units(space, np.array([0]), np.array([2]))
    small = kr.prune(model, 0.9999, allow_inexact=True)
    assert small.get_layer("before").filters == 9
    assert small.get_layer("groups").gamma.shape == (9,)
    kept = [0, 1, 3, 4, 5, 7, 8, 9, 11]
    np.testing.assert_array_equal(
        models.numpy(small.get_layer("groups").gamma),
        models.numpy(model.get_layer("groups").gamma)[kept],
    )


def test_a_plan_says_which_spaces_are_inexact():
    model = image(layers.LayerNormalization(name="norm"))
    plan = kr.plan(model, 0.9, allow_inexact=True)
    assert "inexact: norm (LayerNormalization) normalises" in str(plan)
    assert "inexact: " not in str(kr.plan(model, 0.9))


def test_the_moving_variance_does_not_scale_in_training_mode():
    inputs = keras.Input((6,))
    x = layers.Dense(8, use_bias=False, name="before")(inputs)
    x = layers.BatchNormalization(name="norm")(x, training=True)
    model = keras.Model(inputs, layers.Dense(2)(layers.ReLU()(x)))
    models.randomized(model)
    (space,) = kr.trace(model).prunable
    models.copy_units(space, np.array([1]), np.array([5]))
    models.assert_same_function(model, kr.prune(model, 0.9999))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Rescaling([1.0, 2.0, 3.0]),
        layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0]),
    ],
    ids=["rescaling", "normalization"],
)
def test_fixed_statistics_freeze_what_they_are_applied_to(layer):
    layer = type(layer).from_config(layer.get_config())
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(3, 1, name="before")(inputs)
    x = layers.Conv2D(8, 3, name="after")(layer(x))
    x = layers.Dense(2)(layers.Flatten()(x))
    model = models.randomized(keras.Model(inputs, x))
    state = {s.name: s.frozen for s in kr.trace(model).spaces}
    assert "of a fixed width" in state["before"]
    assert state["after"] is None
    models.plant(model)
    models.assert_same_function(model, kr.prune(model, 0.9999))
