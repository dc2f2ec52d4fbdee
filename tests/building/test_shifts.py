"""What is constant goes into biases, where that is right for all outputs."""

import threading

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


def constant_unit(layer, value, unit=0):
    kernel, bias = (models.numpy(v) for v in layer.weights)
    kernel[..., unit], bias[unit] = 0, value
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)


def read_by_einsum(bias_axes=None):
    inputs = keras.Input((5,))
    x = layers.Dense(6, activation="relu", name="first")(inputs)
    x = layers.Reshape((1, 6))(x)
    x = layers.EinsumDense(
        "abc,cde->abde", output_shape=(None, 3, 4), bias_axes=bias_axes
    )(x)
    model = models.randomized(keras.Model(inputs, x))
    constant_unit(model.get_layer("first"), 5.0)
    return model


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("bias_axes", [None, "de"])
def test_outputs_of_several_axes_have_a_bias_of_as_many(bias_axes, with_data):
    model = read_by_einsum(bias_axes)
    data = models.random_inputs(model, batch=200)
    how = {"data": data, "rounds": 0} if with_data else {}
    plan = kr.plan(model, ratio=1 / 6, **how)
    assert plan.decisions[0].selection.removed.tolist() == [0]
    small = plan.apply()
    assert small.layers[-1].bias.shape == (3, 4)
    assert small.count_params() == plan.parameters[1]
    models.assert_same_function(model, small)


def test_a_bias_of_other_axes_takes_no_constant():
    model = read_by_einsum("e")
    for options in ({}, {"criterion": "folded"}):
        assert kr.prune(model, tau=0.9999, **options).layers[1].units == 6


def upsampled():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2DTranspose(2, 4, strides=2, name="second")(x)
    model = models.randomized(keras.Model(inputs, x))
    constant_unit(model.get_layer("first"), 5.0)
    return model


@pytest.mark.parametrize("select", ["greedy", "pivoted"])
def test_a_constant_that_no_bias_can_take_is_not_lost(select):
    """Each output of a strided kernel reads another part of it."""
    model = upsampled()
    data = models.random_inputs(model, batch=100)
    (wanted,) = models.outputs(model, data)

    def error(small):
        (found,) = models.outputs(small, data)
        return np.abs(found - wanted).mean() / wanted.std()

    plan = kr.plan(model, ratio=1 / 6, data=data, select=select, rounds=0)
    assert 0 in plan.decisions[0].selection.kept
    assert error(plan.apply()) < 0.1
    merged = kr.merge_correlated(model, data, count=1)
    assert error(merged) < 0.3
    assert kr.prune(model, tau=0.9999, layers="first").layers[1].filters == 6


@pytest.mark.parametrize("with_data", [False, True])
def test_recurrent_layers_take_constants_in_the_bias_of_their_gates(with_data):
    inputs = keras.Input((4, 5))
    x = layers.Dense(6, activation="relu", name="first")(inputs)
    cells = [
        layers.LSTM(3, unroll=True),
        layers.GRU(3, unroll=True),
        layers.GRU(3, reset_after=False, unroll=True),
        layers.Bidirectional(layers.SimpleRNN(3, unroll=True)),
    ]
    x = layers.Concatenate()([cell(x) for cell in cells])
    model = models.randomized(keras.Model(inputs, x))
    constant_unit(model.get_layer("first"), 5.0)
    options = {"ratio": 1 / 6, "select": "l1"}
    if with_data:
        options |= {"data": models.random_inputs(model, batch=32), "rounds": 0}
    small = kr.prune(model, layers="first", **options)
    assert small.get_layer("first").units == 5
    models.assert_same_function(model, small)


@pytest.mark.parametrize(("padding", "units"), [("valid", 5), ("same", 6)])
def test_recurrent_convolutions_take_constants_without_a_border(padding, units):
    inputs = keras.Input((2, 6, 5))
    x = layers.Dense(6, activation="relu", name="first")(inputs)
    x = layers.ConvLSTM1D(3, 3, padding=padding)(x)
    model = models.randomized(keras.Model(inputs, x))
    constant_unit(model.get_layer("first"), 5.0)
    small = kr.prune(model, tau=0.999)
    assert small.get_layer("first").units == units
    models.assert_same_function(model, small)


