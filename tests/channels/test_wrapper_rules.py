"""Wrappers: a layer in a layer, made anew around a new one."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.channels import Role
from tests import models
from tests.rule_checks import assert_copies_go, between, prune


def image_model(width=16):
    inputs = keras.Input((5, 5, width))
    x = layers.Conv2D(9, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(8)(x), name="frame")


TIMED = {
    "dense": (lambda: layers.Dense(8, activation="relu"), (5, 20), [8]),
    "convolution": (lambda: layers.Conv2D(8, 3), (3, 4, 4, 20), [8]),
    "normalisation": (lambda: layers.BatchNormalization(), (3, 20), []),
    "flatten": (lambda: layers.Flatten(), (3, 4, 20), []),
    "recurrent": (lambda: layers.GRU(8), (3, 4, 20), [8]),
    "model": (image_model, (3, 5, 5, 20), [9, 8]),
    "wrapper": (
        lambda: layers.TimeDistributed(layers.Dense(8)),
        (2, 3, 4, 20),
        [8],
    ),
    "normalised": (
        lambda: layers.SpectralNormalization(layers.Dense(8)),
        (5, 20),
        [8],
    ),
}


@pytest.mark.parametrize("name", TIMED)
def test_planted_copies_go_over_time(name, tmp_path):
    inner, shape, widths = TIMED[name]
    model = between(layers.TimeDistributed(inner()), shape)
    graph = assert_copies_go(model, tmp_path)
    assert [space.size for space in graph.prunable] == [16, *widths]


EVERYTHING = {"return_sequences": True, "return_state": True}
BOTH = {
    "concat": (lambda: layers.LSTM(8, return_sequences=True), "concat"),
    "sum": (lambda: layers.GRU(8), "sum"),
    "ave": (lambda: layers.LSTM(8, **EVERYTHING), "ave"),
    "mul": (lambda: layers.SimpleRNN(8), "mul"),
    "none": (lambda: layers.GRU(8, **EVERYTHING), None),
}


@pytest.mark.parametrize("name", BOTH)
def test_planted_copies_go_in_both_directions(name, tmp_path):
    inner, mode = BOTH[name]
    layer = layers.Bidirectional(inner(), merge_mode=mode, name="both")
    graph = assert_copies_go(between(layer), tmp_path)
    assert {s.name: s.size for s in graph.prunable} == {"before": 16, "both": 8}


def test_two_layers_of_different_kinds(tmp_path):
    layer = layers.Bidirectional(
        layers.GRU(8, return_sequences=True),
        backward_layer=layers.LSTM(
            8, return_sequences=True, go_backwards=True, use_bias=False
        ),
    )
    assert_copies_go(between(layer), tmp_path)
    layer = layers.Bidirectional(layers.ConvLSTM1D(8, 3))
    assert_copies_go(between(layer, (3, 5, 20)))


def test_units_of_both_directions_lie_on_one_axis_behind():
    model = between(layers.Bidirectional(layers.LSTM(8), name="both"))
    _, both = kr.trace(model).prunable
    top = [a for a in both.axes_of(Role.CONSUMER) if a.on.layer.name == "top"]
    assert sorted(top[0].positions[2]) == [2, 10]
    assert len(both.axes_of(Role.PRODUCER)) == 4


def test_states_masks_and_lengths_go_through(tmp_path):
    words = keras.Input((None,), dtype="int32")
    x = layers.Embedding(30, 16, mask_zero=True, name="words")(words)
    x = layers.TimeDistributed(layers.Dense(12, name="step"))(x)
    lstm = layers.LSTM(8, **EVERYTHING)
    x, *states = layers.Bidirectional(lstm, name="first")(x)
    x = layers.Bidirectional(layers.LSTM(8), name="second")(
        x, initial_state=states
    )
    model = keras.Model(words, layers.Dense(3)(x))
    data = np.array([[1, 2, 0], [3, 4, 5]])
    graph = assert_copies_go(model, tmp_path, data=data)
    assert {space.name: space.size for space in graph.prunable} == {
        "words": 16,
        "step": 12,
        "first + second": 8,
    }
    assert kr.plan(model, 0.5).flops == (None, None)


NORMALIZED = {
    "dense": (lambda: layers.Dense(8), (5, 20), 8),
    "convolution": (lambda: layers.Conv1D(8, 3), (5, 20), 8),
    "transposed": (lambda: layers.Conv2DTranspose(8, 3), (4, 4, 20), 8),
    "depthwise": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        (4, 4, 20),
        None,
    ),
}


@pytest.mark.parametrize("name", NORMALIZED)
def test_planted_copies_go_with_a_normalised_kernel(name, tmp_path):
    inner, shape, width = NORMALIZED[name]
    layer = layers.SpectralNormalization(inner(), name="normalised")
    model = between(layer, shape)
    graph = assert_copies_go(model, tmp_path)
    assert [s.size for s in graph.prunable][1:] == [width] * bool(width)
    vector = layer.vector_u
    holds = [a for a in graph.axes if a.variable is vector]
    # The last axis of the kernels of the last two is not that of the units.
    assert len(holds) == (name in ("dense", "convolution", "transposed"))


def test_the_vector_of_a_normalised_kernel_still_normalises_it():
    layer = layers.SpectralNormalization(layers.Dense(8), power_iterations=9)
    model = models.randomized(between(layer))
    models.plant(model)
    small = kr.prune(model, 0.9999)
    data = models.random_inputs(model)
    small(data, training=True)
    kernel = models.numpy(small.layers[2].layer.kernel)
    assert np.linalg.norm(kernel, 2) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda: layers.TimeDistributed(layers.Dense(8)),
        lambda: layers.Bidirectional(layers.LSTM(8, return_sequences=True)),
        lambda: layers.SpectralNormalization(layers.Dense(8)),
    ],
)
def test_a_wrapper_that_is_called_twice(wrapper, tmp_path):
    left, right = keras.Input((5, 20)), keras.Input((7, 20))
    dense, shared = layers.Dense(10), wrapper()
    pool = layers.GlobalAveragePooling1D()
    x = [pool(shared(dense(side))) for side in (left, right)]
    model = keras.Model([left, right], layers.Dense(3)(layers.Concatenate()(x)))
    graph = assert_copies_go(model, tmp_path)
    assert sorted(s.size for s in graph.prunable) == [8, 10]


def test_flops_count_every_step():
    timed = layers.TimeDistributed(layers.Conv2D(8, 3))
    model = between(timed, (3, 4, 4, 20))
    rest = 3 * 16 * 20 * 16 + 3 * 4 * 8 * 3
    assert kr.flops(model) == rest + 3 * 4 * 9 * 16 * 8
    model = between(layers.Bidirectional(layers.GRU(8)))
    rest = 5 * 20 * 16 + 16 * 3
    assert kr.flops(model) == rest + 2 * 5 * (16 * 24 + 8 * 24)


def test_a_report_has_one_row_for_both_directions():
    model = models.randomized(
        between(layers.Bidirectional(layers.LSTM(8), name="both"))
    )
    models.plant(model)
    row = kr.analyze(model, 0.9999).layers[1]
    assert (row.layer, row.part, row.n, row.n_r) == ("both", None, 8, 2)
    assert row.parameters == model.get_layer("both").count_params()


# --- what the smaller model keeps -------------------------------------------


def test_flags_and_names_of_inner_layers_survive(tmp_path):
    both = layers.Bidirectional(layers.LSTM(8, return_sequences=True))
    timed = layers.TimeDistributed(layers.Dense(9, name="inner"), name="outer")
    frame = layers.TimeDistributed(image_model(9), name="frames")
    inputs = keras.Input((4, 20))
    x = layers.Reshape((4, 5, 5, 9))(layers.Dense(225)(timed(both(inputs))))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(frame(x))))
    both.backward_layer.trainable = False
    timed.layer.trainable = False
    frame.layer.layers[2].trainable = False
    small = kr.prune(model, 0.5, layers="inner|frame|bid|conv.*")
    assert [v.path for v in small.weights] == [v.path for v in model.weights]
    small.save(tmp_path / "small.keras")
    for result in (small, keras.models.load_model(tmp_path / "small.keras")):
        assert [v.name for v in result.trainable_variables] == [
            v.name for v in model.trainable_variables
        ]
        outer = result.get_layer("outer")
        assert (outer.trainable, outer.layer.trainable) == (True, False)
        assert outer.layer.name == "inner"
        both = result.layers[1]
        assert both.forward_layer.trainable
        assert not both.backward_layer.trainable
        assert [x.name for x in (both.forward_layer, both.backward_layer)] == [
            "forward_lstm",
            "backward_lstm",
        ]
        flags = [x.trainable for x in result.get_layer("frames").layer.layers]
        assert flags == [True, True, False, True, True, True]


def test_initializers_that_hold_arrays():
    table = keras.initializers.Constant(np.ones((16, 24), "float32"))
    layer = layers.Bidirectional(layers.GRU(8, kernel_initializer=table))
    model = models.randomized(between(layer))
    models.plant(model)
    small = kr.prune(model, 0.9999)
    models.assert_same_function(model, small)
    cell = small.layers[2].backward_layer.cell
    assert cell.kernel.shape == (12, 18)
    assert isinstance(cell.kernel_initializer, keras.initializers.Zeros)


# --- what is left alone -----------------------------------------------------


@keras.saving.register_keras_serializable(__name__)
class Padded(layers.Wrapper):
    def call(self, x):
        return self.layer(x)


def permuted(x):
    x = layers.Permute((2, 1))(x)
    return layers.TimeDistributed(layers.Dense(8))(x)


def unequal(x):
    layer = layers.Bidirectional(
        layers.GRU(8),
        merge_mode=None,
        backward_layer=layers.GRU(9, go_backwards=True),
    )
    return layer(x)[0]


def half_constant_state(x):
    state = [np.ones((4, 8), "float32"), layers.Dense(8)(x[:, 0])]
    return layers.Bidirectional(layers.GRU(8))(x, initial_state=state)


UNFOLLOWED = {
    "unknown inside": (
        layers.TimeDistributed(layers.RNN(layers.GRUCell(8))),
        (3, 4, 20),
        "runs a cell of its own",
    ),
    "over time": (permuted, (5, 20), "along the axis that holds the channels"),
    "unequal": (unequal, (5, 20), "wraps two layers of unequal width"),
    "stateful": (
        layers.Bidirectional(layers.LSTM(8, stateful=True)),
        (5, 20),
        "forward_lstm (LSTM) is stateful",
    ),
    "state": (half_constant_state, (5, 20), "the initial state of"),
}


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_what_is_left_alone(name):
    layer, shape, reason = UNFOLLOWED[name]
    if isinstance(layer, keras.Layer):
        layer = type(layer).from_config(layer.get_config())
    model = models.randomized(between(layer, shape, batch_size=4))
    reasons = {space.name: space.frozen for space in kr.trace(model).spaces}
    assert reason in reasons["before"]
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)


def test_a_wrapper_of_ones_own_is_looked_into():
    inputs = keras.Input((5, 20))
    x = layers.Dense(8, name="before")(inputs)
    x = layers.Flatten()(Padded(layers.Dense(8))(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    models.plant(model)
    small = prune(model, 0.9999)
    assert small.get_layer("before").units < 8
    models.assert_same_function(model, small)


def test_a_layer_inside_and_outside_of_a_wrapper_is_refused():
    inner = layers.Dense(8, name="inner")
    inputs = keras.Input((5, 8))
    x = layers.TimeDistributed(inner)(inner(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="share the variable"):
        kr.plan(model, 0.5)
