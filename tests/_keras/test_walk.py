"""The one walk through a model's graph: `Interpreter` and `flat_graph`."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.calibration.observer import Run
from tests import models


class Names(_keras.Interpreter):
    """A tensor's value is the set of the layers that lie before it."""

    def __init__(self):
        self.called, self.seen = [], {}

    def call(self, call, values):
        self.called.append(call)
        before = {name for x in call.inputs for name in values[id(x)]}
        return [before | {call.operation.name}] * len(call.outputs)

    def made(self, x, value, path):
        self.seen[*path, id(x)] = value


def dense(name, units=4):
    return layers.Dense(units, name=name)


def pair(structure):
    """A nested model of two inputs, with the order or the names of these."""
    b, a = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    inputs = {"a": a, "b": b} if structure is dict else structure((b, a))
    return keras.Model(inputs, [dense("of_b")(b), dense("of_a", 5)(a)])


def called_by(way, inner, a, b):
    """What a model with the inputs a and b is called on, in several ways."""
    return {
        "a list": lambda: inner([b, a]),
        "a keyword": lambda: inner(inputs=[b, a]),
        "names": lambda: inner({"a": a, "b": b}),
        "names, by keyword": lambda: inner(inputs={"b": b, "a": a}),
        "a mapping of names": lambda: pair(dict)({"b": b, "a": a}),
        "training": lambda: inner([b, a], training=True),
    }[way]()


WAYS = (
    "a list",
    "a keyword",
    "names",
    "names, by keyword",
    "a mapping of names",
    "training",
)


def around(way):
    """A model that computes b and a, and hands them to a nested one."""
    inputs = [keras.Input((3,), name="left"), keras.Input((3,), name="right")]
    a, b = dense("to_a", 3)(inputs[0]), dense("to_b", 3)(inputs[1])
    outputs = called_by(way, pair(list), a, b)
    return models.randomized(keras.Model(inputs, outputs))


@pytest.mark.parametrize("way", WAYS)
def test_nested_models_get_what_they_are_called_on(way):
    walk = Names()
    found = walk.run(around(way), [{"left"}, {"right"}])
    assert found == [{"right", "to_b", "of_b"}, {"left", "to_a", "of_a"}]
    flat = _keras.flat_graph(around(way))
    maker = {k: c.operation.name for c in flat.calls for k in c.makes}
    read = {
        c.operation.name: [maker.get(k) for k in c.reads] for c in flat.calls
    }
    assert read["of_a"] == ["to_a"]
    assert read["of_b"] == ["to_b"]


