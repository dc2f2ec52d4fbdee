"""What kernels read inside of layers, as calibration data shows it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.channels import Role
from tests import models

SAMPLES, STEPS, UNITS = 24, 6, 5


def surrounded(layer, shape, behind=None):
    """A model with `Dense` layers around one, and what that one is given."""
    inputs = keras.Input(shape)
    x = layers.Dense(4)(inputs)
    outputs = layers.Dense(2)((behind or layer)(x))
    model = models.randomized(keras.Model(inputs, outputs))
    data = models.random_inputs(model, batch=SAMPLES)
    (given,) = models.outputs(keras.Model(inputs, x), data)
    return model, data, given


def view_of(model, data, variable):
    """The only view of what a variable reads."""
    known = kr.calibrate(model, data, batch_size=12)
    (axis,) = (
        axis
        for axis in known.graph.axes
        if axis.variable is variable and axis.role is Role.CONSUMER
    )
    (view,) = known.statistics.views[id(axis)]
    return view


def assert_reads(model, data, variable, wanted):
    """Calibration has the moments of the rows of an array, channels last."""
    moments = view_of(model, data, variable).moments
    rows = np.asarray(wanted, np.float64).reshape(-1, wanted.shape[-1])
    assert moments.count == len(rows)
    covariance = np.cov(rows, rowvar=False, bias=True)
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(
        moments.mean, rows.mean(axis=0), atol=1e-5 * np.sqrt(scale)
    )
    np.testing.assert_allclose(
        moments.covariance, covariance, atol=1e-5 * scale
    )


# --- separable convolutions -------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"depth_multiplier": 2, "padding": "same"},
        {"strides": 2, "padding": "same"},
        {"dilation_rate": 2},
    ],
)
@pytest.mark.parametrize("rank", [1, 2])
def test_separable_convolutions(rank, settings):
    """The pointwise kernel reads what the depthwise one returns."""
    kinds = {
        1: (layers.SeparableConv1D, layers.DepthwiseConv1D),
        2: (layers.SeparableConv2D, layers.DepthwiseConv2D),
    }
    separable, depthwise = kinds[rank]
    layer = separable(3, 3, **settings)
    model, data, given = surrounded(layer, (7,) * rank + (3,))
    alone = depthwise(3, use_bias=False, **settings)
    alone.build(given.shape)
    alone.set_weights([models.numpy(layer.depthwise_kernel)])
    wanted = models.numpy(alone(given))
    # A unit is an input channel: it is read once for each of its filters.
    wanted = wanted.reshape(-1, 4, layer.depth_multiplier).swapaxes(1, 2)
    assert_reads(model, data, layer.pointwise_kernel, wanted)


def test_a_separable_convolution_at_each_step():
    inner = layers.SeparableConv1D(3, 3)
    around = layers.TimeDistributed(inner)
    model, data, given = surrounded(inner, (STEPS, 7, 3), around)
    alone = layers.DepthwiseConv1D(3, use_bias=False)
    alone.build((None, 7, 4))
    alone.set_weights([models.numpy(inner.depthwise_kernel)])
    wanted = models.numpy(alone(given.reshape(-1, 7, 4)))
    assert_reads(model, data, inner.pointwise_kernel, wanted)


# --- recurrent kernels ------------------------------------------------------


def states_before(layer, x, states=None, mask=None):
    """The state that each step begins with, taken step by step."""
    if states is None:
        states = layer.get_initial_state(len(x))
    steps = range(x.shape[1])
    found = []
    for step in reversed(steps) if layer.go_backwards else steps:
        found.append(models.numpy(states[0]))
        _, after = layer.cell(x[:, step], states)
        if mask is not None:
            is_on = mask[:, step, None]
            after = [
                ops.where(is_on, new, old)
                for new, old in zip(after, states, strict=True)
            ]
        states = after
    return np.stack(found, axis=1)


RECURRENT = {
    "LSTM": layers.LSTM,
    "GRU": layers.GRU,
    "SimpleRNN": layers.SimpleRNN,
}


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_kernels(name, backwards, sequences):
    layer = RECURRENT[name](
        UNITS, go_backwards=backwards, return_sequences=sequences
    )
    model, data, given = surrounded(layer, (STEPS, 3))
    wanted = states_before(layer, given)
    assert_reads(model, data, layer.cell.recurrent_kernel, wanted)


def test_a_convolutional_layer():
    layer = layers.ConvLSTM1D(UNITS, 3, padding="same")
    model, data, given = surrounded(layer, (STEPS, 7, 3))
    zeros = ops.zeros((SAMPLES, 7, UNITS))
    wanted = states_before(layer, given, [zeros, zeros])
    assert_reads(model, data, layer.cell.recurrent_kernel, wanted)


def test_an_initial_state():
    inputs, state = keras.Input((STEPS, 3)), keras.Input((4,))
    layer = layers.LSTM(UNITS)
    first = [layers.Dense(UNITS)(state) for _ in range(2)]
    outputs = layers.Dense(2)(layer(inputs, initial_state=first))
    model = models.randomized(keras.Model([inputs, state], outputs))
    data = models.random_inputs(model, batch=SAMPLES)
    states = models.outputs(keras.Model(state, first), data[1])
    wanted = states_before(layer, data[0], states)
    assert_reads(model, data, layer.cell.recurrent_kernel, wanted)


def test_a_masked_step_keeps_the_state():
    inputs = keras.Input((STEPS, 3))
    layer = layers.GRU(UNITS, zero_output_for_mask=True)
    outputs = layers.Dense(2)(layer(layers.Masking()(inputs)))
    model = models.randomized(keras.Model(inputs, outputs))
    data = models.random_inputs(model, batch=SAMPLES)
    data[: SAMPLES // 2, 2:4] = 0
    wanted = states_before(layer, data, mask=(data != 0).any(axis=-1))
    assert_reads(model, data, layer.cell.recurrent_kernel, wanted)


@pytest.mark.parametrize("side", ["forward_layer", "backward_layer"])
def test_both_directions_in_a_nested_model(side):
    inner_in = keras.Input((STEPS, 3))
    around = layers.Bidirectional(layers.LSTM(UNITS))
    inner = keras.Model(inner_in, around(inner_in))
    inputs = keras.Input((STEPS, 3))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    models.randomized(model)
    data = models.random_inputs(model, batch=SAMPLES)
    layer = getattr(around, side)
    wanted = states_before(layer, data)
    assert_reads(model, data, layer.cell.recurrent_kernel, wanted)


def test_the_layer_is_what_it_was():
    inputs = keras.Input((STEPS, 3))
    layer = layers.LSTM(UNITS, return_state=True)
    outputs = layers.Dense(2)(layer(inputs)[0])
    model = models.randomized(keras.Model(inputs, outputs))
    before = layer.get_config()
    kr.calibrate(model, models.random_inputs(model, batch=SAMPLES))
    assert layer.get_config() == before
    assert not layer.return_sequences


# --- what is made of it -----------------------------------------------------


def linear_units(units=6):
    """A recurrent layer, nearly linear: one unit is twice another one."""
    inputs = keras.Input((STEPS, 3))
    layer = layers.SimpleRNN(units, activation="linear", name="recurrent")
    model = keras.Model(inputs, layers.Dense(4)(layer(inputs)))
    models.randomized(model)
    for variable in (layer.cell.kernel, layer.cell.recurrent_kernel):
        value = 0.3 * models.numpy(variable)
        value[:, 1] = 2 * value[:, 0] - value[:, 2]
        variable.assign(value)
    bias = models.numpy(layer.cell.bias)
    bias[1] = 2 * bias[0] - bias[2]
    layer.cell.bias.assign(bias)
    return model


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_combination_of_states_goes_without_a_loss(rounds):
    model = linear_units()
    data = models.random_inputs(model, batch=200)
    small = kr.prune(
        model, ratio=1 / 6, data=data, layers="recurrent", rounds=rounds
    )
    assert small.get_layer("recurrent").units == 5
    models.assert_same_function(model, small, tolerance=1e-4)


def test_separable_convolutions_are_chosen_by_data():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="first")(inputs)
    x = layers.SeparableConv2D(6, 3, activation="relu", name="second")(x)
    x = layers.SeparableConv2D(5, 3, name="third")(x)
    model = models.randomized(keras.Model(inputs, x))
    data = models.random_inputs(model, batch=64)
    plan = kr.plan(model, ratio=0.5, data=data)
    widths = models.widths(plan)
    assert [removed for _, removed in widths.values()] == [3, 3, 0]
    assert np.isfinite(models.outputs(plan.apply(), data)[0]).all()


def test_what_lies_behind_a_relu_inside_a_wrapper_is_not_read_before_it():
    inner = [keras.Input((6,)), layers.ReLU(), layers.Dense(3, name="inside")]
    inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="before")(inputs)
    x = layers.TimeDistributed(keras.Sequential(inner), name="each")(x)
    graph = kr.trace(keras.Model(inputs, x))
    (space,) = (space for space in graph.spaces if space.name == "before")
    (place,) = space.axes_of(Role.CONSUMER)
    assert place.on.reads == (None,)
