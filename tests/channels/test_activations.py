"""Activation functions are known by what they do, however they are given."""

import dataclasses
import functools
import warnings

import keras
import numpy as np
import pytest
from keras import activations, layers, ops

import keras_redundancy as kr
from keras_redundancy.channels.activations import (
    KNOWN,
    Behaviours,
    Kind,
    _found_by_running,
)
from tests import models
from tests.rule_checks import assert_copies_go


@dataclasses.dataclass
class Scaled:
    """Compared by value, so it has no hash."""

    by: float

    def __call__(self, x):
        return x * self.by


class Bounded:
    def bounded(self, x):
        return ops.clip(x, -1.0, 2.0)


def relu(x):
    """Of that name, and not what the name says."""
    return ops.relu(x) + 1.0


def natives():
    """The functions of the backend's own library, by what they are."""
    if keras.backend.backend() == "tensorflow":
        from tensorflow import function, identity, nn

        others = {identity: Kind.LINEAR, function(nn.relu): Kind.RELU}
    elif keras.backend.backend() == "jax":
        from jax import nn, numpy

        others = {numpy.abs: Kind.HOMOGENEOUS, numpy.tanh: Kind.ELEMENTWISE}
    else:
        from torch import nn

        nn, others = nn.functional, {}
    return others | {
        nn.relu: Kind.RELU,
        nn.relu6: Kind.ELEMENTWISE,
        nn.leaky_relu: Kind.HOMOGENEOUS,
        nn.elu: Kind.ELEMENTWISE,
        nn.gelu: Kind.ELEMENTWISE,
        nn.softplus: Kind.ELEMENTWISE,
    }


SMALL_SLOPE = functools.partial(activations.leaky_relu, negative_slope=0.01)
KINDS = [
    (None, Kind.LINEAR),
    (lambda x: x, Kind.LINEAR),
    (layers.Dropout(0.5), Kind.LINEAR),
    (ops.relu, Kind.RELU),
    (lambda x: ops.maximum(x, 0), Kind.RELU),
    (layers.ReLU(), Kind.RELU),
    (layers.Activation("relu"), Kind.RELU),
    (ops.abs, Kind.HOMOGENEOUS),
    (ops.zeros_like, Kind.HOMOGENEOUS),
    (lambda x: -3 * ops.relu(-x), Kind.HOMOGENEOUS),
    (SMALL_SLOPE, Kind.HOMOGENEOUS),
    (functools.partial(SMALL_SLOPE, negative_slope=2), Kind.HOMOGENEOUS),
    (layers.LeakyReLU(0.1), Kind.HOMOGENEOUS),
    (Scaled(0.5), Kind.HOMOGENEOUS),
    (lambda x: 1 / (1 + ops.exp(-x)), Kind.SIGMOID),
    (lambda x: activations.gelu(x, approximate=True), Kind.ELEMENTWISE),
    (relu, Kind.ELEMENTWISE),
    (layers.ReLU(6.0), Kind.ELEMENTWISE),
    (Bounded().bounded, Kind.ELEMENTWISE),
    (lambda x: ops.sin(30 * x), Kind.ELEMENTWISE),
    (ops.exp, Kind.ELEMENTWISE),
    (lambda x: ops.softmax(x, axis=1), Kind.CHANNELWISE),
    (lambda x: x - ops.mean(x, axis=1, keepdims=True), Kind.CHANNELWISE),
    (ops.softmax, Kind.SOFTMAX),
    (lambda x: ops.softmax(x / 2), Kind.NORMALIZING),
    (lambda x: x - ops.mean(x, axis=-1, keepdims=True), Kind.NORMALIZING),
    (lambda x: ops.flip(x, -1), Kind.MIXING),
    (ops.glu, Kind.UNKNOWN),
]


@pytest.mark.parametrize(("function", "kind"), KINDS)
def test_kinds(function, kind):
    assert Behaviours().of(function, (None, 5, 24)).kind is kind


