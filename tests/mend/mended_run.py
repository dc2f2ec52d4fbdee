"""The weights of a mended model, for a process of its own.

KERAS_BACKEND=jax python -m tests.mend.mended_run FILE.npz
"""

import sys

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from tests import faster_jax, models

if keras.backend.backend() == "jax":
    faster_jax.add_flag()
    faster_jax.share_context()


def network():
    inputs = x = keras.Input((12, 12, 3))
    x = layers.Conv2D(12, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(20, activation="tanh")(x)
    return models.randomized(
        keras.Model(inputs, layers.Dense(4, activation="softmax")(x))
    )


def main(path):
    model = network()
    data = models.random_inputs(model, batch=150)
    small = kr.prune(model, ratio=0.4, data=data, select="l1", batch_size=40)
    np.savez(path, *small.get_weights())


if __name__ == "__main__":
    main(*sys.argv[1:])
