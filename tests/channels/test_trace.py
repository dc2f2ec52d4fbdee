"""What the rules say: which spaces there are, and why others are frozen."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.channels import Role
from tests import models
from tests.rule_checks import prune


def spaces(model):
    return {s.name: s for s in kr.trace(model).spaces if s.producers}


def frozen(model):
    return {name: space.frozen for name, space in spaces(model).items()}


def test_a_chain_has_a_space_per_layer_and_a_frozen_output():
    found = spaces(models.mlp())
    assert {name: s.size for name, s in found.items()} == {
        "dense": 16,
        "dense_1": 10,
        "dense_2": 3,
    }
    assert [s.frozen for s in found.values()] == [
        None,
        None,
        "it is an output of the model",
    ]


def test_a_residual_stream_is_one_space_of_all_its_producers():
    stream = spaces(models.residual())["stem + conv1b + conv2b"]
    assert stream.size == 9
    readers = {a.on.layer.name for a in stream.axes_of(Role.CONSUMER)}
    carriers = {a.on.layer.name for a in stream.axes_of(Role.CARRIER)}
    assert readers == {"conv1a", "conv2a", "top"}
    assert carriers == {"stem", "bn1a", "conv1b", "bn2a", "conv2b"}


def test_flatten_gives_each_unit_all_its_positions():
    model = models.vgg()
    space = spaces(model)["conv2d_1"]
    (reader,) = space.axes_of(Role.CONSUMER)
    assert reader.on.layer.name == "dense"
    assert reader.positions.shape == (10, 16)
    assert np.array_equal(reader.positions[3], 3 + 10 * np.arange(16))


def test_flatten_of_channels_first_moves_them_last():
    inputs = keras.Input((2, 4, 4))
    x = layers.Conv2D(6, 3, data_format="channels_first")(inputs)
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.MaxPooling2D(data_format="channels_first")(x)
    x = layers.ZeroPadding2D(data_format="channels_first")(x)
    x = layers.Flatten(data_format="channels_first")(x)
    model = keras.Model(inputs, layers.Dense(2, name="top")(x))
    space = spaces(model)["conv2d"]
    assert space.frozen is None
    (reader,) = space.axes_of(Role.CONSUMER)
    assert np.array_equal(reader.positions[1], 1 + 6 * np.arange(9))


def test_concatenation_puts_units_on_one_axis_in_two_places():
    inputs = keras.Input((4,))
    x = layers.Dense(5, name="a")(inputs)
    y = layers.Dense(6, name="b")(inputs)
    z = layers.Concatenate()([y, x, x])
    model = keras.Model(inputs, layers.Dense(2, name="top")(z))
    found = spaces(model)
    (reader,) = found["a"].axes_of(Role.CONSUMER)
    assert {tuple(row) for row in reader.positions} == {
        (6 + i, 11 + i) for i in range(5)
    }
    (reader,) = found["b"].axes_of(Role.CONSUMER)
    assert np.array_equal(reader.positions[:, 0], np.arange(6))


def test_a_part_of_a_layer_can_be_tied_to_another_layer():
    """Units of one layer fall into two spaces where only some are added."""
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="x")(inputs)
    y = layers.Dense(4, name="y")(inputs)
    z = layers.Dense(7, name="z")(inputs)
    added = layers.Add()([layers.Concatenate()([x, y]), z])
    model = keras.Model(inputs, layers.Dense(2, name="top")(added))
    found = {
        frozenset(layer.name for layer in s.producers): s.size
        for s in kr.trace(model).prunable
    }
    assert found == {frozenset("xz"): 3, frozenset("yz"): 4}


def test_positions_correspond_by_the_value_they_come_from():
    """a0 a1 | b | a2 a3: the first place of unit 0 is that of a, not of b."""
    inputs = keras.Input((8,))
    a = layers.Dense(4, name="a")(inputs)
    b = layers.Dense(4, name="b")(inputs)
    both = layers.Dense(2, name="both")(layers.Add()([a, b]))
    front = layers.Concatenate()([a, b])
    back = layers.Concatenate()([b, a])
    top = layers.Dense(2, name="top", use_bias=False)
    outputs = layers.Concatenate()([top(front), top(back), both])
    model = models.randomized(keras.Model(inputs, outputs))
    models.plant(model)
    models.assert_same_function(model, kr.prune(model, tau=0.9999))


@keras.saving.register_keras_serializable(__name__)
class Narrowed(layers.Dense):
    """Inherits `call`, but has a weight that the rule does not know."""

    def build(self, shape):
        super().build(shape)
        self.extra = self.add_weight(shape=(self.units,), name="extra")


@keras.saving.register_keras_serializable(__name__)
class Plain(layers.Dense):
    pass


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.Dense(6, "softmax"), "over the channels (softmax)"),
        (layers.Dense(6, lambda x: ops.flip(x, 1)), "not known to act"),
        (layers.Dense(6, lambda x: x), None),
        (Narrowed(6), "has the weights extra"),
        (Plain(6), None),
    ],
)
def test_layers_with_units_of_their_own(layer, reason):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2, name="top")(layer(inputs)))
    graph = kr.trace(model)
    reasons = {space.name: space.frozen for space in graph.spaces}
    reasons |= dict(graph.untouched)
    if reason is None:
        assert reasons[layer.name] is None
    else:
        assert reason in reasons[layer.name]


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (layers.LayerNormalization(), "normalises over the channels"),
        (layers.Softmax(), "normalises over the channels (softmax)"),
        (layers.Activation("log_softmax"), "the channels (log_softmax)"),
        (
            layers.Activation(lambda x: ops.flip(x, 0)),
            "not known to act on every",
        ),
        (layers.RandomFlip(), "there is no rule for random_flip (RandomFlip)"),
        (layers.Dropout(0.5, noise_shape=(1, 1, 1, 8)), "fixed noise_shape"),
        (
            layers.MaxPooling2D(data_format="channels_first"),
            "works on another axis",
        ),
    ],
)
def test_what_freezes_the_channels_before_it(between, reason):
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 3, padding="same", name="before")(inputs)
    x = layers.Flatten()(between(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert reason in frozen(model)["before"]
    same = prune(models.randomized(model), 0.05)
    assert same.get_layer("before").filters == 8
    models.outputs(same, models.random_inputs(model))


def test_a_sum_over_channels_freezes_them():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 3, padding="same", name="before")(inputs)
    x = layers.Flatten()(x + keras.ops.sum(x, axis=-1, keepdims=True))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    assert "(Sum) reduces over the channels" in frozen(model)["before"]
    same = prune(model, 0.05)
    models.assert_same_function(model, same, tolerance=0)


def test_an_addition_with_one_channel_ties_nothing():
    inputs = keras.Input((4, 4, 3))
    wide = layers.Conv2D(8, 1, name="wide")(inputs)
    thin = layers.Conv2D(1, 1, name="thin")(inputs)
    x = layers.Flatten()(layers.Add()([wide, thin]))
    model = keras.Model(inputs, layers.Dense(2, name="top")(x))
    found = spaces(model)
    assert {name: s.size for name, s in found.items()} == {
        "wide": 8,
        "thin": 1,
        "top": 2,
    }
    assert found["wide"].frozen is None
    (reader,) = found["wide"].axes_of(Role.CONSUMER)
    assert reader.on.layer.name == "top"


def test_numbers_beside_a_tensor_do_not_freeze_it():
    inputs = keras.Input((8,))
    x = layers.Dense(9, name="hidden")(inputs)
    x = keras.ops.maximum(2.0 * x - 1, 0.0)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    assert frozen(model)["hidden"] is None
    models.plant(model)
    models.assert_same_function(model, kr.prune(model, tau=0.9999))


class Around(layers.Layer):
    """Calls a layer that it was given, as no rule knows, on numbers alone."""

    def __init__(self, inner, **options):
        super().__init__(**options)
        self.inner = inner

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("numbers alone")
        return self.inner(x)


def test_a_layer_that_is_also_called_out_of_sight_is_frozen():
    """The second call of `tower` goes through a layer without a rule."""
    tower = layers.Dense(8, name="tower")
    inputs = keras.Input((4, 8))
    x = Around(tower, name="around")(inputs)
    x = layers.Flatten()(layers.Concatenate()([x, tower(inputs)]))
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert "around (Around)" in frozen(model)["tower"]


def test_a_variable_channel_size_is_frozen():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, name="open")(inputs)
    x = layers.GlobalMaxPooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert frozen(model)["open"] is None
    small = kr.prune(models.randomized(model), tau=0.05)
    assert small.input_shape == (None, None, None, 3)


def test_render_lists_spaces_and_reasons(capsys):
    text = kr.trace(models.residual()).render()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "stem + conv1b + conv2b" in text
    assert "it is an output of the model" in text