@pytest.mark.parametrize("way", WAYS)
def test_runs_on_numbers_compute_what_the_model_does(way):
    """Names once came in another order than the inputs, without a word."""
    model = around(way)
    data = models.random_inputs(model)
    run = Run()
    found = run.run(model, [ops.convert_to_tensor(x) for x in data])
    for mine, its in zip(found, models.outputs(model, data), strict=True):
        np.testing.assert_allclose(models.numpy(mine), its, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_nested_models_are_traced_however_they_are_called(way):
    states = {x.name: x.frozen for x in kr.trace(around(way)).spaces}
    assert states["to_a"] is states["to_b"] is None


def test_each_call_of_a_shared_model_has_keys_of_its_own():
    model, walk = models.shared_at_two_depths(), Names()
    walk.run(model, [set()])
    block = [x for x in walk.called if "conv1d" in x.operation.name]
    assert len({call.key for call in walk.called}) == len(walk.called)
    assert len({len(call.path) for call in block}) > 1
    for call in walk.called:
        for x in (*call.inputs, *call.outputs):
            assert call.key_of(x) in walk.seen


def test_shared_layers_are_called_once_for_each_call():
    walk = Names()
    left, right = walk.run(models.shared(), [{"left"}, {"right"}])[0], None
    names = [call.operation.name for call in walk.called]
    assert names.count("tower") == names.count("second") == 2
    assert {"left", "right", "tower"} <= left
    assert right is None


def test_values_that_no_call_reads_any_more_are_dropped():
    class Held(Names):
        most = 0

        def call(self, call, values):
            self.most = max(self.most, len(values))
            return super().call(call, values)

    parts = [layers.ReLU() for _ in range(20)]
    walk = Held()
    walk.run(keras.Sequential([keras.Input((3,)), *parts]), [set()])
    assert len(walk.called) == 20
    assert walk.most == 1


def test_a_walk_can_end_early_inside_of_a_nested_model():
    class Short(Names):
        @property
        def is_done(self):
            return len(self.called) == 3

    walk = Short()
    assert walk.run(models.nested(), [set()]) == [None]
    assert len(walk.called) == 3


@pytest.mark.parametrize("steps", [False, True])
def test_models_in_a_time_distributed_are_gone_through_on_demand(steps):
    inner = keras.Sequential([keras.Input((3,)), dense("inside")])
    inputs = keras.Input((5, 3))
    x = layers.TimeDistributed(inner, name="each")(dense("before", 3)(inputs))
    model = keras.Model(inputs, dense("behind")(x))
    flat = _keras.flat_graph(model, steps=steps)
    names = [call.operation.name for call in flat.calls]
    assert names == ["before", "inside" if steps else "each", "behind"]
    assert flat.calls[1].reads == flat.calls[0].makes
    assert flat.calls[2].reads == flat.calls[1].makes
    assert (flat.inputs, flat.outputs) == (
        flat.calls[0].reads,
        flat.calls[2].makes,
    )


def test_a_flat_graph_has_no_borders():
    model = models.nested()
    flat = _keras.flat_graph(model)
    names = [layer.name for layer in flat.layers]
    assert "stem" in names
    assert len(set(names)) == len(names)
    kinds = [type(call.operation) for call in flat.calls]
    # The block is called twice, and so is what is inside of it.
    assert kinds.count(layers.BatchNormalization) == 2
    assert not any(_keras.is_model(call.operation) for call in flat.calls)
    known = set(flat.inputs)
    for call in flat.calls:
        assert known >= set(call.reads)
        known |= set(call.makes)
    assert known >= set(flat.outputs)


# --- what nested models make of numbers -------------------------------------


def assert_agrees(model, *data):
    """A run computes what the model does."""
    (found,) = Run().run(model, [ops.convert_to_tensor(x) for x in data])
    (expected,) = models.outputs(model, data if len(data) > 1 else data[0])
    np.testing.assert_allclose(models.numpy(found), expected, atol=1e-5)


def recurrent():
    x = keras.Input((5, 3))
    return keras.Model(x, layers.LSTM(4)(x), name="recurrent")


# Keras says so, and keeps them all the same.
LOSES_MASKS = pytest.mark.filterwarnings("ignore:.*destroy the mask")


@LOSES_MASKS
def test_masks_reach_the_layers_of_nested_models():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 3, mask_zero=True)(inputs)
    model = models.randomized(keras.Model(inputs, recurrent()(x)))
    assert_agrees(model, np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]], "int32"))


@LOSES_MASKS
def test_masks_that_a_nested_model_is_called_with():
    inputs = [keras.Input((5, 3)), keras.Input((5,))]
    x = layers.Dense(3, name="before")(inputs[0])
    y = recurrent()(x, mask=inputs[1] > 0)
    model = models.randomized(keras.Model(inputs, y))
    data = models.random_inputs(model, batch=64)
    assert (data[1] > 0).any(axis=1).mean() > 0.5
    assert_agrees(model, *data)
    states = {space.name: space.frozen for space in kr.trace(model).spaces}
    assert states["before"] is None
    small = kr.prune(model, ratio=0.5, layers="before", data=data)
    assert small.get_layer("before").units == 2


def test_nested_models_cast_what_they_are_given():
    x = keras.Input((3,), dtype="int32")
    inner = keras.Model(x, ops.multiply(x, 2))
    inputs = keras.Input((3,))
    model = keras.Model(inputs, ops.cast(inner(inputs), "float32"))
    assert_agrees(model, np.array([[0.4, 1.7, 2.0]], "float32"))


def test_nested_models_add_an_axis_of_size_one():
    parts = [layers.Flatten(), layers.Dense(2)]
    inner = keras.Sequential([keras.Input((3, 1)), *parts])
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="before")(inputs)
    model = models.randomized(keras.Model(inputs, inner(x)))
    assert_agrees(model, models.random_inputs(model))
    codes = {space.name: space.reason_code for space in kr.trace(model).spaces}
    assert codes["before"] == "other_rank"


def test_runs_are_those_of_a_model_that_predicts():
    inner = keras.Sequential([keras.Input((3,)), layers.Dropout(0.5)])
    inputs = keras.Input((3,))
    x = layers.Dropout(0.5)(inner(inputs, training=True), training=True)
    assert_agrees(keras.Model(inputs, x), np.ones((4, 3), "float32"))
