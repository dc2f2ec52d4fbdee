"""
Title: Choose how much to prune
Author: the authors of keras_redundancy
Date created: 2026/11/25
Last modified: 2026/11/25
Description: Which layers are sensitive, how deep to cut, and by which method.
Accelerator: None
"""

"""
## Introduction

How much you can remove from a network depends on how much accuracy you can
spare. This guide measures it, in three steps:

1. `kr.sensitivity` cuts one layer at a time: which layers must be left alone?
2. `kr.search` finds the cheapest network whose accuracy stays above a floor.
3. `kr.compare` cuts the same network by several methods to the same cost.

All three take the model and `evaluate`, a function that you write: it takes a
model and returns a number that is greater for better models.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import keras_redundancy as kr

keras.utils.set_random_seed(0)

"""
## Setup

Handwritten digits, in three parts: one to train on, one to choose the cut by,
and a test set, which is used once, at the end. If we chose the cut by the test
set, the accuracy on it would be too high.
"""

digits = load_digits()
images = (digits.images / 16).astype("float32")[..., None]
labels = digits.target
part = np.arange(len(images)) % 4
train, held_out, test = part < 2, part == 2, part == 3

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        layers.Conv2D(16, 3, activation="relu", name="conv1"),
        layers.Conv2D(32, 3, activation="relu", name="conv2"),
        layers.Flatten(),
        layers.Dense(64, activation="relu", name="hidden"),
        layers.Dense(10, name="classes"),
    ]
)
model.compile(
    "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
model.fit(images[train], labels[train], batch_size=32, epochs=15, verbose=0)


def accuracy_on(chosen):
    def accuracy(model):
        answers = model.predict(images[chosen], verbose=0)
        return float((answers.argmax(axis=-1) == labels[chosen]).mean())

    return accuracy


evaluate = accuracy_on(held_out)

"""
## One layer at a time

Each row of the table is a layer, each column a share of units that was removed
from that layer alone. With `data=`, the next layer is corrected after each cut,
as it will be in the final model. Without that correction, the table would show
how much the correction matters, and not how important the layer is. `rounds=0`
leaves out the slow part of the correction while we explore.
"""

data = kr.calibrate(model, images[train])
options = {"data": data, "rounds": 0, "verbose": False}
sensitivity = kr.sensitivity(
    model, evaluate, ratios=(0.25, 0.5, 0.75), **options
)
sensitivity.render()

"""
`kr.calibrate` ran the model over the images once; what it returns can be
passed as `data=` to everything that follows. With matplotlib installed,
`sensitivity.plot()` draws the table.

## The deepest cut above the floor

`kr.search` begins with the same table. Then it tries three kinds of cuts: of
the whole model by one target; of every layer as deep as it can be cut alone;
and, from there, of one layer after the other by one more level. `max_drop` is
in the units of `evaluate`: 0.01 is one percentage point of accuracy.
"""

found = kr.search(
    model, evaluate, max_drop=0.01, ratios=(0.25, 0.5, 0.75), **options
)
found.render()

"""
`found.plan` is a plan like any other: it can be printed, and applied. Only now
do we look at the test set.
"""

small = found.apply()
for name, each in (("before", model), ("after", small)):
    print(
        f"{name}: {kr.flops(each):,} multiply-adds, "
        f"test accuracy {accuracy_on(test)(each):.1%}"
    )

"""
## Several methods at the same cost

`kr.compare` cuts the model by each method until the given share of the
multiply-adds is left. Without the argument `methods`, these are the methods of
the package. A method is a selection method such as `kr.Greedy()`, a dictionary
of arguments of `kr.plan`, or a function of your own that takes a model and a
share and returns a smaller model.
"""

methods = {
    "largest L1 norms, rest dropped": {"method": kr.L1(), "absorb": kr.Drop()},
    "largest L1 norms, least squares": kr.L1(),
    "greedy, least squares": kr.Greedy(),
}
comparison = kr.compare(model, evaluate, methods, shares=(0.5, 0.25), **options)
comparison.render()

"""
Read the table from left to right: at which cost do the methods begin to differ?
If all rows are alike, take the fastest method. If they differ, it is worth
trying `rounds=1`, more images, or further training with `kr.fit_and_prune`.
"""
