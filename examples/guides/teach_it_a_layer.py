"""
Title: Teach it a layer of your own
Author: the authors of keras_redundancy
Date created: 2026/11/25
Last modified: 2026/11/25
Description: Write a rule for a custom layer, so that pruning goes through it.
Accelerator: None
"""

"""
## Introduction

`keras_redundancy` follows every channel of a model from the layer that writes
it to the layers that read it. For that it has a rule for each layer of Keras. A
layer of your own needs none as long as it is made of such layers and of
operations of `keras.ops`: its `call` is run once on symbols, and the graph that
it records is followed. Some operations have no rule, such as a loop over time.
In this guide we write a rule for a layer with such a loop, and use a ready-made
rule for a block with a wide part inside.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr

keras.utils.set_random_seed(0)

"""
## A layer that cannot be followed

`RunningMean` averages over time, and forgets each channel at a rate of its own.
It is registered with Keras, as any custom layer has to be, so that the smaller
model can be saved and loaded.
"""


@keras.saving.register_keras_serializable(package="guides")
class RunningMean(layers.Layer):
    def build(self, shape):
        self.keep = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, x):
        def step(mean, x_now):
            mean = self.keep * mean + (1 - self.keep) * x_now
            return mean, mean

        times = keras.ops.moveaxis(x, 1, 0)
        first = keras.ops.zeros_like(times[0])
        _, means = keras.ops.scan(step, first, times)
        return keras.ops.moveaxis(means, 0, 1)


def build():
    return keras.Sequential(
        [
            keras.Input((10, 20)),
            layers.Dense(32, activation="relu", name="wide"),
            RunningMean(name="mean"),
            layers.Dense(3, name="answer"),
        ]
    )


model = build()
without_rule = kr.plan(model, ratio=0.5)
without_rule.explain().render()

"""
The table says that the units of `wide` stay because there is no rule for
`scan`. The package does not guess: the loop might mix the channels.

## Write the rule

A rule is a function of the layer and of one call of it. It answers two
questions.

1. Which variables hold an entry for each channel, and on which axis? Here
   `layer.keep`, on axis 0: `call.carried_by` says so, and the variable will be
   cut with the channels.
2. Which channels come out? Each channel of the output is computed from the
   same channel of the input and from no other, so both are kept or removed
   together: `call.tied` says that.

`help(kr.CallTrace)` has a table of all that a rule can say.
"""


@kr.register_rule(RunningMean)
def running_mean(layer, call):
    x = call.inputs[0]
    call.carried_by(layer.keep, 0, x.ids)
    return kr.Channels(call.tied(x.ids), x.axis)


model = build()
small = kr.prune(model, ratio=0.5)
kr.difference(model, small).render()

"""
Half of the units were removed, and with them half of `keep`.

## Check it

A rule that is wrong gives a wrong smaller model. There is a simple test: make
some units exact copies of others, in everything that belongs to them, and
prune just below `tau=1`. This has to remove exactly the copies, and must not
change the output.
"""

wide, mean, answer = model.layers[-3:]
kernel, bias = wide.get_weights()
kernel[:, 16:], bias[16:] = kernel[:, :16], bias[:16]
wide.set_weights([kernel, bias])
keep = np.linspace(0.1, 0.9, 16)
mean.keep.assign(np.concatenate([keep, keep]))

small = kr.prune(model, tau=0.9999)
x = np.random.default_rng(0).normal(size=(100, 10, 20)).astype("float32")
error = np.abs(model.predict(x, verbose=0) - small.predict(x, verbose=0)).max()
print(f"{small.layers[-2].keep.shape[0]} of 32 channels are left,")
print(f"the output differs by at most {error:.1e}")

"""
## A block with a wide part inside

Many custom layers are blocks: layers that hold layers, such as the feed-forward
part of a transformer, whose width inside is an argument of the constructor. The
package finds that out by itself where it can follow the block. Where it cannot,
there is a ready-made rule, `kr.hidden_widths`: the channels that go into the
block and come out of it stay, and you say which argument sets the width inside,
and which attributes hold the layers that write and read the channels there.
"""


@keras.saving.register_keras_serializable(package="guides")
class FeedForward(layers.Layer):
    def __init__(self, ff_dim, **options):
        super().__init__(**options)
        self.ff_dim = ff_dim
        self.expand = layers.Dense(ff_dim, activation="gelu")
        self.project = layers.Dense(16)

    def build(self, shape):
        self.expand.build(shape)
        self.project.build((*shape[:-1], self.ff_dim))
        self.built = True

    def call(self, x):
        return x + self.project(self.expand(x))

    def get_config(self):
        return {**super().get_config(), "ff_dim": self.ff_dim}


kr.register_rule(FeedForward, kr.hidden_widths(ff_dim=("expand", "project")))

inputs = keras.Input((10, 16))
x = FeedForward(64, name="block1")(inputs)
x = FeedForward(64, name="block2")(x)
model = keras.Model(inputs, layers.Dense(3)(x))

small = kr.prune(model, ratio=0.5)
for block in small.layers[1:3]:
    print(f"{block.name} is built again with ff_dim={block.ff_dim}")

"""
The constructor of `FeedForward` makes the smaller block, from the config of the
original with another `ff_dim`. So `small.save` and `keras.models.load_model`
work as for the original, wherever the class can be imported.
"""

small.save("small.keras")
again = keras.models.load_model("small.keras")
assert again.count_params() == small.count_params()
