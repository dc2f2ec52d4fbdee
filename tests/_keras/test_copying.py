"""Copies of layers have variables of their own, as the layers have them."""

import collections

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_redundancy import _keras
from tests import models

Pair = collections.namedtuple("Pair", ["one", "two"])


class Scaled(layers.Layer):
    """Makes what is not trainable first, and reads another layer."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, shape):
        options = {"shape": shape[-1:], "initializer": "normal"}
        self.mean = self.add_weight(trainable=False, name="mean", **options)
        self.scale = self.add_weight(
            name="scale", regularizer="l2", constraint="non_neg", **options
        )
        self.scale.overwrite_with_gradient = True

    def call(self, x):
        return self.inner((x - self.mean) * self.scale)


class Model(keras.Model):
    """Without a graph, and with a state that its call changes."""

    def __init__(self):
        super().__init__()
        self.parts = {"a": (layers.Dense(5), Pair(layers.Dense(4), None))}
        self.mean = keras.metrics.Mean()

    def call(self, x):
        first, pair = self.parts["a"]
        self.mean.update_state(ops.mean(x))
        return pair.one(first(x))


class Wide(keras.Model):
    """Functional, with a constructor of its own."""

    def __init__(self, width):
        inputs = keras.Input((6,))
        dense = layers.Dense(width)
        super().__init__(inputs, dense(inputs))
        self.dense = dense


def sequential():
    return keras.Sequential([layers.Dense(6), layers.BatchNormalization()])


def functional():
    inputs = keras.Input((6,))
    dense = layers.Dense(6)
    x = sequential()(dense(dense(inputs)))
    return keras.Model(inputs, [layers.Add()([x, inputs]) + 1.0])


def tied():
    inputs = keras.Input((6,))
    dense = layers.Dense(6)
    return keras.Model(inputs, ops.matmul(dense(inputs), dense.kernel))


INNER = {
    "sequential": sequential,
    "functional": functional,
    "tied": tied,
    "subclassed": Model,
    "functional, own constructor": lambda: Wide(3),
    "stack": lambda: layers.Bidirectional(layers.GRU(3)),
}


def data(name):
    shape = (4, 3, 6) if name == "stack" else (4, 6)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def built(name):
    layer = Scaled(INNER[name]())
    layer(data(name))
    rng = np.random.default_rng(1)
    for x in layer.variables:
        x.assign(rng.uniform(0.5, 1.0, x.shape))
    return layer


def answer(layer, x):
    return [models.numpy(y) for y in keras.tree.flatten(layer(x))]


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("name", INNER)
def test_a_copy_has_its_own_variables(name, is_frozen):
    layer, x = built(name), data(name)
    layer.trainable = not is_frozen
    new = _keras.copy_with_variables(layer)
    before = answer(layer, x)
    np.testing.assert_array_equal(before, answer(new, x))
    for variable in [*layer.variables, *layer.metrics_variables]:
        variable.assign(ops.zeros(variable.shape))
    np.testing.assert_array_equal(before, answer(new, x))
    for variable in new.variables:
        variable.assign(ops.zeros(variable.shape))
    assert not np.allclose(before, answer(new, x))


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("name", INNER)
def test_they_are_in_the_same_order(name, is_frozen):
    layer = built(name)
    layer.trainable = not is_frozen
    new = _keras.copy_with_variables(layer)
    for trainable in (not is_frozen, True):
        layer.trainable = new.trainable = trainable
        for names in (
            lambda x: [v.path for v in x.variables],
            lambda x: [v.path for v in x.trainable_variables],
            lambda x: [v.path for v in x.metrics_variables],
            lambda x: [part.name for part in _keras.flat_layers(x)],
        ):
            assert names(new) == names(layer)


def test_what_holds_for_a_variable_holds_for_its_copy():
    layer = built("sequential")
    new = _keras.copy_with_variables(layer)
    assert new.scale.regularizer is layer.scale.regularizer is not None
    assert new.scale.constraint is layer.scale.constraint is not None
    assert new.scale.overwrite_with_gradient
    assert not new.mean.overwrite_with_gradient
    assert len(new.losses) == len(layer.losses) == 1


class Holder:
    def __init__(self, held):
        self.held = [held]


class WithAHolder(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.holder = Holder(self.dense)

    def call(self, x):
        return self.holder.held[0](x)


class OwnCall(Wide):
    def call(self, x):
        return self.dense(x) + 1.0


class Untold(keras.metrics.Metric):
    def __init__(self, factor):
        super().__init__()


class Measured(layers.Dense):
    def __init__(self):
        super().__init__(3)
        self.metric = Untold(2.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (WithAHolder, r"an object in it \(Holder\) holds 'dense"),
        (lambda: Scaled(OwnCall(3)), r".* \(OwnCall\) in it has a graph"),
        (Measured, r"its metric .* \(Untold\) cannot be made anew"),
    ],
)
def test_a_copy_that_would_share_weights_is_refused(make, message):
    layer = make()
    layer(data("sequential"))
    with pytest.raises(ValueError, match=f"cannot be copied: {message}"):
        _keras.copy_with_variables(layer)


def test_a_model_that_reads_a_variable_of_others_is_refused():
    other = layers.Dense(6)
    other.build((None, 6))
    inputs = keras.Input((6,))
    model = keras.Model(inputs, ops.matmul(inputs, other.kernel))
    layer = Scaled(model)
    layer(data("functional"))
    with pytest.raises(ValueError, match=r"reads .*kernel.*, which is not of"):
        _keras.copy_with_variables(layer)
