"""Layers of a user's own: `hidden_widths`, and rules that look inside."""

import inspect
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import Channels
from keras_redundancy.channels.rules import registry
from tests import models
from tests.rule_checks import assert_copies_go, prune

serializable = keras.saving.register_keras_serializable("tests")


@pytest.fixture(autouse=True)
def _rules_of_one_test():
    """What a test registers is forgotten after it."""
    before = dict(registry.rule.registry)
    yield
    for cls in set(registry.rule.registry) - set(before):
        registry.rule.register(cls)(registry.rule.registry[object])


def names_and_sizes(graph):
    return {space.name: space.size for space in graph.prunable}


def between(layer, shape=(5, 20), **options):
    """A model in which `layer` reads 16 units and is read by a kernel."""
    inputs = keras.Input(shape, **options)
    x = layers.Dense(16, activation="relu", name="before")(inputs)
    x = layers.Flatten()(layer(x))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


class Parts(layers.Layer):
    """A layer whose constructor's arguments are its attributes."""

    arguments = ()

    def get_config(self):
        own = {name: getattr(self, name) for name in self.arguments}
        return {**super().get_config(), **own}


# --- hidden widths ----------------------------------------------------------


@serializable
class TransformerBlock(Parts):
    """Attention and a feed-forward part, each with its normalisation."""

    arguments = ("num_heads", "ff_dim")

    def __init__(self, num_heads, ff_dim, **options):
        super().__init__(**options)
        self.num_heads, self.ff_dim = num_heads, ff_dim
        self.attention = layers.MultiHeadAttention(num_heads, 4)
        self.expand = layers.Dense(ff_dim, name="expand")
        self.dropout = layers.Dropout(0.2)
        self.project = layers.Dense(16, name="project")
        self.norms = [layers.LayerNormalization() for _ in "ab"]

    def build(self, shape):
        self.attention.build(shape, shape)
        self.expand.build(shape)
        self.project.build((*shape[:-1], self.ff_dim))
        for norm in self.norms:
            norm.build(shape)
        self.built = True

    def call(self, x, training=None):
        x = self.norms[0](x + self.attention(x, x))
        y = keras.ops.gelu(self.expand(x))
        y = self.project(self.dropout(y, training=training))
        return self.norms[1](x + y)


HIDDEN = kr.hidden_widths(
    ff_dim=("expand", "dropout", "project"), num_heads="attention"
)


def test_hidden_channels_and_heads_go(tmp_path):
    kr.register_rule(TransformerBlock, HIDDEN)
    first, second = (
        TransformerBlock(7, 12, name="a"),
        TransformerBlock(6, 14, name="b"),
    )
    graph = assert_copies_go(between(lambda x: second(first(x))), tmp_path)
    assert names_and_sizes(graph) == {
        "a (expand)": 12,
        "a (query, key, value)": 7,
        "b (expand)": 14,
        "b (query, key, value)": 6,
    }
    reasons = {space.name: space.frozen for space in graph.spaces}
    assert "channels hidden inside" in reasons["before"]
    assert "channels hidden inside" in reasons["a (attention_output)"]
    assert "set the units of its layer project" in reasons["a (project)"]


def test_flops_follow_the_length_of_each_call():
    kr.register_rule(TransformerBlock, HIDDEN)
    block = TransformerBlock(4, 12)
    left, right = keras.Input((5, 16)), keras.Input((9, 16))
    model = keras.Model([left, right], [block(left), block(right)])
    assert kr.flops(model) == (5 + 9) * (4 * 16 * 16 + 2 * 16 * 12)


def test_weights_outside_of_the_chain_survive():
    kr.register_rule(TransformerBlock, HIDDEN)
    block = TransformerBlock(7, 12, name="block")
    model = models.randomized(between(block))
    block.expand.trainable = False
    small = kr.prune(model, 0.2).get_layer("block")
    assert small.ff_dim < 12
    assert not small.expand.trainable
    assert small.project.trainable
    for old, new in zip(block.norms, small.norms, strict=True):
        for before, after in zip(old.weights, new.weights, strict=True):
            assert np.array_equal(models.numpy(before), models.numpy(after))


