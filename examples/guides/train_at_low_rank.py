"""
Title: Train at low rank
Author: the authors of keras_redundancy
Date created: 2026/11/25
Last modified: 2026/11/25
Description: Train a network to be redundant, and merge parallel units.
Accelerator: None
"""

"""
## Introduction

Pruning takes a trained network as it is. If you can train it yourself, you can
train it to be redundant. RaRe (Lee et al., 2021) is a regularizer: it finds
the two columns of a kernel that are closest to parallel, and the two rows, and
adds a penalty that turns the two towards one another. Two parallel columns are
one unit computed twice; two parallel rows are two inputs that could have been
added up first. Either way the rank of the kernel falls by one, and one row or
column can be removed without changing what the layer computes.

Three pieces work together:

- `kr.apply_rare(model, strength)` returns a copy with that regularizer.
- `kr.factorize(model)` returns a copy whose `Dense` and `Conv2D` layers hold
  their kernel as a product `P @ W @ Q` of a small `W` and two matrices `P` and
  `Q` that only copy and scale. The function stays the same.
- `kr.callbacks.DynamicLowRank()` looks at `W` during `fit`, and merges the rows
  and columns that have become parallel.
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
"""

digits = load_digits()
x = (digits.data / 16).astype("float32")
y = digits.target
test = np.arange(len(x)) % 4 == 3


def build():
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(100, activation="relu", name="first"),
            layers.Dense(100, activation="relu", name="second"),
            layers.Dense(10, name="classes"),
        ],
        name="digits",
    )


def train(model, callbacks=()):
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        x[~test],
        y[~test],
        batch_size=16,
        epochs=25,
        verbose=0,
        callbacks=list(callbacks),
    )


def accuracy(model):
    answers = model.predict(x[test], verbose=0)
    return float((answers.argmax(axis=-1) == y[test]).mean())


plain = build()
train(plain)

"""
## Train with RaRe

`strength` is divided among the kernels by their sizes. Two vectors are merged
if 1 - |cos| of the angle between them is below `tau_cos`. `every` says after
how many steps to look for such vectors.
"""

wide = kr.factorize(kr.apply_rare(build(), strength=20.0))
dynamic = kr.callbacks.DynamicLowRank(tau_cos=1e-2, every=20)
train(wide, [dynamic])

for layer, sizes in dynamic.sizes[-1].items():
    print(f"{layer}: {sizes[0]}x{sizes[1]} of W are in use")

"""
`W` keeps its shape during training, so that nothing has to be compiled again.
In a long training, `DynamicLowRank(shrink=0.2)` makes `W` and the optimizer's
variables smaller as soon as a fifth of `W` is out of use; the following epochs
are then faster.
"""

"""
## What to do with it

The trained model can be turned into three kinds of smaller one:

- `kr.compact(wide)` keeps the factorized layers, with `W` at the size in use.
  Choose it to continue the training.
- `kr.to_dense(wide)` multiplies out each product: `Dense` layers of the
  original widths.
- `kr.prune(wide, tau=0.999)` returns stock layers too, and removes units whose
  filters are parallel to another unit's. Choose it to deploy the model.
"""

small = kr.prune(wide, tau=0.999)
kr.difference(plain, small).render()
print(f"test accuracy: {accuracy(plain):.1%} trained plainly,")
print(f"{accuracy(wide):.1%} with RaRe, {accuracy(small):.1%} pruned")

"""
Was it RaRe? The network that was trained plainly has no parallel units:
"""

plan = kr.plan(plain, tau=0.999)
print(f"without RaRe: {plan.parameters[0]:,} -> {plan.parameters[1]:,}")
print(f"with RaRe: {plain.count_params():,} -> {small.count_params():,}")

"""
## Without factorized layers

`kr.RaReRegularizer` is also a plain `kernel_regularizer` of any `Dense` layer
or convolution of stock Keras. Then nothing is merged during training, and
`kr.prune` removes the parallel units afterwards. The regularizer finds on which
axes the kernel of a transposed convolution or `EinsumDense` layer holds the
units; as `depthwise_regularizer` it compares the windows of channels.
"""

regularized = layers.Dense(100, kernel_regularizer=kr.RaReRegularizer(5.0))