def test_functions_of_the_backend():
    behaviours = Behaviours()
    for function, kind in natives().items():
        assert behaviours.of(function, (None, 24)).kind is kind, function


NAMES = [
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh",
    "leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid",
    "silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid",
    "sparsemax squareplus tanh tanh_shrink",
]


@pytest.mark.parametrize("name", " ".join(NAMES).split())
def test_what_is_known_of_keras_is_what_it_does(name):
    function = activations.get(name)
    assert (
        _found_by_running(function, (None, 8), 1).kind is (KNOWN[id(function)])
    )


def bent_at(size):
    return lambda x: ops.where(ops.abs(x) < size, 0.0, x)


# Each is something else at some numbers or channels alone.
NEARLY_HOMOGENEOUS = {
    "a bend near 0": bent_at(1e-8),
    "a bend far away": lambda x: ops.clip(x, -1e12, 1e12),
    "a smooth bend": lambda x: ops.softplus(x * 1e4) / 1e4,
    "rounded": lambda x: ops.cast(ops.cast(x, "bfloat16"), x.dtype),
    "homogeneous for powers of two": (
        lambda x: 2 ** ops.floor(ops.log2(ops.abs(x) + 1e-30))
    ),
}
NEARLY_ELEMENTWISE = {
    "from channel 10 on": lambda x: ops.concatenate(
        [ops.relu(x[..., :10]), x[..., 10:]], axis=-1
    ),
    "the last channel": lambda x: ops.concatenate(
        [x[..., :-1], 2 * x[..., -1:]], axis=-1
    ),
    "by number": lambda x: x * ops.arange(x.shape[-1], dtype=x.dtype),
    "where others are large": lambda x: ops.where(
        ops.max(x, axis=-1, keepdims=True) > 1e6, x / 2, x
    ),
    "of a small share": lambda x: (
        x + 1e-6 * ops.mean(x, axis=-1, keepdims=True)
    ),
    "shuffled": lambda x: ops.roll(x, 8, axis=-1),
}


@pytest.mark.parametrize("name", NEARLY_HOMOGENEOUS)
def test_what_is_nearly_homogeneous(name):
    function = NEARLY_HOMOGENEOUS[name]
    assert Behaviours().of(function, (None, 4)).kind is Kind.ELEMENTWISE


@pytest.mark.parametrize("name", NEARLY_ELEMENTWISE)
@pytest.mark.parametrize("shape", [(None, 24), (None, None, 56, 24)])
def test_what_is_nearly_elementwise(name, shape):
    kind = Behaviours().of(NEARLY_ELEMENTWISE[name], shape).kind
    assert kind in (Kind.MIXING, Kind.NORMALIZING)


def test_layers_of_low_precision():
    for policy in ("mixed_bfloat16", "float16"):
        for layer, kind in (
            (layers.ReLU(dtype=policy), Kind.RELU),
            (layers.LeakyReLU(0.1, dtype=policy), Kind.HOMOGENEOUS),
            (layers.ReLU(6.0, dtype=policy), Kind.ELEMENTWISE),
        ):
            assert Behaviours().of(layer, (None, 4)).kind is kind


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * ops.array([1, 2], "float32"),
        lambda x: ops.cumsum(x, axis=-1),
    ],
)
def test_two_channels_that_are_not_alike(function):
    assert Behaviours().of(function, (None, 3, 2)).kind is Kind.MIXING


def fails(x):
    raise KeyError("no such thing")


