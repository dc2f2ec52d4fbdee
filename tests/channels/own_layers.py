"""Layers of a user's own, for tests of their rules."""

import keras
from keras import layers

import keras_redundancy as kr
from tests.rule_checks import between

serializable = keras.saving.register_keras_serializable(__name__)


def names_and_sizes(graph):
    return {space.name: space.size for space in graph.prunable}


class Parts(layers.Layer):
    """A layer whose constructor's arguments are its attributes."""

    arguments = ()

    def get_config(self):
        own = {name: getattr(self, name) for name in self.arguments}
        return {**super().get_config(), **own}


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