@serializable
class Nested(Parts):
    """Its layers lie in a Sequential model, in a wrapper and beside them."""

    arguments = ("width", "units")

    def __init__(self, width, units, **options):
        super().__init__(**options)
        self.width, self.units = width, units
        self.ffn = keras.Sequential(
            [layers.Dense(width, "relu", name="in"), layers.Dense(16)]
        )
        self.step = layers.TimeDistributed(layers.Dense(units, name="step"))
        self.both = layers.Bidirectional(
            layers.GRU(units, return_sequences=True), merge_mode="sum"
        )
        self.last = layers.Dense(16, name="last")

    def build(self, shape):
        self.ffn.build(shape)
        self.step.build(shape)
        self.both.build((*shape[:-1], self.units))
        self.last.build((*shape[:-1], self.units))
        self.built = True

    def call(self, x):
        return self.last(self.both(self.step(self.ffn(x))))


def test_names_lead_into_models_and_wrappers(tmp_path):
    rule = kr.hidden_widths(
        width=("ffn.layers.0", "ffn.layers.1"), units=("step", "both", "last")
    )
    kr.register_rule(Nested, rule)
    graph = assert_copies_go(between(Nested(12, 8, name="nested")), tmp_path)
    assert sorted(space.size for space in graph.prunable) == [8, 12]


@serializable
class Gated(Parts):
    """Two layers of one width, which are multiplied and then read."""

    arguments = ("width",)

    def __init__(self, width, **options):
        super().__init__(**options)
        self.width = width
        self.up, self.gate = (layers.Dense(width, name=n) for n in ("u", "g"))
        self.norm = layers.BatchNormalization(name="norm")
        self.down = layers.Dense(16, name="d")

    def build(self, shape):
        self.up.build(shape)
        self.gate.build(shape)
        self.norm.build((*shape[:-1], self.width))
        self.down.build((*shape[:-1], self.width))
        self.built = True

    def call(self, x):
        gate = keras.ops.silu(self.gate(x))
        return self.down(self.norm(self.up(x) * gate))


def test_several_chains_of_one_width_go_together(tmp_path):
    chains = [("up", "norm", "down"), ("gate", "norm", "down")]
    kr.register_rule(Gated, kr.hidden_widths(width=chains))
    graph = assert_copies_go(between(Gated(11, name="ffn")), tmp_path)
    assert names_and_sizes(graph) == {"ffn (u, g)": 11}


def test_a_width_that_the_rule_forgets_is_told():
    kr.register_rule(Gated, kr.hidden_widths(width=("up", "down")))
    model = models.randomized(between(Gated(11, name="ffn")))
    with pytest.raises(ValueError, match=r"'ffn' \(Gated\).*skip="):
        kr.prune(model, 0.1)
    same = kr.prune(model, 0.1, skip="ffn")
    assert same.get_layer("ffn").width == 11


# --- rules written by hand --------------------------------------------------


@serializable
class ResidualBlock(Parts):
    arguments = ("filters", "hidden")

    def __init__(self, filters, hidden, **options):
        super().__init__(**options)
        self.filters, self.hidden = filters, hidden
        self.narrow = layers.Conv2D(hidden, 1, name="narrow")
        self.normalize = layers.BatchNormalization()
        self.widen = layers.Conv2D(filters, 3, padding="same", name="widen")
        self.skip = layers.Conv2D(filters, 1, name="skip")

    def build(self, shape):
        self.narrow.build(shape)
        inside = (*shape[:-1], self.hidden)
        self.normalize.build(inside)
        self.widen.build(inside)
        self.skip.build(shape)
        self.built = True

    def call(self, x, training=None):
        y = self.normalize(self.narrow(x), training=training)
        return self.widen(keras.ops.gelu(y)) + self.skip(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.filters)


def residual_block(layer, call):
    x = call.inputs[0]
    y = call.through(layer.narrow, x, sets={"filters": "hidden"})
    y = call.through(layer.normalize, y)
    y = Channels(call.tied(y.ids), y.axis, y.shape)  # gelu
    y = call.through(layer.widen, y, sets={"filters": "filters"})
    z = call.through(layer.skip, x, sets={"filters": "filters"})
    return Channels(call.tied(y.ids, z.ids), y.axis)


