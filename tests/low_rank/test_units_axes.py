"""RaRe on layers whose units are on other axes of the kernel than the last."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models

KINDS = {
    "transposed": lambda rare: layers.Conv2DTranspose(
        4, 3, kernel_regularizer=rare
    ),
    "depthwise": lambda rare: layers.DepthwiseConv2D(
        3, depth_multiplier=2, depthwise_regularizer=rare
    ),
    "separable": lambda rare: layers.SeparableConv2D(
        4, 3, depthwise_regularizer=rare
    ),
    "einsum": lambda rare: layers.EinsumDense(
        "abcd,ed->abce", (8, 8, 4), kernel_regularizer=rare
    ),
}
LAST = kr.RaReRegularizer(5.0, units_axis=-1)
RIGHT = {
    "transposed": {"units_axis": -2},
    "depthwise": {"units_axis": [3, 2], "vectors": "units"},
    "separable": {"units_axis": [-2, -1], "vectors": "units"},
    "einsum": {"units_axis": -2},
}


def network(name, rare):
    inputs = keras.Input((8, 8, 6))
    x = layers.Conv2D(6, 1)(inputs)
    x = KINDS[name](rare)(x)
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
@pytest.mark.parametrize("name", KINDS)
def test_the_layer_and_what_to_write_are_named(name, use):
    model = network(name, kr.RaReRegularizer(5.0, units_axis=-1))
    words = rf"{model.layers[2].name}.*Leave units_axis out: .*\(5.0\)"
    with pytest.warns(UserWarning, match=words):
        USES[use](model)


@pytest.mark.parametrize("name", KINDS)
def test_right_axes_are_not_warned_of(name):
    model = network(name, kr.RaReRegularizer(5.0, **RIGHT[name]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kr.strip(model)
        kr.strip(network(name, kr.RaReRegularizer(5.0)))
        kr.strip(network(name, kr.RaReRegularizer(0.0, units_axis=-1)))


def test_a_layer_in_a_nested_model_is_found():
    inner = network("transposed", LAST)
    inputs = keras.Input((8, 8, 6))
    model = keras.Model(inputs, inner(inputs))
    with pytest.warns(UserWarning, match="units_axis=-1"):
        kr.strip(model)


def test_dynamic_low_rank_warns_when_training_begins():
    model = network("transposed", LAST)
    model = kr.factorize(model, layers="conv2d(_[0-9]+)?")
    with pytest.warns(UserWarning, match="units_axis=-1"):
        train(model, kr.callbacks.DynamicLowRank())


def test_the_monitor_warns_when_training_begins(tmp_path):
    model = network("transposed", LAST)
    with pytest.warns(UserWarning, match="units_axis=-1"):
        train(model, kr.callbacks.RedundancyMonitor(tmp_path, images=False))


def test_fit_and_prune_warns_before_it_trains():
    model = network("transposed", LAST)
    model.compile("sgd", "mse")
    (output,) = model.outputs
    x, y = np.zeros((4, 8, 8, 6)), np.zeros((4, *output.shape[1:]))
    with pytest.warns(UserWarning, match="units_axis=-1"):
        kr.fit_and_prune(
            model, x, y, prune={"ratio": 0.25}, epochs=1, monitor="loss"
        )


# --- found from the layer ---------------------------------------------------


def all_kinds(rare_of):
    """A model with a kernel of every kind, from {name of a layer: its RaRe}."""
    keras.utils.set_random_seed(0)
    last = layers.Conv2D(5, 2, kernel_regularizer=rare_of["plain"])
    heads = layers.EinsumDense(
        "abc,cde->abde", (8, 2, 3), kernel_regularizer=rare_of["heads"]
    )
    places = layers.EinsumDense(
        "abcd,bde->abce", (3, 3, 4), kernel_regularizer=rare_of["places"]
    )
    inner = [KINDS["transposed"](rare_of["transposed"]), last]
    return keras.Sequential(
        [
            keras.Input((3, 3, 4)),
            places,
            keras.Sequential([keras.Input((3, 3, 4)), *inner]),
            layers.ZeroPadding2D(2),
            KINDS["depthwise"](rare_of["depthwise"]),
            layers.SeparableConv2D(
                4,
                3,
                padding="same",
                depthwise_regularizer=rare_of["separable"],
                pointwise_regularizer=rare_of["plain"],
            ),
            layers.ZeroPadding2D(((2, 0), (2, 0))),
            KINDS["einsum"](rare_of["einsum"]),
            layers.TimeDistributed(heads),
        ]
    )


AXES = RIGHT | {
    "plain": {"units_axis": -1},
    "heads": {"units_axis": [1, 2]},
    "places": {"units_axis": [0, 2], "vectors": "units"},
}


def trained(model):
    """The weights after a few steps, and the penalties after them."""
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.random.default_rng(0).normal(size=(8, 3, 3, 4))
    y = np.zeros((8, *model.output_shape[1:]))
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    return model.get_weights(), models.number(sum(model.losses))


def test_by_default_the_units_are_where_the_layer_has_them(tmp_path):
    """One regularizer of all layers does in fit what one of each kind does."""
    shared = kr.RaReRegularizer(50.0)
    model = all_kinds(dict.fromkeys(AXES, shared))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    start, same = (models.number(sum(x.losses)) for x in (model, loaded))
    np.testing.assert_allclose(same, start, rtol=1e-4)
    of_kind = {
        name: kr.RaReRegularizer(50.0, **options)
        for name, options in AXES.items()
    }
    weights, penalty = trained(all_kinds(of_kind))
    assert penalty < 0.99 * start
    found, same = trained(model)
    np.testing.assert_allclose(same, penalty, rtol=1e-4)
    for values, expected in zip(found, weights, strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-5)
    on_last_axes = kr.RaReRegularizer(50.0, units_axis=-1)
    other = all_kinds(dict.fromkeys(AXES, on_last_axes))
    with pytest.warns(UserWarning, match="leave units_axis out"):
        assert abs(models.number(sum(other.losses)) - start) > 0.01 * start


def test_rows_of_a_depthwise_kernel_are_not_compared():
    """They belong to no input: with vectors="inputs" nothing is left."""
    rare = kr.RaReRegularizer(5.0, vectors="inputs")
    layer = KINDS["depthwise"](rare)
    layer.build((None, 8, 8, 6))
    with pytest.warns(UserWarning, match="no row of it belongs to one input"):
        assert models.number(sum(layer.losses)) == 0


def test_a_call_by_hand_means_the_last_axis():
    layer = KINDS["transposed"](kr.RaReRegularizer(5.0))
    layer.build((None, 8, 8, 6))
    last = LAST(layer.kernel.value)
    found = layer.kernel_regularizer(layer.kernel)
    assert models.number(found) == models.number(last)
    assert models.number(sum(layer.losses)) != models.number(last)
