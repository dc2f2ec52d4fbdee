"""Small models around a layer, and what every rule has to hold on them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


def between(layer, shape=(5, 20), **options):
    """A model in which `layer` reads 16 units, and a kernel all it returns."""
    inputs = keras.Input(shape, **options)
    x = layers.Dense(16, activation="relu", name="before")(inputs)
    results = keras.tree.flatten(layer(x))
    x = [layers.Flatten()(y) if len(y.shape) > 2 else y for y in results]
    x = layers.Concatenate()(x) if len(x) > 1 else x[0]
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def assert_copies_go(model, tmp_path=None, seed=0, data=None, **options):
    """Planted copies go, and the function stays; so does a hard cut's size.

    Args:
        model: a model with a prunable space of at least 4 units: fewer are
            not planted on.
        tmp_path: folder to save the smaller model to and load it from.

    Returns:
        The graph of the model.
    """
    models.randomized(model, seed)
    data = models.random_inputs(model, seed) if data is None else data
    spaces = kr.trace(model, **options).prunable
    models.plant(model, seed, spaces=spaces)
    plan = kr.plan(model, tau=0.9999, **options)
    removed = [len(d.selection.removed) for d in plan.decisions if not d.reason]
    assert removed == [int(0.3 * space.size) for space in spaces]
    assert sum(removed) > 0
    small = plan.apply()
    models.assert_same_function(model, small, data)
    assert small.count_params() == plan.parameters[1] < model.count_params()
    if tmp_path is not None:
        small.save(tmp_path / "small.keras")
        again = keras.models.load_model(tmp_path / "small.keras")
        models.assert_same_function(small, again, data)
    assert_cut_builds(model, data, **options)
    return plan.graph


def assert_cut_builds(model, data, **options):
    """A cut that removes most of the units builds what the plan says."""
    plan = kr.plan(model, tau=0.1, keep="random", seed=0, **options)
    small = plan.apply()
    assert small.count_params() == plan.parameters[1]
    if plan.flops[0] is not None:
        assert kr.flops(small) == plan.flops[1]
    for answer in models.outputs(small, data):
        assert np.isfinite(answer).all()


def prune(model, tau):
    """`kr.prune`, which warns where nothing of the model can go."""
    if kr.trace(model).prunable:
        return kr.prune(model, tau)
    with pytest.warns(UserWarning, match="Nothing can go"):
        return kr.prune(model, tau)
