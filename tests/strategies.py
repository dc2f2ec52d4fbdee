"""Random small graphs, drawn by hypothesis.

A graph is a list of steps on a pool of image tensors of the same height and
width, so that any two of them can be added or concatenated.
"""

import keras
from hypothesis import strategies as st
from keras import layers

SIZE = 5

steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "convolution",
                "normalized convolution",
                "activation",
                "add",
                "concatenate",
                "plus",
                "scaled",
                "shared convolution",
                "nested",
                "unknown",
            ]
        ),
        st.integers(0, 50),
        st.integers(0, 50),
        st.integers(5, 9),
    ),
    min_size=2,
    max_size=7,
)
heads = st.sampled_from(["flatten", "pool", "map"])
seeds = st.integers(0, 2**31 - 1)


@keras.saving.register_keras_serializable("tests")
class Shuffled(keras.layers.Layer):
    """A layer that no rule knows: it turns the channels round."""

    def call(self, x):
        return keras.ops.flip(x, axis=-1)


def build(drawn, head):
    """The functional model that the steps `drawn` describe."""
    inputs = keras.Input((SIZE, SIZE, 3))
    pool = [_convolution(6)(inputs)]
    shared = {}
    for kind, a, b, width in drawn:
        x, y = pool[a % len(pool)], pool[b % len(pool)]
        pool.append(_step(kind, x, y, width, shared))
    x = pool[-1]
    if len(pool) > 3:
        x = layers.Concatenate()([x, pool[-3]])
    if head == "flatten":
        x = layers.Dense(3)(layers.Flatten()(x))
    elif head == "pool":
        x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    else:
        x = layers.Conv2D(2, 1)(x)
    return keras.Model(inputs, x)


def _convolution(width, **options):
    return layers.Conv2D(width, 3, padding="same", **options)


def _step(kind, x, y, width, shared):
    channels = x.shape[-1]
    if kind == "convolution":
        return _convolution(width, activation="relu")(x)
    if kind == "normalized convolution":
        x = _convolution(width, use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))
    if kind == "activation":
        return layers.Activation("tanh")(x)
    if kind == "concatenate":
        return layers.Concatenate()([x, y])
    if kind == "shared convolution":
        if channels not in shared:
            shared[channels] = _convolution(width)
        return shared[channels](x)
    if kind == "nested":
        inner_in = keras.Input((SIZE, SIZE, channels))
        inner_out = layers.LeakyReLU()(_convolution(width)(inner_in))
        return keras.Model(inner_in, inner_out)(x)
    if kind == "unknown":
        return Shuffled()(x)
    if kind == "scaled":
        return keras.ops.add(0.5 * x, 0.25)
    y = layers.Conv2D(channels, 1)(y)
    return x + y if kind == "plus" else layers.Add()([x, y])