def test_the_example_of_the_documentation(tmp_path):
    source = textwrap.indent(inspect.getsource(residual_block), " " * 8)
    assert source in kr.register_rule.__doc__
    kr.register_rule(ResidualBlock)(residual_block)
    first = ResidualBlock(9, 8, name="first")
    second = ResidualBlock(10, 7, name="second")
    model = between(lambda x: second(first(x)), (4, 4, 20))
    graph = assert_copies_go(model, tmp_path)
    assert names_and_sizes(graph) == {
        "before": 16,
        "first (narrow)": 8,
        "first (widen, skip)": 9,
        "second (narrow)": 7,
        "second (widen, skip)": 10,
    }
    work = 16 * (16 * 8 + 9 * 8 * 9 + 16 * 9)
    work += 16 * (9 * 7 + 9 * 7 * 10 + 9 * 10)
    assert kr.flops(model) == work + 16 * 20 * 16 + 160 * 3


def test_a_report_has_a_row_for_every_width():
    kr.register_rule(ResidualBlock, residual_block)
    model = models.randomized(
        between(ResidualBlock(9, 8, name="block"), (4, 4, 20))
    )
    models.plant(model)
    rows = kr.analyze(model, 0.9999).layers[1:3]
    assert [(row.title, row.n, row.n_r) for row in rows] == [
        ("block (narrow)", 8, 2),
        ("block (widen, skip)", 9, 2),
    ]
    assert rows[0].parameters == model.get_layer("block").count_params()
    assert rows[1].parameters is None


def test_in_a_wrapper_and_called_twice(tmp_path):
    kr.register_rule(ResidualBlock, residual_block)
    block = ResidualBlock(16, 8, name="block")
    model = between(lambda x: block(block(x)), (4, 4, 20))
    graph = assert_copies_go(model, tmp_path)
    assert names_and_sizes(graph) == {
        "before + block (widen, skip)": 16,
        "block (narrow)": 8,
    }
    timed = layers.TimeDistributed(ResidualBlock(9, 8, name="inner"))
    graph = assert_copies_go(between(timed, (2, 4, 4, 20)), tmp_path)
    assert names_and_sizes(graph) == {
        "before": 16,
        "inner (narrow)": 8,
        "inner (widen, skip)": 9,
    }


@serializable
class Stage(Parts):
    """A composite layer in a composite layer."""

    arguments = ("filters", "squeezed")

    def __init__(self, filters, squeezed, **options):
        super().__init__(**options)
        self.filters, self.squeezed = filters, squeezed
        self.block = ResidualBlock(filters, squeezed, name="block")

    def build(self, shape):
        self.block.build(shape)
        self.built = True

    def call(self, x):
        return self.block(x)


def test_a_composite_layer_inside_another(tmp_path):
    kr.register_rule(ResidualBlock, residual_block)
    sets = {"filters": "filters", "hidden": "squeezed"}

    @kr.register_rule(Stage)
    def stage(layer, call):
        return call.through(layer.block, *call.inputs, sets=sets)

    model = between(Stage(9, 8, name="stage"), (4, 4, 20))
    graph = assert_copies_go(model, tmp_path)
    assert names_and_sizes(graph) == {
        "before": 16,
        "stage (narrow)": 8,
        "stage (widen, skip)": 9,
    }
    del sets["hidden"]
    reasons = {space.name: space.frozen for space in kr.trace(model).spaces}
    assert "set the filters of its layer narrow" in reasons["stage (narrow)"]
    assert reasons["stage (widen, skip)"] is None


@serializable
class HoldsModel(Parts):
    arguments = ("units",)

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        first = layers.Dense(units, activation="relu")
        self.inner = keras.Sequential(
            [keras.Input((5, 16)), first, layers.Dense(16)]
        )

    def build(self, shape):
        self.built = True

    def call(self, x):
        return self.inner(x)


def test_a_model_that_a_constructor_makes_keeps_its_widths():
    sets = {}

    @kr.register_rule(HoldsModel)
    def holds_model(layer, call):
        return call.through(layer.inner, *call.inputs, sets=sets)

    model = models.randomized(between(HoldsModel(9, name="holds")))
    reasons = {space.name: space.frozen for space in kr.trace(model).spaces}
    assert "makes a model of its own" in reasons["before"]
    assert None not in reasons.values()
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)
    sets["units"] = "units"
    with pytest.raises(ValueError, match="one layer of it after the other"):
        kr.trace(model)


# --- mistakes ---------------------------------------------------------------


