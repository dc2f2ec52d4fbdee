"""Small models, the data that they are given, and in which form."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_redundancy.calibration.data import Samples, batches
from tests import models

X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
needs_text = pytest.mark.skipif(
    not ON_TENSORFLOW, reason="TensorFlow alone has tensors of text"
)


def net(inputs, x):
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    x = layers.Dense(3, name="top")(x)
    return models.randomized(keras.Model(inputs, x))


def one_input(**options):
    inputs = keras.Input((6,), name="x", **options)
    return net(inputs, inputs)


def two_inputs(structure=dict):
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    inputs = {"a": a, "b": b} if structure is dict else structure([a, b])
    return net(inputs, layers.Concatenate()([a, b]))


def arrays_of(model, data, **options):
    """All that the model is given, an array for each input."""
    found = list(batches(model, Samples(data, **options), 16))
    return [
        None if parts[0] is None else np.concatenate(parts)
        for parts in zip(*found, strict=True)
    ]


def assert_given(model, data, *expected):
    found = arrays_of(model, data)
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)


def tf_data(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(x)


def from_generator(x):
    import tensorflow as tf

    return tf.data.Dataset.from_generator(
        lambda: iter(np.split(x, 3)),
        output_signature=tf.TensorSpec((None, 6)),
    )
