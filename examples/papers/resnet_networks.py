"""ResNets of He et al. (2016) for small images, shortcuts without weights."""

import dataclasses

import keras
import numpy as np
from experiments import fitted_with_momentum
from keras import layers, ops

STAGES = (1, 2, 3)
WIDTHS = (16, 32, 64)
# Of each color, over the training images of CIFAR-10 as others publish it.
MEAN = np.array([0.485, 0.456, 0.406], "float32")
DEVIATION = np.array([0.229, 0.224, 0.225], "float32")


def build(data, depth):
    """Three stages of (depth - 2) / 6 blocks each.

    Shortcuts that halve the sides take every second pixel, and pad channels
    with zeros (option A of the paper).
    """
    x = inputs = keras.Input(data.shape)
    x = layers.ReLU()(_convolution(x, WIDTHS[0], 1, "conv1", "bn1"))
    for stage, width in zip(STAGES, WIDTHS, strict=True):
        for block in range((depth - 2) // 6):
            strides = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}_{block}"
            y = _convolution(x, width, strides, f"{name}_conv1", f"{name}_bn1")
            y = layers.ReLU()(y)
            y = _convolution(y, width, 1, f"{name}_conv2", f"{name}_bn2")
            if strides > 1:
                pad = width // 4
                x = ops.pad(x[:, ::2, ::2], [(0, 0)] * 3 + [(pad, pad)])
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(data.classes, name="linear")(x)
    return keras.Model(inputs, outputs, name=f"resnet{depth}")


def _convolution(x, width, strides, name, norm):
    if strides > 1:
        x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(
        width,
        3,
        strides,
        padding="valid" if strides > 1 else "same",
        use_bias=False,
        name=name,
    )(x)
    return layers.BatchNormalization(epsilon=1e-5, name=norm)(x)


def standardized(images):
    """Images as the published weights expect them; gray ones as they are."""
    if images.shape[-1] != 3:
        return images
    return (images - MEAN) / DEVIATION


def resnet(data, depth, epochs, seed):
    """Train a ResNet on standardized images, and keep it: an experiment."""
    images, labels = data.train
    data = dataclasses.replace(data, train=(standardized(images), labels))
    model = build(data, depth)
    return fitted_with_momentum(model, data, epochs, seed), {}


def with_weights(data, depth, path):
    """The network with the weights of a file."""
    model = build(data, depth)
    with np.load(path) as weights:
        model.set_weights([weights[str(n)] for n in range(len(weights.files))])
    return model
