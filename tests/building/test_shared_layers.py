"""Layers that several graphs or blocks call, and weights that code reads."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models

DATA = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")


def assert_opens_again(model, path):
    model.save(path / "small.keras")
    again = keras.models.load_model(path / "small.keras")
    models.assert_same_function(model, again, DATA, tolerance=1e-6)
    kinds = {type(x) for x in again._flatten_layers()}
    assert {x.__module__.split(".")[0] for x in kinds} == {"keras"}


def encoder(shared):
    inputs = keras.Input((6,))
    x = layers.Dense(12, activation="relu", name="wide")(shared(inputs))
    return keras.Model(inputs, layers.Dense(6)(x), name="encoder")


def test_keras_does_not_open_a_plain_model_so_a_warning_says_what_does():
    shared, inputs = layers.Dense(6), keras.Input((6,))
    model = keras.Model(inputs, shared(encoder(shared)(inputs)))
    with pytest.warns(UserWarning, match=r"encoder.*kr\.functional\(small\)"):
        small = kr.prune(model, ratio=0.5)
    assert small.get_layer("encoder").get_layer("wide").units == 6
    # tests/test_prune.py opens what kr.functional returns.


class Scored(keras.Model):
    """Its constructor makes the graph: no argument sets a width."""

    def __init__(self):
        shared, inputs = layers.Dense(6, name="shared"), keras.Input((6,))
        inner = encoder(shared)
        wide = layers.Dense(9, activation="relu", name="wide")
        x = ops.add(shared(inner(inputs)), layers.Dense(6)(wide(inputs)))
        super().__init__(inputs, [x, inner(x)])


@pytest.fixture(scope="module")
def scored():
    model = models.randomized(Scored())
    model.compile("sgd", {"encoder": "mse"})
    return model


@pytest.mark.filterwarnings("ignore:Scored has a constructor of its own")
def test_a_model_that_its_constructor_saves_is_put_into_one_graph(
    scored, tmp_path
):
    small = kr.prune(scored, ratio=0.5, data=DATA)
    assert small.get_layer("wide").units < 9
    assert small.get_layer("encoder-wide").units < 12
    assert small.output_names[1] == "encoder"
    assert_opens_again(small, tmp_path)
    others = small, kr.prune(scored, kr.L1(), ratio=0.5, absorb="drop")
    wanted, *found = (models.outputs(x, DATA)[1] for x in (scored, *others))
    errors = [np.square(x - wanted).mean() for x in found]
    assert errors[0] < 0.5 * errors[1]


class Block(layers.Layer):
    """Calls a layer that it is given, and reads a weight of its own."""

    def __init__(self, tied, **kwargs):
        super().__init__(**kwargs)
        self.wide = layers.Dense(12, activation="relu", name="wide")
        self.narrow, self.tied = layers.Dense(6), tied

    def build(self, shape):
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], 12))
        self.shift = self.add_weight(shape=(6,), name="shift")

    def call(self, x):
        return self.tied(self.narrow(self.wide(x))) + self.shift


@pytest.fixture(scope="module")
def tied():
    shared, inputs = layers.Dense(6, name="shared"), keras.Input((6,))
    x = Block(shared, name="block")(shared(inputs))
    return models.randomized(keras.Model(inputs, layers.Dense(2)(x)))


def test_a_block_that_holds_a_layer_of_the_graph_around_it(tied, tmp_path):
    models.plant(tied)
    small = kr.prune(tied, tau=0.9999)
    assert small.get_layer("block-wide").units == 9
    models.assert_same_function(tied, small, DATA)
    assert_opens_again(small, tmp_path)
    (shift,) = small.get_layer("block-shift_weight").variables
    assert shift.shape == (5,)  # With the units of what it is added to.
    plan = kr.plan(tied, tau=0.9999, inline=False)
    assert "with inline=True" in str(plan.explain())


class Expert(keras.Model):
    """A subclassed model that multiplies by weights of its own."""

    def build(self, shape):
        self.up = self.add_weight(shape=(shape[-1], 16), name="up")
        self.top = layers.Dense(3)
        self.top.build((None, 16))

    def call(self, x):
        return self.top(ops.relu(ops.matmul(x, self.up)))


def test_weights_that_code_reads_are_of_stock_layers_then(tmp_path):
    model = Expert()
    model(DATA)
    models.randomized(model)
    small = kr.prune(model, ratio=0.5, data=DATA)
    assert small.count_params() == 6 * 8 + 8 * 3 + 3
    assert_opens_again(small, tmp_path)
    same = kr.prune(model, ratio=0)
    wanted, found = (models.numpy(x(DATA)) for x in (model, same))
    np.testing.assert_allclose(wanted, found, atol=1e-5)


class Unsaved(layers.Layer):
    """Its config cannot be made, which only saving its graph asks for."""

    def __init__(self, width):
        super().__init__(name="unsaved")
        self.inner = layers.Dense(width, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        raise TypeError("as some layers of KerasHub")


class OfUnsaved(keras.Model):
    def __init__(self):
        inputs = keras.Input((6,))
        x = layers.Dense(12, activation="relu", name="wide")(inputs)
        x = Unsaved(6)(layers.Dense(6, name="narrow")(x))
        super().__init__(inputs, layers.Dense(2)(x))


@pytest.mark.filterwarnings("ignore:OfUnsaved has a constructor of its own")
def test_a_layer_without_a_config_is_inline_where_the_graph_is_saved(tmp_path):
    model = models.randomized(OfUnsaved())
    small = kr.prune(model, ratio=0.5, layers="wide")
    assert small.get_layer("unsaved").get_layer("unsaved-inner").units == 6
    assert_opens_again(small, tmp_path)