class Pair(Parts):
    arguments = ("hidden", "out")

    def __init__(self, hidden, out=16, **options):
        super().__init__(**options)
        self.hidden, self.out = hidden, out
        self.expand = layers.Dense(hidden, name="expand")
        self.project = layers.Dense(out, name="project")
        self.spare = layers.Dense(3)

    def build(self, shape):
        self.expand.build(shape)
        self.project.build((*shape[:-1], self.hidden))
        self.built = True

    def call(self, x):
        return self.project(keras.ops.relu(self.expand(x)))


def traced(rule):
    kr.register_rule(Pair, rule)
    return kr.trace(between(Pair(9, name="pair")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": ("expnd", "project")}, "'expnd'.*holds no Keras layer"),
        ({"hidden": ("hidden", "project")}, "'hidden'.*holds no Keras layer"),
        ({"hidden": ("expand.7", "project")}, "'expand.7'.*no Keras layer"),
        ({"hiden": ("expand", "project")}, "'hiden'.*has no such entry"),
        ({"hidden": "expand"}, "names one layer for hidden.*no num_heads"),
    ],
)
def test_mistakes_in_the_names_are_told(arguments, message):
    rule = kr.hidden_widths(**arguments)
    with pytest.raises(ValueError, match=message):
        traced(rule)


def test_a_layer_that_was_never_built_is_left_alone():
    graph = traced(kr.hidden_widths(hidden=("spare", "project")))
    assert graph.prunable == []
    reasons = {space.name: space.frozen for space in graph.spaces}
    assert "on what shape it was built" in reasons["before"]


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ({"out": ("expand", "project")}, "pair (expand)", "out of pair"),
        ({"hidden": ("project", "expand")}, "pair (project)", "hidden of pair"),
    ],
)
def test_an_argument_of_another_value_freezes(arguments, name, value):
    graph = traced(kr.hidden_widths(**arguments))
    assert graph.prunable == []
    reasons = {space.name: space.frozen for space in graph.spaces}
    assert f"the argument {value} (Pair) is" in reasons[name]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ValueError),
        ({"ff_dim": ()}, ValueError),
        ({"ff_dim": 3}, TypeError),
        ({"ff_dim": ["expand", 3]}, TypeError),
        ({"ff_dim": None}, TypeError),
    ],
)
def test_what_hidden_widths_refuses(arguments, error):
    with pytest.raises(error, match=r"hidden_widths\("):
        kr.hidden_widths(**arguments)


def test_without_sets_inner_widths_stay():
    def rule(layer, call):
        return call.through(
            layer.project, call.through(layer.expand, *call.inputs)
        )

    graph = traced(rule)
    assert [space.name for space in graph.prunable] == ["before"]
    reasons = {space.name: space.frozen for space in graph.spaces}
    assert "no argument of pair (Pair)" in reasons["pair (expand)"]


def test_rules_that_mix_up_their_layers_are_told():
    def unknown(layer, call):
        return call.through(layer.expand, *call.inputs, sets={"units": "width"})

    with pytest.raises(ValueError, match="'width' sets a width, but"):
        traced(unknown)

    def unbuilt(layer, call):
        return call.through(layer.spare, *call.inputs)

    with pytest.raises(ValueError, match="which is not built"):
        traced(unbuilt)

    def misplaced(layer, call):
        call.carried_by(layer.expand.bias, 0, call.inputs[0].ids)
        return call.opaque("{name}")

    with pytest.raises(RuntimeError, match=r"16 channels on axis 0 .*'bias'"):
        traced(misplaced)

    def misshapen(layer, call):
        x = call.inputs[0]
        narrow = Channels(x.ids[:7], x.axis, (*x.shape[:-1], 7))
        attention = layers.MultiHeadAttention(2, 3)
        attention.build(x.shape, x.shape)
        return call.through(attention, narrow)

    with pytest.raises(ValueError, match="but such a call fails"):
        traced(misshapen)


class NoConfig(Pair):
    def __init__(self, table, **options):
        super().__init__(9, **options)
        self.table = table

    get_config = layers.Layer.get_config


def test_a_layer_without_a_config_is_refused():
    kr.register_rule(NoConfig, kr.hidden_widths(hidden=("expand", "project")))
    model = models.randomized(between(NoConfig(object(), name="own")))
    assert [space.name for space in kr.trace(model).prunable] == [
        "own (expand)"
    ]
    with pytest.raises(
        ValueError, match=r"'own' \(NoConfig\) cannot be rebuilt"
    ):
        kr.plan(model, 0.5)
