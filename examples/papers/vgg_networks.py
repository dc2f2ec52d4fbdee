"""VGG networks for small images, and how they are trained."""

import math

import keras
from experiments import DECAY, accuracy, caption, fitted_with_momentum
from keras import layers

# Filters of the convolutions; "M" halves the sides.
PLANS = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: (
        "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M "
        "512 512 512 512 M"
    ),
}


def build(data, depth, scale=1.0):
    """A VGG with BatchNormalization and two dense layers.

    Args:
        data: a `Data`, for the shape of images and the classes.
        depth: 11, 13, 16 or 19.
        scale: a factor of all widths.
    """
    x = inputs = keras.Input(data.shape)
    number = 0
    for word in PLANS[depth].split():
        if word == "M":
            # Where images are too small for another pooling, there is none.
            if min(x.shape[1:3]) > 1:
                x = layers.MaxPooling2D(padding="same")(x)
            continue
        number += 1
        width = math.ceil(scale * int(word))
        x = layers.Conv2D(
            width, 3, padding="same", use_bias=False, name=f"conv{number}"
        )(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Flatten()(x)
    x = layers.Dense(math.ceil(512 * scale), use_bias=False, name="dense")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    outputs = layers.Dense(data.classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=f"vgg{depth}")


def described(run, *also):
    """A caption that says what differs from the paper's VGGs."""
    args, said = run.args, []
    if args.scale != 1:
        said.append(f"widths times {args.scale:g}")
    if args.decay != DECAY:
        said.append(f"decay {args.decay:g}")
    return caption(run, *said, *also)


def vgg(data, depth, scale, decay, epochs, seed):
    """Train a VGG, and keep it: an experiment."""
    model = build(data, depth, scale)
    fitted_with_momentum(model, data, epochs, seed, decay=decay)
    return model, {"accuracy": accuracy(model, data.test)}
