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
it to the layers that read it. For that it has a rule for each layer of Keras.
A layer of your own has none, so the channels that go into it and come out of it
are not pruned. In this guide we write a rule for a layer that scales channels,
and use a ready-made rule for a block with a wide part inside.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr

keras.utils.set_random_seed(0)

"""
## A layer without a rule

`ChannelScale` multiplies each channel by a number of its own. It is registered
with Keras, as any custom layer has to be, so that the smaller model can be
saved and loaded.
"""


@keras.saving.register_keras_serializable(package="guides")
class ChannelScale(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, x):
        return x * self.scale


def build():
    return keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(32, activation="relu", name="wide"),
            ChannelScale(name="scale"),
            layers.Dense(3, name="answer"),
        ]
    )


model = build()
without_rule = kr.plan(model, ratio=0.5)
without_rule.explain().render()

"""
The table says that the units of `wide` stay because there is no rule for
`scale`. The package does not guess: the layer might mix its channels.

## Write the rule

A rule is a function of the layer and of one call of it. It answers two
questions.

1. Which variables hold an entry for each channel, and on which axis? Here
   `layer.scale`, on axis 0: `call.carried_by` says so, and the variable will be
   cut with the channels.
2. Which channels come out? Each channel of the output is computed from the
   same channel of the input and from no other, so both are kept or removed
   together: `call.tied` says that.

`help(kr.CallTrace)` has a table of all that a rule can say.
"""


@kr.register_rule(ChannelScale)
def channel_scale(layer, call):
    x = call.inputs[0]
    call.carried_by(layer.scale, 0, x.ids)
    return kr.Channels(call.tied(x.ids), x.axis)


model = build()
small = kr.prune(model, ratio=0.5)
kr.difference(model, small).render()

"""
Half of the units were removed, and with them half of `scale`.

## Check it

A rule that is wrong gives a wrong smaller model. There is a simple test: make
some units exact copies of others, in everything that belongs to them, and
prune just below `tau=1`. This has to remove exactly the copies, and must not
change the output.
"""

wide, scale, answer = model.layers[-3:]
kernel, bias = wide.get_weights()
kernel[:, 16:], bias[16:] = kernel[:, :16], bias[:16]
wide.set_weights([kernel, bias])

small = kr.prune(model, tau=0.9999)
x = np.random.default_rng(0).normal(size=(100, 20)).astype("float32")
error = np.abs(model.predict(x, verbose=0) - small.predict(x, verbose=0)).max()
print(f"{small.layers[-2].scale.shape[0]} of 32 channels are left,")
print(f"the output differs by at most {error:.1e}")

"""
## A block with a wide part inside

Many custom layers are blocks: layers that hold layers, such as the feed-forward
part of a transformer. The channels that go into the block and come out of it
are fixed; the width inside is an argument of the constructor. For such blocks
there is a ready-made rule, `kr.hidden_widths`. You tell it which argument sets
the width, and which attributes hold the layers that write and read the channels
inside.
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
