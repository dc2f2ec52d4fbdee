"""Layers of one's own: weights that are one number, or are not trained."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.rule_checks import assert_copies_go

# Functions of a tensor and a weight of the shape ().
NUMBERS = {
    "times": lambda x, w: x * w,
    "from the left": lambda x, w: w * x,
    "exp": lambda x, w: ops.exp(w) * x,
    "added": lambda x, w: x + w,
    "divided": lambda x, w: x / (1 + ops.square(w)),
    "a gate": lambda x, w: ops.sigmoid(w) * x + (1 - w) * ops.tanh(x),
    "a power": lambda x, w: ops.relu(x) ** w,
}


@keras.saving.register_keras_serializable(__name__)
class OfANumber(layers.Layer):
    def __init__(self, way, **options):
        super().__init__(**options)
        self.way = way

    def build(self, shape):
        self.number = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return NUMBERS[self.way](x, self.number)

    def get_config(self):
        return super().get_config() | {"way": self.way}


def between(layer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layer(layers.Dense(8, name="before")(inputs))
    return models.randomized(keras.Model(inputs, layers.Dense(3)(x)))


@pytest.mark.parametrize("way", NUMBERS)
def test_copies_go_through_what_a_number_does(way, tmp_path):
    model = between(OfANumber(way, name="own"))
    graph = assert_copies_go(model, tmp_path)
    assert [space.size for space in graph.prunable] == [8]
    small = kr.prune(model, ratio=0.5)
    assert type(small.get_layer("own")) is OfANumber


@keras.saving.register_keras_serializable(__name__)
class Rezero(layers.Layer):
    """A wide part inside, times a number that training starts from zero."""

    def __init__(self, **options):
        super().__init__(**options)
        self.wide = layers.Dense(12, activation="relu")
        self.narrow = layers.Dense(6)

    def build(self, shape):
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], 12))
        self.number = self.add_weight(shape=(), name="number")

    def call(self, x):
        return x + self.number * self.narrow(self.wide(x))


def test_a_number_stays_trainable_where_stock_layers_take_its_place(tmp_path):
    inputs = keras.Input((6,))
    outputs = layers.Dense(3)(Rezero(name="own")(inputs))
    model = models.randomized(keras.Model(inputs, outputs))
    assert_copies_go(model, tmp_path)
    small = kr.prune(model, ratio=0.5)
    assert not isinstance(small.get_layer("own"), Rezero)
    assert len(small.trainable_weights) == len(model.trainable_weights)
    (number,) = (w for w in small.weights if "number" in w.path)
    np.testing.assert_array_equal(
        models.numpy(number), [models.numpy(model.get_layer("own").number)]
    )


@keras.saving.register_keras_serializable(__name__)
class Projection(layers.Layer):
    """A random projection that is not trained, and a scale that is not."""

    def build(self, shape):
        options = {"initializer": "glorot_normal", "trainable": False}
        self.scale = self.add_weight(shape=shape[-1:], **options)
        self.kernel = self.add_weight(shape=(shape[-1], 10), **options)

    def call(self, x):
        return ops.sin(ops.matmul(x * self.scale, self.kernel))


def test_weights_that_are_not_trained_are_followed_and_stay_so(tmp_path):
    model = between(Projection(name="own"))
    graph = assert_copies_go(model, tmp_path)
    assert sorted(space.size for space in graph.prunable) == [8, 10]
    small = kr.prune(model, ratio=0.5)
    assert len(small.non_trainable_weights) == 2
    assert len(small.trainable_weights) == len(model.trainable_weights)


@keras.saving.register_keras_serializable(__name__)
class Adds(layers.Layer):
    """Adds a loss and updates a metric, beside what it returns."""

    def __init__(self, **options):
        super().__init__(**options)
        self.mean = keras.metrics.Mean()

    def call(self, x):
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        self.mean.update_state(ops.mean(x))
        return ops.relu(x)


def test_a_layer_goes_on_to_add_its_loss(tmp_path):
    model = between(Adds(name="own"))
    graph = assert_copies_go(model, tmp_path)
    assert [space.size for space in graph.prunable] == [8]
    small = kr.prune(model, ratio=0.5)
    for each in (model, small):
        each(np.ones((2, 6)))
        assert len(each.losses) == 1


@keras.saving.register_keras_serializable(__name__)
class Measures(layers.Layer):
    """Calls a metric, and multiplies by what it returns if told to."""

    def __init__(self, multiplies=False, **options):
        super().__init__(**options)
        self.mean, self.multiplies = keras.metrics.Mean(), multiplies

    def call(self, x):
        found = self.mean(ops.mean(x))
        return ops.relu(x) * (found if self.multiplies else 2.0)

    def get_config(self):
        return super().get_config() | {"multiplies": self.multiplies}


def test_a_metric_that_is_called_does_not_freeze(tmp_path):
    model = between(Measures(name="own"))
    graph = assert_copies_go(model, tmp_path)
    assert [space.size for space in graph.prunable] == [8]
    own = model.get_layer("own")
    own.mean.reset_state()
    assert float(own.mean(3.0)) == 3.0


def test_what_is_computed_from_a_metric_freezes():
    plan = kr.plan(between(Measures(True, name="own")), ratio=0.5)
    assert not plan.removed.any()
    (reason,) = {str(d.reason) for d in plan.decisions if d.space.size == 8}
    assert "own" in reason


class Adding(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(16, activation="relu")
        self.out = layers.Dense(2)

    def call(self, x):
        x = self.hidden(x)
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return self.out(x)


def test_a_loss_that_gets_lost_is_named():
    model, data = Adding(), np.ones((4, 8), "float32")
    model(data)
    before = model.get_weights()
    with pytest.warns(UserWarning, match=r"losses that calls of 'adding'"):
        small = kr.prune(model, ratio=0.5)
    assert small.count_params() < model.count_params()
    assert "add_loss" not in vars(model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model(data)
    assert len(model.losses) == 1


@keras.saving.register_keras_serializable(__name__)
class Doubles(layers.Layer):
    def call(self, x):
        return 2.0 * ops.tanh(x)


def test_a_layer_called_twice_beside_another_of_a_name_like_it(tmp_path):
    inputs = keras.Input((6,))
    twice, once = Doubles(name="act"), Doubles(name="act_1")
    x = twice(layers.Dense(8)(inputs))
    x = once(layers.Dense(7, name="act_2")(twice(layers.Dense(9)(x))))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    graph = assert_copies_go(model, tmp_path)
    assert sorted(space.size for space in graph.prunable) == [7, 8, 9]


def test_the_function_relu_is_followed_like_the_layer(tmp_path):
    inputs = keras.Input((6,))
    x = keras.activations.relu(layers.Dense(8)(inputs))
    x = keras.activations.relu(layers.Dense(9)(x), max_value=6.0)
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    graph = assert_copies_go(model, tmp_path)
    assert sorted(space.size for space in graph.prunable) == [8, 9]