RNG = np.random.default_rng(0)
STATE = keras.Variable(1.0, name="slope")
REASONS = {
    "reads the variable": lambda x: x * STATE,
    "seed_generator_state, which can change": layers.GaussianNoise(1.0, seed=0),
    "something else each time": lambda x: x * RNG.uniform(),
    "raises KeyError: 'no such thing'": fails,
    "it makes (171, 12)": lambda x: x[..., ::2],
    "not built yet": layers.PReLU(),
    "the samples of a batch": lambda x: ops.flip(x, 0),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_cannot_be_told_is_said(reason):
    function = REASONS[reason]
    if isinstance(function, layers.GaussianNoise):
        function = functools.partial(function, training=True)
    found = Behaviours().of(function, (None, 24))
    assert found.kind is Kind.UNKNOWN
    assert reason in found.reason


def test_to_look_changes_nothing():
    noise = layers.GaussianNoise(1.0, seed=0)
    before = models.numpy(noise.seed_generator.state)
    assert noise.losses == []
    regularized = layers.ActivityRegularization(1.0)
    Behaviours().of(functools.partial(noise, training=True), (None, 4))
    assert Behaviours().of(regularized, (None, 4)).kind is Kind.LINEAR
    assert (models.numpy(noise.seed_generator.state) == before).all()
    assert regularized.losses == []


# --- in models --------------------------------------------------------------


def leaky():
    return layers.LeakyReLU(0.1)


def network(*hidden, shape=(7, 6)):
    inputs = x = keras.Input(shape)
    for layer in hidden:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


SAVED = {
    "layer": lambda: [layers.Dense(8, leaky())],
    "keras.ops": lambda: [layers.Conv1D(8, 3, activation=ops.relu)],
    "depthwise": lambda: [
        layers.Conv1D(8, 3),
        layers.DepthwiseConv1D(3, activation=leaky()),
    ],
    "separable": lambda: [layers.SeparableConv1D(8, 3, activation=leaky())],
    "transposed": lambda: [layers.Conv1DTranspose(8, 3, activation=leaky())],
    "over time": lambda: [layers.TimeDistributed(layers.Dense(8, leaky()))],
    "recurrent": lambda: [layers.LSTM(8, activation=leaky())],
    "behind": lambda: [layers.Dense(8), layers.Activation(leaky())],
    "both ways": lambda: [
        layers.Bidirectional(layers.GRU(8, activation=leaky()))
    ],
}


class OwnDense(layers.Dense):
    """A subclass that adds nothing has the rule of its base class."""


NOT_SAVED = {
    "own": lambda: [OwnDense(8, SMALL_SLOPE)],
    "own lambda": lambda: [OwnDense(8, lambda x: ops.tanh(x) + x)],
    "unhashable": lambda: [layers.Dense(8, Scaled(0.5))],
    "method": lambda: [layers.Dense(8, Bounded().bounded)],
    "lambda": lambda: [layers.Dense(8, lambda x: ops.tanh(x) + x)],
    "partial": lambda: [layers.SimpleRNN(8, activation=SMALL_SLOPE)],
    "recurrent": lambda: [
        layers.LSTM(
            8,
            activation=Bounded().bounded,
            recurrent_activation=functools.partial(
                ops.clip, x_min=0.0, x_max=1.0
            ),
        )
    ],
    "behind": lambda: [layers.Dense(8), layers.Activation(SMALL_SLOPE)],
    "over time": lambda: [layers.TimeDistributed(layers.Dense(8, SMALL_SLOPE))],
    "einsum": lambda: [
        layers.EinsumDense(
            "abc,cd->abd", (7, 8), bias_axes="d", activation=SMALL_SLOPE
        )
    ],
}


@pytest.mark.parametrize("name", SAVED)
def test_copies_go_and_the_model_is_saved(name, tmp_path):
    assert_copies_go(network(*SAVED[name]()), tmp_path)


@pytest.mark.filterwarnings("ignore:Keras does not open the new model again")
@pytest.mark.parametrize("name", NOT_SAVED)
def test_copies_go_where_keras_cannot_save(name):
    assert_copies_go(network(*NOT_SAVED[name]()))


def test_copies_go_behind_functions_of_the_backend():
    for function in natives():
        assert_copies_go(network(layers.Dense(8, function)))


def test_copies_go_from_a_convolution_over_time():
    cell = layers.ConvLSTM2D(6, 2, activation=SMALL_SLOPE)
    assert_copies_go(network(cell, shape=(3, 4, 4, 2)))


def small_of_parallel_filters(activation):
    """What is left at tau = 1 of a filter, three times it, and others."""
    model = network(layers.Dense(8, activation, use_bias=False, name="one"))
    models.randomized(model)
    layer = model.get_layer("one")
    kernel = models.numpy(layer.kernel)
    kernel[:, 1] = 3 * kernel[:, 0]
    layer.kernel.assign(kernel)
    small = kr.prune(model, 0.9999)
    data = models.random_inputs(model)
    return small.get_layer("one").units, model, small, data


@pytest.mark.parametrize(
    "activation", [ops.relu, Scaled(-2.0), SMALL_SLOPE, ops.abs]
)
def test_a_scaled_copy_goes_behind_what_is_homogeneous(activation):
    units, model, small, data = small_of_parallel_filters(activation)
    assert units == 7
    models.assert_same_function(model, small, data)


def test_what_normalises_can_be_asked_for():
    model = network(layers.Dense(8, lambda x: ops.softmax(x / 2), name="own"))
    frozen, _ = (s for s in kr.trace(model).spaces if s.producers)
    assert "normalises over the channels (<lambda>)" in frozen.frozen
    assert "with allow_inexact=True" in frozen.frozen
    found, _ = (
        s for s in kr.trace(model, allow_inexact=True).spaces if s.producers
    )
    assert found.frozen is None


def test_the_activation_is_the_same_object_but_for_layers():
    scaled = Scaled(0.5)
    model = network(layers.Dense(8, scaled), layers.Dense(5, leaky()))
    small = kr.prune(models.randomized(model), ratio=0.5)
    assert small.layers[1].activation is scaled
    old, new = (m.layers[2].activation for m in (model, small))
    assert old is not new
    assert new.negative_slope == old.negative_slope


def test_an_activation_with_weights_stays_as_it_is():
    """It is built where the model is first run on numbers."""
    model = network(layers.Dense(8, layers.PReLU(), name="own"))
    data = models.random_inputs(model)
    model(data)
    alpha = model.get_layer("own").activation.alpha
    alpha.assign(np.linspace(0, 1, 56).reshape(7, 8))
    with pytest.warns(UserWarning, match="reads the variable .*alpha"):
        small = kr.prune(model, ratio=0.5)
    models.assert_same_function(model, small, data, tolerance=0)
    assert small.count_params() == model.count_params()
    assert small.get_layer("own").activation.alpha is not alpha


# --- where nothing can go ---------------------------------------------------


def frozen():
    return network(layers.Dense(8, lambda x: ops.flip(x, -1), name="own"))


def test_prune_warns_where_nothing_can_go():
    with pytest.warns(UserWarning, match="Nothing can go") as seen:
        kr.prune(frozen(), 0.5)
    (warning,) = (x for x in seen if x.category is UserWarning)
    assert warning.filename == __file__
    text = str(warning.message)
    assert "the units of own stay, since the activation <lambda> of" in text
    assert "it mixes the channels" in text
    assert "explain()" in text


def test_prune_warns_where_all_units_are_outputs():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="top")])
    with pytest.warns(UserWarning, match="of top stay, since it is an output"):
        kr.prune(model, 0.5)


def test_prune_warns_where_there_are_no_units():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU()])
    with pytest.warns(UserWarning, match="no layer of it has units"):
        kr.prune(model, 0.5)


def test_prune_does_not_warn_where_units_could_go():
    model = models.randomized(network(layers.Dense(8, "relu", name="one")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kr.prune(model, 0.9999)
        kr.prune(model, 0.5, skip="one")
        kr.prune(model, 0.5, min_units=8)
        kr.plan(frozen(), 0.5).apply()
