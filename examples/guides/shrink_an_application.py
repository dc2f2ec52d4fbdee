"""
Title: Shrink a keras.applications model for a device
Author: the authors of keras_redundancy
Date created: 2026/11/25
Last modified: 2026/11/25
Description: Halve the multiply-adds of a MobileNet, fine-tune it, save it.
Accelerator: None
"""

"""
## Introduction

On a phone or a small board, a network may take only so many multiply-adds per
image, and so many bytes. This guide takes a model of `keras.applications`,
removes filters that other filters can replace until half of the multiply-adds
are left, and saves a model that opens in Keras alone.

To run in seconds and without a download, it trains the first blocks of a narrow
MobileNet on the 8x8 digits that scikit-learn brings along. For a model of your
own, replace the next two cells with, for instance,

    model = keras.applications.MobileNetV2(weights="imagenet")
    images = keras.applications.mobilenet_v2.preprocess_input(some_photographs)

where `some_photographs` are a few hundred images of the kind that the device
will see. Labels are not needed to prune.
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_redundancy as kr

keras.utils.set_random_seed(0)

"""
## Setup

The digits become color images of 32x32 pixels, the smallest that MobileNet
takes. Every fourth one is kept for testing.
"""

digits = load_digits()
images = digits.images.astype("float32") / 8 - 1  # from -1 to 1
images = np.repeat(images.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, -1)
labels = digits.target
test = np.arange(len(images)) % 4 == 3

"""
## A model to shrink

`weights=None` gives random weights, which we train for some epochs. After the
fifth block, only 4x4 positions are left of such small images, so we put the
output of ten classes there. In a short training, each BatchNormalization has to
follow the batches faster than by default: we lower `momentum`. A pretrained
model needs none of this.
"""

whole = keras.applications.MobileNet(
    input_shape=(32, 32, 3), alpha=0.25, weights=None, include_top=False
)
x = whole.get_layer("conv_pw_5_relu").output
x = keras.layers.GlobalAveragePooling2D()(x)
outputs = keras.layers.Dense(10, activation="softmax", name="classes")(x)
model = keras.Model(whole.inputs, outputs, name="short_mobilenet")
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.8


def train(model, epochs, rate):
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy"
    )
    model.fit(
        images[~test], labels[~test], batch_size=64, epochs=epochs, verbose=0
    )


def accuracy(model):
    answers = model.predict(images[test], verbose=0)
    return float((answers.argmax(axis=-1) == labels[test]).mean())


train(model, epochs=4, rate=5e-3)
before = accuracy(model)

"""
## What can be removed, and what cannot

`kr.plan` decides and builds nothing. Printed, a plan shows for every group of
layers that share their channels how many units are kept. In a MobileNet, a
pointwise convolution writes channels, and the depthwise convolution behind it
carries them: both lose the same ones.

- `target={"flops": 0.5}` asks for half of the multiply-adds. `"params"` asks
  for parameters in the same way, and `"latency"` for the time of a batch, which
  is measured on the machine that prunes: run it on the device, or on one like
  it.
- `data=` are images to calibrate on. They say which filters the next layer can
  do without, and what it has to read in their place.
- `round_to=8` keeps multiples of eight filters. Many devices compute with eight
  or more channels at a time, and are no faster for seven of them.
- `rounds=0` leaves out the fitting of all remaining kernels. For a deep
  network, fitting takes minutes; it is worth the time if you cannot fine-tune.
"""

plan = kr.plan(
    model,
    target={"flops": 0.5},
    data=images[~test][:512],
    round_to=8,
    rounds=0,
)
plan.render()

"""
`explain()` lists the channels that have to stay, and why. Here these are the
channels of the input image and the ten classes.
"""

plan.explain().render()

"""
## The smaller model

`apply()` builds it; `model` itself does not change. The smaller model is
compiled as `model` is, so you can continue to train it right away. A few epochs
with labels recover the lost accuracy.
"""

small = plan.apply()
pruned = accuracy(small)
train(small, epochs=3, rate=1e-3)
tuned = accuracy(small)
print(f"test accuracy: {before:.1%} before, {pruned:.1%} after pruning,")
print(f"{tuned:.1%} after three epochs of fine-tuning")

"""
## Save it

The file holds layers of Keras and nothing of this package. We leave out what
only training needs, the optimizer's state, by loading the model without it. To
convert the file for the device, treat it as you would have treated the
original: `small.export(...)` writes the formats that your version of Keras
knows.
"""


def save(model, path):
    model.save(path)
    keras.models.load_model(path, compile=False).save(path)
    print(
        f"{path}: {model.count_params():,} parameters, "
        f"{kr.flops(model):,} multiply-adds per image, "
        f"{Path(path).stat().st_size / 1e6:.2f} MB"
    )


save(model, "model.keras")
save(small, "small.keras")
again = keras.models.load_model("small.keras")
assert accuracy(again) == tuned
