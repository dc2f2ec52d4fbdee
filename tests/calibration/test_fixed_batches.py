"""Models that can be called on batches of one size alone."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.calibration.data import batches
from tests import models


def of_fours(*, written_in=True):
    """A network for batches of four; its code may have the size in it."""
    inputs = keras.Input((6, 6, 3), batch_size=4)
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.BatchNormalization()(x)
    size = 4 if written_in else -1
    x = keras.ops.reshape(x, (size, 16, 8))
    x = layers.GlobalAveragePooling1D()(x)
    outputs = layers.Dense(3, activation="softmax")(x)
    return models.randomized(keras.Model(inputs, outputs))


def images(count):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6, 6, 3)).astype("float32")


def test_which_models_need_their_size():
    assert _keras.needed_batch(of_fours()) == 4
    assert _keras.needed_batch(of_fours(written_in=False)) is None
    assert _keras.needed_batch(models.residual()) is None
    inputs = keras.Input((5, 3), batch_size=4)
    states = layers.LSTM(6, stateful=True)(inputs)
    assert _keras.needed_batch(keras.Model(inputs, states)) == 4


def test_samples_behind_the_last_whole_batch_are_left_out():
    found = [len(x) for (x,) in batches(of_fours(), images(11), 256)]
    assert found == [4, 4]
    found = [
        len(x) for (x,) in batches(of_fours(written_in=False), images(11), 256)
    ]
    assert found == [11]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": kr.Greedy(errors="loss")},
        {"mend": kr.Mend()},
        {"mend": kr.Distill(epochs=1)},
    ],
    ids=["alone", "by the loss", "a round", "distilled"],
)
def test_they_are_pruned_by_data(options):
    model = of_fours()
    small = kr.prune(model, ratio=0.5, data=images(30), **options)
    assert small.count_params() < model.count_params()
    assert small(images(4)).shape == (4, 3)


@pytest.mark.parametrize("options", [{}, {"features": ["conv"]}])
def test_they_are_distilled(options):
    model = of_fours()
    small = kr.prune(model, ratio=0.5)
    data = images(42)
    before = divergence(model, small, data[:40])
    found = kr.distill(
        small, model, data, epochs=4, held_out=0.2, seed=0, verbose=0, **options
    )
    assert divergence(model, found, data[:40]) < before


def test_they_are_distilled_with_labels():
    model = of_fours()
    small = kr.prune(model, ratio=0.5)
    small.compile(loss="sparse_categorical_crossentropy")
    labels = np.random.default_rng(0).integers(0, 3, 42)
    found = kr.distill(small, model, images(42), labels, epochs=1, verbose=0)
    assert found(images(4)).shape == (4, 3)


def divergence(model, small, data):
    wanted, found = (
        x.predict(data, batch_size=4, verbose=0) for x in (model, small)
    )
    return float((wanted * np.log(wanted / found)).sum())


def test_images_are_made_for_them():
    assert kr.synthetic_images(of_fours(), 6, steps=2).shape == (6, 6, 6, 3)


def test_too_few_samples_and_batches_of_another_size():
    with pytest.raises(ValueError, match=r"has 3 samples, .* batches of 4\."):
        kr.prune(of_fours(), ratio=0.5, data=images(3))
    with pytest.raises(ValueError, match=r"\(8, 6, 6, 3\).* takes \(4, 6, 6"):
        kr.prune(of_fours(), ratio=0.5, data=iter([images(8)]))
    with pytest.raises(ValueError, match=r"batch_size=8, but .* of 4\. Leave"):
        kr.distill(of_fours(), of_fours(), images(16), epochs=1, batch_size=8)


@keras.saving.register_keras_serializable(__name__)
class OfFours(layers.Layer):
    """Its own code has the size in it, and fails at others in its own way."""

    def call(self, x):
        return keras.ops.reshape(x, (4, 48))


def test_the_size_may_be_in_the_code_of_a_layer():
    inputs = keras.Input((6, 5), batch_size=4)
    x = OfFours()(layers.Dense(8)(inputs))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    assert _keras.needed_batch(model) == 4
    data = np.random.default_rng(0).normal(size=(10, 6, 5)).astype("float32")
    found = kr.distill(model, model, data, epochs=1, verbose=0)
    assert found(data[:4]).shape == (4, 3)


def test_batches_of_more_samples_than_are_looked_at():
    inputs = keras.Input((5,), batch_size=300)
    x = keras.ops.reshape(layers.Dense(8)(inputs), (300, 8))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    data = np.random.default_rng(0).normal(size=(600, 5)).astype("float32")
    small = kr.prune(model, ratio=0.3, data=data)
    found = kr.distill(small, model, data, epochs=1, verbose=0)
    assert found.count_params() == small.count_params()
