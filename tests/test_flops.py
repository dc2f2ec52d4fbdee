"""Multiply-adds, counted as the tables of the literature count them."""

import keras
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


def vgg16_cifar():
    """VGG-16 for 32x32 images as in Li et al. (2017), one dense layer."""
    model = [keras.Input((32, 32, 3))]
    for stage in ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3):
        for width in stage:
            model += [layers.Conv2D(width, 3, padding="same")]
        model += [layers.MaxPooling2D()]
    return keras.Sequential(
        [*model, layers.Flatten(), layers.Dense(512), layers.Dense(10)]
    )


def resnet56():
    """ResNet-56 of He et al. (2016), shortcuts without weights."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same")(inputs)
    for stage, width in enumerate((16, 32, 64)):
        for block in range(9):
            strides = 2 if stage and not block else 1
            y = layers.Conv2D(width, 3, strides, padding="same")(x)
            y = layers.Conv2D(width, 3, padding="same")(y)
            if strides == 2:
                x = keras.ops.pad(
                    x[:, ::2, ::2], [[0, 0]] * 3 + [[width // 4] * 2]
                )
            x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


@pytest.mark.parametrize(
    ("factory", "published"), [(vgg16_cifar, 3.13e8), (resnet56, 1.25e8)]
)
def test_published_networks(factory, published):
    assert kr.flops(factory()) == pytest.approx(published, rel=0.01)


def test_by_hand():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    by_hand = 4 * 4 * (3 * 3 * 3 * 4) + (4 * 4 * 4) * 5
    assert kr.flops(model) == by_hand
    assert kr.flops(model, multiply_add=2) == 2 * by_hand


def test_a_dense_layer_on_a_sequence_and_a_shared_layer():
    inputs = keras.Input((7, 3))
    dense = layers.Dense(3)
    model = keras.Model(inputs, dense(dense(inputs)))
    assert kr.flops(model) == 2 * 7 * 3 * 3


def test_channels_first_and_last_agree():
    def model(data_format, shape):
        x = inputs = keras.Input(shape)
        for groups in (1, 2):
            x = layers.Conv2D(4, 3, data_format=data_format, groups=groups)(x)
        return keras.Model(inputs, x)

    first = kr.flops(model("channels_first", (2, 9, 6)))
    last = kr.flops(model("channels_last", (9, 6, 2)))
    assert first == last == 7 * 4 * 9 * 2 * 4 + 5 * 2 * 9 * 2 * 4


def test_nested_models_count():
    assert kr.flops(models.nested()) == (
        6 * 3 * 4 * 8  # stem
        + 2 * 6 * 3 * 8 * 8  # block, called twice
        + 6 * 8 * 8  # inner
        + 4 * 3 * 8 * 9  # innermost
        + 9 * 2
    )


def test_layers_for_training_alone_count_as_what_they_compute():
    model = models.mlp()
    normalized = keras.Sequential(
        [
            keras.Input((12,)),
            kr.FrobeniusNormalization(layers.Dense(16)),
            layers.Dense(10),
            layers.Dense(3),
        ]
    )
    expected = 12 * 16 + 16 * 10 + 10 * 3
    for each in (model, kr.factorize(model), normalized):
        assert kr.flops(each) == expected