@pytest.mark.parametrize("select", ["l1", "fpgm"])
def test_a_constant_is_lost_at_a_padded_border_alone(select):
    """Without data the unit is the first to go, though its constant is not."""
    inputs = keras.Input((7, 3))
    x = layers.Conv1D(6, 3, activation="relu", name="first")(inputs)
    x = layers.Conv1D(4, 3, padding="same", use_bias=False, name="second")(x)
    model = models.randomized(keras.Model(inputs, x))
    constant_unit(model.get_layer("first"), 5.0)
    plan = kr.plan(model, ratio=1 / 6, select=select)
    small = plan.apply()
    assert small.count_params() == plan.parameters[1]
    same = plan.without("first", [0]).apply()
    data = models.random_inputs(model)
    (wanted,) = models.outputs(model, data)
    for each in (small, same):
        assert each.get_layer("first").filters == 5
        (found,) = models.outputs(each, data)
        np.testing.assert_allclose(found[:, 1:-1], wanted[:, 1:-1], atol=1e-4)
    assert np.abs(found - wanted)[:, [0, -1]].max() > 0.1


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("keep", ["random", "largest", "mean"])
def test_a_constant_unit_stands_for_no_other(keep, with_data):
    """Its filter is parallel to that of another one, and 1e9 times smaller."""
    model = upsampled()
    first = model.get_layer("first")
    kernel = models.numpy(first.kernel)
    kernel[..., 0] = 1e-9 * kernel[..., 1]
    first.kernel.assign(kernel)
    options = {"tau": 0.9999, "keep": keep}
    if with_data:
        options |= {"data": models.random_inputs(model), "rounds": 0}
    small = kr.prune(model, **options)
    assert small.get_layer("first").filters == 6
    models.assert_same_function(model, small)


@pytest.mark.parametrize("shift", [-0.3, 0.5])
@pytest.mark.parametrize(
    "options",
    [
        {"tau": 0.999},
        {"tau": 0.999, "criterion": "folded"},
        {"tau": 0.999, "keep": "mean"},
        {"ratio": 3 / 8},
        {"ratio": 3 / 8, "select": "clusters"},
        {"ratio": 3 / 8, "select": "fpgm"},
        {"target": {"units": 5 / 8}},
    ],
)
def test_units_that_weight_decay_shrank_go_first(options, shift):
    """What is left of their filters is rounding, whatever is behind."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, use_bias=False, name="first"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(8, 3),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    models.randomized(model)
    dead = np.arange(8) < 3
    kernel = models.numpy(model.layers[0].kernel)
    model.layers[0].kernel.assign(np.where(dead, 1e-19, 1) * kernel)
    norm = model.layers[1]
    norm.beta.assign(np.where(dead, shift, models.numpy(norm.beta)))
    norm.moving_mean.assign(np.zeros(8))
    norm.moving_variance.assign(np.where(dead, 1e-36, 0.2))
    small = kr.prune(model, layers="first", **options)
    assert small.layers[0].filters == 5
    models.assert_same_function(model, small)


def test_folded_filters_are_alike_at_any_scale_of_the_inputs():
    """Pixels up to 255: means dwarf what varies, and tell nothing."""
    for scale in (1, 255):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(16, 3, use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Flatten(),
                layers.Dense(5),
            ]
        )
        models.randomized(model)
        pixels = scale * np.random.default_rng(0).uniform(size=(64, 8, 8, 3))
        sums = models.numpy(model.layers[0](pixels.astype("float32")))
        norm = model.layers[1]
        norm.moving_mean.assign(sums.mean((0, 1, 2)))
        norm.moving_variance.assign(sums.var((0, 1, 2)))
        plan = kr.plan(model, tau=0.8, criterion="folded")
        assert len(plan.decisions[0].selection.kept) == 16


def test_a_plan_can_be_applied_from_several_threads():
    model = models.randomized(models.residual())
    data = models.random_inputs(model, batch=32)
    plan = kr.plan(model, ratio=0.5, data=data, rounds=0)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(plan.apply()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for small in found[1:]:
        models.assert_same_function(found[0], small, data)


def gated_by_words(words):
    """A constant unit, times a number that depends on the words."""
    dense = layers.Dense(6, name="first")
    gate = layers.Dense(1, activation="sigmoid")(words[:, 0])
    return dense(words[:, 1]) * gate, dense.kernel


def masked_words(words):
    """A recurrent unit that reads nothing keeps its state where words end."""
    recurrent = layers.SimpleRNN(6, name="first")
    states = recurrent(words)
    kernel = models.numpy(recurrent.cell.recurrent_kernel)
    kernel[:, 0] = 0
    recurrent.cell.recurrent_kernel.assign(kernel)
    return states, recurrent.cell.kernel


@pytest.mark.parametrize(
    ("what", "dtype"),
    [
        (gated_by_words, "int32"),
        (gated_by_words, "float32"),
        (masked_words, "int32"),
    ],
)
def test_what_depends_on_words_is_not_constant(what, dtype):
    inputs = keras.Input((4,), dtype=dtype)
    x, kernel = what(layers.Embedding(9, 5, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    bias = model.get_layer("first").weights[-1]
    bias.assign(np.linspace(1, 2, 6))
    value = models.numpy(kernel)
    value[:, 0] = 0
    kernel.assign(value)
    words = np.array([[1, 5, 3, 8], [7, 2, 0, 0], [0, 0, 0, 0]], dtype)
    small = kr.prune(model, tau=0.9999)
    models.assert_same_function(model, small, words)
