"""
Title: From a trained network to an int8 file for a device
Author: the authors of keras_redundancy
Date created: 2026/11/26
Last modified: 2026/11/26
Description: Prune with data, train quantization-aware, convert to LiteRT.
Accelerator: None
"""

"""
## Introduction

Pruning removes filters; quantization stores what is left as integers of eight
bits. Both together make a network ten times smaller. This guide trains a small
network on the digits that scikit-learn brings along, prunes it, continues the
training with rounded weights (quantization-aware training), and writes files
for LiteRT, the runtime of phones and small boards.

Quantization-aware training is part of tensorflow-model-optimization (tfmot),
which takes models of tf_keras (Keras 2) only. `kr.deploy` translates a model to
tf_keras and copies the weights back. Install both packages, and the runtime, by

    pip install ".[tfmot,deploy,examples]"
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits

import keras_redundancy as kr

keras.utils.set_random_seed(0)

"""
## A network to shrink

The images have 8x8 pixels. Every fourth one is kept for testing.
"""

digits = load_digits()
images = digits.images.astype("float32")[..., None] / 16
labels = digits.target
test = np.arange(len(images)) % 4 == 3


def block(width):
    return [
        keras.layers.Conv2D(width, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.8),
        keras.layers.ReLU(),
    ]


model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        *block(32),
        *block(32),
        keras.layers.MaxPooling2D(),
        *block(64),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, activation="softmax"),
    ],
    name="trained",
)
loss = "sparse_categorical_crossentropy"
model.compile(keras.optimizers.Adam(3e-3), loss)
model.fit(images[~test], labels[~test], batch_size=64, epochs=10, verbose=0)

"""
## Prune it

A third of the multiply-adds is left. `round_to=8` keeps multiples of eight
filters: runtimes compute several channels at a time, and are no faster for
seven than for eight.
"""

plan = kr.plan(
    model, target={"flops": 0.33}, data=images[~test][:512], round_to=8
)
small = plan.apply()
plan.render()

"""
## Write files and measure them

`kr.deploy.litert` writes a file for LiteRT, runs it on this machine, and
compares what it returns with what Keras returns. With `beside=` the same is
done with the unpruned network.
"""

files = {"trained": kr.deploy.litert(model, "trained.tflite")}
files["pruned"] = kr.deploy.litert(small, "pruned.tflite", beside=model)
files["pruned"].render()

"""
`quantize="int8"` has the converter replace all numbers by integers. It needs to
see some inputs, to find out how large the numbers become. No training is needed
for that.
"""

files["pruned, int8"] = kr.deploy.litert(
    small, "pruned_int8.tflite", images[~test], quantize="int8"
)

"""
## Train with rounding

If rounding costs too much accuracy, training can adapt the weights to it.
`to_tf_keras` makes the same network in tf_keras, layer by layer, and checks
that both return the same. `quantize_model` adds the rounding. A few epochs are
enough.
"""

old = kr.deploy.to_tf_keras(small)
rounded = tfmot.quantization.keras.quantize_model(old)
rounded.compile(tf_keras.optimizers.Adam(1e-3), loss)
rounded.fit(images[~test], labels[~test], batch_size=64, epochs=4, verbose=0)

"""
`kr.deploy.litert` takes the quantized network as it is: the network has learned
the ranges of its numbers.
"""

files["trained on, int8"] = kr.deploy.litert(
    rounded, "trained_on_int8.tflite", images[~test], quantize="int8"
)

"""
`from_tf_keras` copies the trained weights back to Keras 3, where you can save
and train the network. It computes without rounding, with weights that tolerate
it.
"""

again = kr.deploy.from_tf_keras(rounded, like=small)
again.save("small.keras")

"""
## What each step brought

On a device, a program hands one image after another to the interpreter. We do
the same here, to count how many digits each file reads.
"""


def accuracy(path):
    interpreter = Interpreter(model_path=path)
    run = interpreter.get_signature_runner()
    (name,) = run.get_input_details()
    answers = [run(**{name: x[None]})["output_0"] for x in images[test]]
    return float((np.argmax(answers, axis=-1)[:, 0] == labels[test]).mean())


print("step              parameters  multiply-adds     kB      ms  accuracy")
accuracies = {}
for step, exported in files.items():
    file, network = exported.file, model if step == "trained" else small
    accuracies[step] = accuracy(file.path)
    print(
        f"{step:16}  {network.count_params():10,}  {kr.flops(network):13,}  "
        f"{file.bytes / 1000:5.1f}  {file.milliseconds:6.3f}  "
        f"{accuracies[step]:8.1%}"
    )
