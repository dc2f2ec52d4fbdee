"""Makes a functional model of the steps that were drawn."""

import keras
from keras import layers, ops

from tests.strategies.tensors import LENGTH, MOST_CHANNELS, SIZE, convolution


class Builder:
    """Makes models of steps, with layers that several of them share."""

    def __init__(self):
        self.made = {}

    def shared(self, key, make):
        """The one object for `key`, made when it is first asked for."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def model(self, shape, drawn, head):
        inputs = keras.Input(shape)
        pool = [convolution(inputs, 6)]
        for step, a, b, width in drawn:
            x, y = pool[a % len(pool)], pool[b % len(pool)]
            made = step(self, x, y, width)
            if made.shape[-1] > MOST_CHANNELS:
                made = convolution(made, width, 1)
            pool.append(made)
        x = pool[-1]
        if len(pool) > 3:
            x = layers.Concatenate()([x, pool[-3]])
        return keras.Model(inputs, _top(x, head))


def build(drawn, head):
    """The functional model on images that the steps `drawn` describe."""
    return Builder().model((SIZE, SIZE, 3), drawn, head)


def build_sequences(drawn, head):
    """The same on sequences."""
    return Builder().model((LENGTH, 4), drawn, head)


def _top(x, head):
    if head == "flatten":
        return layers.Dense(3)(layers.Flatten()(x))
    if head == "map":
        return convolution(x, 2, 1)
    return layers.Dense(3)(ops.mean(x, axis=list(range(1, len(x.shape) - 1))))
