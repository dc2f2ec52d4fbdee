"""Images are made so that a model's stored statistics are met."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration import synthetic
from tests import models

QUICK = {"samples": 24, "steps": 40, "batch_size": 16}


@pytest.fixture(scope="module")
def model():
    """Trained statistics of images with a mean far from that of noise."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(4, activation="softmax")(x)
    model = keras.Model(inputs, x)
    keras.utils.set_random_seed(0)
    for w in model.weights:
        if w.name == "kernel":
            w.assign(np.random.default_rng(w.shape[-1]).normal(size=w.shape))
    images = np.random.default_rng(0).normal(0.7, 2, (256, 8, 8, 3))
    seen = keras.Model(inputs, model.get_layer("first").output)
    found = seen.predict(images, verbose=0)
    norm = model.get_layer("norm")
    norm.moving_mean.assign(found.mean((0, 1, 2)))
    norm.moving_variance.assign(found.var((0, 1, 2)))
    return model


def test_images_meet_the_stored_statistics_and_classes(model):
    before = [np.array(w) for w in model.weights]
    images = kr.synthetic_images(model, **QUICK)
    assert images.shape == (24, 8, 8, 3)
    assert images.dtype == np.float32
    for w, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(w, old)
    noise = kr.pink_noise((8, 8, 3), 24)
    seen = keras.Model(model.inputs, model.get_layer("first").output)
    norm = model.get_layer("norm")
    wanted, variance = (
        np.array(norm.moving_mean),
        np.array(norm.moving_variance),
    )
    far = []
    for x in (noise[:16], images[:16]):
        found = seen.predict(x, verbose=0)
        far.append(
            np.mean((found.mean((0, 1, 2)) - wanted) ** 2 / variance)
            + np.mean(np.log(found.var((0, 1, 2)) / variance) ** 2)
        )
    assert far[1] < 0.1 * far[0]


def test_images_are_drawn_towards_classes(model, monkeypatch):
    right = []
    for weight in (0.0, 0.5):
        monkeypatch.setattr(synthetic, "CLASSES", weight)
        x = kr.synthetic_images(model, **QUICK)[:16]
        found = model.predict(x, verbose=0)
        right.append(found[np.arange(16), np.arange(16) % 4].mean())
    assert right[1] > right[0] + 0.05


def test_models_without_statistics():
    with pytest.raises(ValueError, match="no BatchNormalization"):
        kr.synthetic_images(models.mlp())
    a, b = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    x = layers.BatchNormalization()(layers.Add()([a, b]))
    with pytest.raises(ValueError, match="2 inputs"):
        kr.synthetic_images(keras.Model([a, b], x))


def test_sizes_that_are_open():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.BatchNormalization()(inputs))
    with pytest.raises(ValueError, match="one sample"):
        kr.synthetic_images(model)


def test_small_batches_are_drawn_towards_all_classes(model, monkeypatch):
    options = {"samples": 8, "steps": 40, "batch_size": 2}
    logs = []
    for weight in (0.0, 5.0):
        monkeypatch.setattr(synthetic, "CLASSES", weight)
        found = model.predict(kr.synthetic_images(model, **options), verbose=0)
        logs.append(np.log(found[np.arange(8), np.arange(8) % 4]))
    assert (logs[1] - logs[0]).reshape(2, 4).mean(axis=0).min() > 0
