"""Warnings name the line of the user that led to them."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr


def network(activation="relu"):
    return keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, activation), layers.Dense(2)]
    )


def own_optimizer():
    """A compiled model whose optimizer cannot be made again."""

    class Own(keras.optimizers.SGD):
        def get_config(self):
            return {"size": 1}

    model = network()
    model.compile(Own(), "mse")
    return model


def regularized():
    layer = layers.Dense(1, kernel_regularizer=kr.RaReRegularizer(1.0))
    layer.build((None, 3))
    return layer


def endless():
    return itertools.repeat(np.ones((2048, 3), "float32"))


@pytest.mark.parametrize(
    ("make", "call", "words"),
    [
        (
            lambda: network(lambda x: keras.ops.flip(x, -1)),
            lambda model: kr.prune(model, 0.5),
            "Nothing can go",
        ),
        (own_optimizer, lambda model: kr.prune(model, 0.5), "not compiled"),
        (
            network,
            lambda model: kr.prune(model, 0.5, data=endless()),
            "unknown length",
        ),
        # Keras calls the package.
        (regularized, lambda layer: layer.losses, "no effect on a kernel"),
    ],
)
def test_a_warning_names_the_line_of_the_caller(make, call, words):
    made = make()
    with pytest.warns(UserWarning, match=words) as seen:
        call(made)
    (warning,) = (x for x in seen if words in str(x.message))
    assert warning.filename == __file__
    assert warning.lineno == call.__code__.co_firstlineno
