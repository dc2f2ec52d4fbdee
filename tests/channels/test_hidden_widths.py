"""`hidden_widths`: rules that follow widths inside a layer."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.channels.own_layers import (
    Parts,
    names_and_sizes,
    serializable,
    traced,
)
from tests.rule_checks import assert_copies_go, between

pytestmark = pytest.mark.usefixtures("rules_of_one_test")


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


def test_what_data_does_not_show_is_left_alone_with_a_reason():
    kr.register_rule(TransformerBlock, HIDDEN)
    model = models.randomized(between(TransformerBlock(4, 12, name="block")))
    data = models.random_inputs(model, batch=50)

    def inside_of(plan):
        return next(d for d in plan.decisions if d.space.size == 12)

    plan = kr.plan(model, ratio=0.5, data=data)
    assert len(inside_of(plan).selection.kept) == 12
    assert "inside of layers" in inside_of(plan).reason
    merged = kr.plan(model, ratio=0.5, data=data, select="l1")
    assert len(inside_of(merged).selection.kept) == 6
    merged.apply()


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


# --- mistakes ---------------------------------------------------------------


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
