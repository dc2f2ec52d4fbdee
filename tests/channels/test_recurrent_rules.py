"""Recurrent layers: units with all their gates, and their states."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.spatial.distance import pdist

import keras_redundancy as kr
from keras_redundancy.channels import Role
from tests import models, rule_checks
from tests.rule_checks import assert_copies_go, prune


def between(layer, shape=(5, 12), **options):
    return rule_checks.between(layer, shape, **options)


EVERYTHING = {"return_sequences": True, "return_state": True}
LAYERS = {
    "lstm": lambda: layers.LSTM(8),
    "lstm, all": lambda: layers.LSTM(8, **EVERYTHING, use_bias=False),
    "lstm, backwards": lambda: layers.LSTM(8, go_backwards=True, unroll=True),
    "gru": lambda: layers.GRU(8, **EVERYTHING),
    "gru, reset before": lambda: layers.GRU(8, reset_after=False),
    "gru, dropout": lambda: layers.GRU(8, dropout=0.2, recurrent_dropout=0.2),
    "simple": lambda: layers.SimpleRNN(8, activation="relu"),
    "simple, all": lambda: layers.SimpleRNN(8, **EVERYTHING),
}
CONVOLUTIONS = {
    "one axis": (lambda: layers.ConvLSTM1D(7, 3), (3, 6, 12)),
    "two axes": (
        lambda: layers.ConvLSTM2D(7, 3, strides=2, **EVERYTHING),
        (3, 6, 6, 12),
    ),
    "three axes": (
        lambda: layers.ConvLSTM3D(7, 2, padding="same", use_bias=False),
        (2, 3, 3, 3, 12),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_planted_copies_go(name, tmp_path):
    graph = assert_copies_go(between(LAYERS[name]()), tmp_path)
    assert [space.size for space in graph.prunable] == [16, 8]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_planted_copies_go_from_convolutional_layers(name, tmp_path):
    layer, shape = CONVOLUTIONS[name]
    graph = assert_copies_go(between(layer(), shape), tmp_path)
    assert [space.size for space in graph.prunable] == [16, 7]


def test_a_unit_has_a_place_in_every_gate_of_both_kernels():
    model = between(layers.LSTM(8, name="lstm"))
    space = {s.name: s for s in kr.trace(model).prunable}["lstm"]
    producers = space.axes_of(Role.PRODUCER)
    assert [a.on.variable.name for a in producers] == [
        "kernel",
        "recurrent_kernel",
    ]
    for place in producers:
        assert place.on.axis == 1
        assert sorted(place.positions[3]) == [3, 11, 19, 27]
        gates = place.positions // 8
        assert (gates == gates[0]).all()
    (bias,) = space.axes_of(Role.CARRIER)
    assert sorted(bias.positions[3]) == [3, 11, 19, 27]
    readers = space.axes_of(Role.CONSUMER)
    assert [a.on.variable.name for a in readers] == [
        "recurrent_kernel",
        "kernel",
    ]
    assert np.array_equal(readers[0].positions[:, 0], np.arange(8))


@pytest.mark.parametrize("sequences", [True, False])
def test_channels_come_first_after_time(sequences):
    inputs = keras.Input((3, 4, 6, 6))
    x = layers.ConvLSTM2D(
        7, 3, return_sequences=True, data_format="channels_first", name="first"
    )(inputs)
    x = layers.ConvLSTM2D(
        8, 3, return_sequences=sequences, data_format="channels_first"
    )(x)
    x = layers.Dense(2)(layers.Flatten(data_format="channels_first")(x))
    model = keras.Model(inputs, x)
    first, second = kr.trace(model).prunable
    assert (first.size, second.size) == (7, 8)
    *_, reader = second.axes_of(Role.CONSUMER)
    assert reader.on.layer is model.layers[-1]
    assert reader.positions.shape == (8, 12 if sequences else 4)


def test_one_equal_kernel_of_two_makes_no_copy():
    model = models.randomized(between(layers.GRU(8, name="gru")))
    kernel = model.get_layer("gru").cell.kernel
    value = models.numpy(kernel)
    value[:, [1, 9, 17]] = value[:, [0, 8, 16]]
    kernel.assign(value)
    plan = kr.plan(model, 0.9999, layers="gru")
    assert not plan.removed.any()


def test_masks_states_and_open_lengths(tmp_path):
    """An encoder whose states a decoder starts from."""
    source = keras.Input((None,), dtype="int32")
    target = keras.Input((None,), dtype="int32")
    x = layers.Embedding(30, 12, mask_zero=True, name="words")(source)
    _, *state = layers.LSTM(8, return_state=True, name="encoder")(x)
    y = layers.Embedding(30, 10, mask_zero=True, name="others")(target)
    y = layers.LSTM(8, name="decoder")(y, initial_state=state)
    model = keras.Model([source, target], layers.Dense(3)(y))
    data = [np.array([[1, 2, 0], [3, 4, 5]]), np.array([[6, 7], [8, 0]])]
    graph = assert_copies_go(model, tmp_path, data=data)
    assert {space.name for space in graph.prunable} == {
        "words",
        "others",
        "encoder + decoder",
    }
    assert kr.plan(model, 0.5).flops == (None, None)


def test_a_state_that_another_layer_writes():
    inputs = keras.Input((5, 12))
    state = layers.Dense(8, activation="tanh", name="state")(
        layers.Flatten()(inputs)
    )
    x = layers.GRU(8, name="gru")(sequences=inputs, initial_state=state)
    model = keras.Model(inputs, layers.Dense(2)(x))
    graph = assert_copies_go(model)
    assert [space.name for space in graph.prunable] == ["state + gru"]


def test_a_mask_that_is_an_input():
    inputs = keras.Input((5, 12))
    mask = keras.Input((5,), dtype="bool")
    x = layers.Dense(16)(inputs)
    x = layers.SimpleRNN(8)(x, mask=mask)
    model = keras.Model([inputs, mask], layers.Dense(2)(x))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(4, 5, 12)), rng.random((4, 5)) < 0.6]
    assert_copies_go(model, data=data)


def test_a_layer_that_is_called_twice():
    left, right = keras.Input((5, 12)), keras.Input((7, 12))
    layer = layers.LSTM(8, name="both")
    x = layers.Concatenate()([layer(left), layer(right)])
    model = keras.Model([left, right], layers.Dense(2)(x))
    (space,) = assert_copies_go(model).prunable
    assert space.size == 8


def test_flops_count_both_kernels_at_every_step():
    graph = between(layers.LSTM(8))
    rest = 5 * 12 * 16 + 8 * 3
    assert kr.flops(graph) == rest + 5 * (16 * 32 + 8 * 32)
    convolution = between(layers.ConvLSTM2D(7, 3), (2, 6, 6, 12))
    rest = 72 * 12 * 16 + 4 * 4 * 7 * 3
    kernels = 9 * 16 * 28 + 9 * 7 * 28
    assert kr.flops(convolution) == rest + 2 * 16 * kernels


def test_initializers_that_hold_arrays():
    table = keras.initializers.Constant(np.ones((16, 32), "float32"))
    model = models.randomized(between(layers.LSTM(8, kernel_initializer=table)))
    models.plant(model)
    small = kr.prune(model, 0.9999)
    models.assert_same_function(model, small)
    assert small.layers[2].cell.kernel.shape == (12, 24)
    # The array no longer fits, and a saved model could not be built with it.
    initializer = small.layers[2].kernel_initializer
    assert type(initializer) is keras.initializers.Zeros
    assert np.shape(model.layers[2].kernel_initializer.value) == (16, 32)


# --- reports ----------------------------------------------------------------


def test_a_report_has_a_row_for_the_layer_and_a_filter_for_every_unit():
    model = models.randomized(between(layers.LSTM(8, name="lstm")))
    models.plant(model)
    report = kr.analyze(model, 0.9999)
    assert [row.layer for row in report.layers] == ["before", "lstm", "top"]
    row = report.layers[1]
    assert (row.n, row.n_f, row.n_r, row.part) == (8, 6, 2, None)
    assert row.parameters == 16 * 32 + 8 * 32 + 32
    assert row.multiply_adds == 5 * (16 * 32 + 8 * 32)
    cell = model.get_layer("lstm").cell
    columns = []
    for kernel in (cell.kernel, cell.recurrent_kernel):
        for gate in np.split(models.numpy(kernel), 4, axis=1):
            columns.append(gate / np.linalg.norm(gate))
    distances = pdist(np.concatenate(columns).T, "cosine")
    assert row.mean_similarity == pytest.approx(1 - distances.mean(), abs=1e-6)
    assert row.max_similarity == pytest.approx(1, abs=1e-6)


# --- what is left alone -----------------------------------------------------


@keras.saving.register_keras_serializable(__name__)
class Turned(layers.LSTMCell):
    def call(self, inputs, states, training=False):
        output, states = super().call(inputs, states, training)
        return keras.ops.flip(output, -1), states


@keras.saving.register_keras_serializable(__name__)
class OwnCell(layers.LSTM):
    def __init__(self, units, **options):
        super().__init__(units, **options)
        self.cell = Turned(units)


@keras.saving.register_keras_serializable(__name__)
class OwnLoop(layers.GRU):
    def inner_loop(self, *args, **options):
        return super().inner_loop(*args, **options)


def stacked():
    return layers.RNN([layers.LSTMCell(8), layers.GRUCell(6)])


def constant_state(x):
    state = np.ones((4, 8), "float32")
    return layers.GRU(8)(x, initial_state=state)


UNFOLLOWED = {
    "own cell": (OwnCell(8), "runs a cell of its own (Turned)"),
    "own loop": (OwnLoop(8), "overrides inner_loop of GRU"),
    "a cell": (layers.RNN(layers.GRUCell(8)), "a cell of its own (GRUCell)"),
    "cells": (stacked(), "runs a cell of its own (StackedRNNCells)"),
    "softmax": (layers.GRU(8, activation="softmax"), "activation softmax of"),
    "constant": (constant_state, "the initial state of gru"),
}


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_what_is_left_alone(name):
    layer, reason = UNFOLLOWED[name]
    if isinstance(layer, keras.Layer):
        layer = type(layer).from_config(layer.get_config())
    model = models.randomized(between(layer, batch_size=4))
    graph = kr.trace(model)
    (before,) = [s for s in graph.spaces if s.name == "before"]
    assert reason in before.frozen
    assert len(graph.untouched) == 1
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)


def test_a_stateful_layer_is_left_alone():
    layer = layers.LSTM(8, stateful=True)
    model = models.randomized(between(layer, batch_size=4))
    graph = kr.trace(model)
    assert graph.prunable == []
    assert "is stateful" in graph.untouched[0][1]
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)


def test_channels_on_the_axis_of_time_are_frozen():
    inputs = keras.Input((5, 12))
    x = layers.Dense(16, name="before")(inputs)
    x = layers.LSTM(8, name="lstm")(layers.Permute((2, 1))(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    reasons = {space.name: space.frozen for space in kr.trace(model).spaces}
    assert "works on another axis" in reasons["before"]
    assert reasons["lstm"] is None
    models.plant(model)
    small = kr.prune(model, 0.9999)
    assert small.get_layer("lstm").units == 6
    models.assert_same_function(model, small)
