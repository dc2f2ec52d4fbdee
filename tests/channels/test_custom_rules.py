"""Rules of a user's own, which look inside layers."""

import inspect
import textwrap

import keras
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import Channels
from tests import models
from tests.channels.own_layers import (
    Pair,
    Parts,
    names_and_sizes,
    serializable,
    traced,
)
from tests.rule_checks import assert_copies_go, between, prune

pytestmark = pytest.mark.usefixtures("rules_of_one_test")


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
    y = kr.Channels(call.tied(y.ids), y.axis, y.shape)  # gelu
    y = call.through(layer.widen, y, sets={"filters": "filters"})
    z = call.through(layer.skip, x, sets={"filters": "filters"})
    return kr.Channels(call.tied(y.ids, z.ids), y.axis)


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


@pytest.mark.parametrize("returned", [None, 5, [], ["ids"]])
def test_a_rule_has_to_return_channels(returned):
    with pytest.raises(TypeError, match="has to return the Channels"):
        traced(lambda layer, call: returned)


class NoConfig(Pair):
    def __init__(self, table, **options):
        super().__init__(9, **options)
        self.table = table

    get_config = layers.Layer.get_config


@pytest.mark.filterwarnings("ignore:Keras does not open the new model again")
def test_a_layer_without_a_config_stays():
    kr.register_rule(NoConfig, kr.hidden_widths(hidden=("expand", "project")))
    model = models.randomized(between(NoConfig(object(), name="own")))
    graph = kr.trace(model)
    assert not graph.prunable
    assert {space.reason_code for space in graph.spaces} >= {"no_config"}
    with pytest.warns(UserWarning, match="Nothing can go"):
        small = kr.prune(model, ratio=0.5)
    assert small.get_layer("own").table is model.get_layer("own").table
    models.assert_same_function(model, small)
