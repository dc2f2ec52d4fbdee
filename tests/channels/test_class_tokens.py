"""Weights that the code of a layer repeats for the size of the batch."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.channels.own_layers import serializable


def tiled(token, x):
    return ops.tile(token, (ops.shape(x)[0], 1, 1))


def broadcast(token, x):
    return ops.broadcast_to(token, (ops.shape(x)[0], *token.shape[1:]))


def repeated(token, x):
    return ops.repeat(token, ops.shape(x)[0], axis=0)


WAYS = {"tiled": tiled, "broadcast": broadcast, "repeated": repeated}


@serializable
class ClassToken(layers.Layer):
    """Puts a weight before the other positions."""

    def __init__(self, way, **options):
        super().__init__(**options)
        self.way = way

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.position = self.add_weight(
            shape=(1, shape[1] + 1, shape[2]), name="position"
        )

    def call(self, x):
        token = WAYS[self.way](self.token, x)
        return ops.concatenate([token, x], axis=1) + self.position

    def get_config(self):
        return {**super().get_config(), "way": self.way}


@serializable
class Mixed(ClassToken):
    """The same, with a hidden layer whose width no argument sets."""

    def __init__(self, way, **options):
        super().__init__(way, **options)
        self.hidden = layers.Dense(14, activation="relu")
        self.out = layers.Dense(16)

    def build(self, shape):
        super().build(shape)
        self.hidden.build((None, shape[1] + 1, shape[2]))
        self.out.build((None, shape[1] + 1, 14))

    def call(self, x):
        return self.out(self.hidden(super().call(x)))


@serializable
class Latents(layers.Layer):
    """Reads the size of the batch alone."""

    def __init__(self, way, **options):
        super().__init__(**options)
        self.way = way

    def build(self, shape):
        self.latents = self.add_weight(shape=(1, 4, 8), name="latents")

    def call(self, x):
        return WAYS[self.way](self.latents, x)

    def get_config(self):
        return {**super().get_config(), "way": self.way}


class Transformer(keras.Model):
    """A vision transformer of a user's own, as tutorials write it."""

    def __init__(self):
        super().__init__()
        self.patches = layers.Conv2D(16, 4, strides=4)
        self.flat = layers.Reshape((-1, 16))
        self.token = ClassToken("broadcast")
        self.norm = layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(4, 4)
        self.expand = layers.Dense(32, activation="gelu")
        self.project = layers.Dense(16)
        self.head = layers.Dense(3)

    def call(self, images):
        x = self.token(self.flat(self.patches(images)))
        y = self.norm(x)
        x = x + self.attention(y, y)
        x = x + self.project(self.expand(self.norm(x)))
        return self.head(x[:, 0])


def around(own):
    inputs = keras.Input((6, 5))
    x = layers.Dense(16, activation="relu", name="before")(inputs)
    x = layers.Dense(8, activation="relu", name="behind")(own(x))
    return models.randomized(keras.Model(inputs, layers.Dense(3)(x)))


def assert_copies_go(model, path):
    """As `tests.rule_checks` has it, for batches of several sizes as well."""
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    assert small.count_params() < model.count_params()
    small.save(path / "small.keras")
    loaded = keras.models.load_model(path / "small.keras")
    for count in (1, 3):
        data = models.random_inputs(model, batch=count)
        models.assert_same_function(model, loaded, data)
    return small


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_followed_and_its_layer_kept(way, tmp_path):
    model = around(ClassToken(way))
    assert len(kr.trace(model).prunable) == 2
    small = assert_copies_go(model, tmp_path)
    assert isinstance(small.layers[2], ClassToken)


@pytest.mark.parametrize("way", WAYS)
def test_a_token_in_a_graph_in_place_of_its_layer(way, tmp_path):
    model = around(Mixed(way))
    assert len(kr.trace(model).prunable) == 4
    small = assert_copies_go(model, tmp_path)
    assert not any(isinstance(x, Mixed) for x in small.layers)


@pytest.mark.parametrize("way", WAYS)
def test_queries_that_are_the_same_for_all_samples(way, tmp_path):
    """As in a Perceiver; nothing warns that the model would not open again."""
    inputs = keras.Input((6, 5))
    x = layers.Dense(16, activation="relu")(inputs)
    queries = layers.Dense(8)(Latents(way)(x))
    x = layers.Attention()([queries, layers.Dense(12)(x), layers.Dense(8)(x)])
    model = keras.Model(inputs, layers.Dense(3)(x))
    assert_copies_go(models.randomized(model), tmp_path)


def test_a_token_in_a_subclassed_model(tmp_path):
    model = Transformer()
    model(np.zeros((2, 16, 16, 3), "float32"))
    model = kr.functional(models.randomized(model))
    small = assert_copies_go(model, tmp_path)
    assert kr.trace(small).explain().prunable > 0


def test_a_token_is_mended_with_data():
    model = around(Mixed("tiled"))
    data = models.random_inputs(model, batch=64)
    small = kr.prune(model, ratio=0.5, data=data)
    plain = kr.prune(model, "l1", ratio=0.5, absorb="drop")
    wanted = models.outputs(model, data)[0]
    errors = [
        np.square(models.outputs(x, data)[0] - wanted).mean()
        for x in (small, plain)
    ]
    assert errors[0] < 0.5 * errors[1]
