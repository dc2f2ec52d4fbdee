"""Random small graphs, drawn by hypothesis.

A graph is a list of steps on a pool of images of the same height and width,
or of sequences of the same length, so that any two of them can be combined.
A step is a function of a `Builder`, two tensors of the pool and a width.
"""

import contextlib

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

SIZE = 4
LENGTH = 6
MOST_CHANNELS = 24
JAX = keras.backend.backend() == "jax"
# Whether convolutions pad by a layer of their own, see `padding_apart`.
APART = [False]

seeds = st.integers(0, 2**31 - 1)
heads = st.sampled_from(["flatten", "pool", "map"])


def steps_of(*tables):
    """Lists of (step, place of x in the pool, place of y, width)."""
    step = st.tuples(
        st.sampled_from([step for table in tables for step in table]),
        st.integers(0, 50),
        st.integers(0, 50),
        st.integers(5, 9),
    )
    return st.lists(step, min_size=2, max_size=7)


@keras.saving.register_keras_serializable("tests")
class Shuffled(keras.layers.Layer):
    """A layer that no rule knows: it turns the channels round."""

    def call(self, x):
        return ops.flip(x, axis=-1)


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


def _of_rank(x, kind):
    return getattr(layers, kind.format(len(x.shape) - 2))


@contextlib.contextmanager
def padding_apart():
    """Have convolutions padded by layers before them.

    What they read is then constant where it looks so: a border that only the
    convolution adds is not seen by what calibrates on its inputs.
    """
    APART[0] = True
    try:
        yield
    finally:
        APART[0] = False


def convolution(x, width, size=3, **options):
    options = {"padding": "same", **options}
    if APART[0] and options["padding"] == "same":
        reach = (size - 1) * options.get("dilation_rate", 1)
        if reach:
            x = _of_rank(x, "ZeroPadding{}D")(reach // 2)(x)
        options["padding"] = "valid"
    return _of_rank(x, "Conv{}D")(width, size, **options)(x)


def like(x, y):
    """A convolution of `y` with as many channels as `x`."""
    return convolution(y, x.shape[-1], 1)


def even(x):
    """`x`, or a convolution of it with an even number of channels."""
    return convolution(x, x.shape[-1] + 1, 1) if x.shape[-1] % 2 else x


def array(*shape):
    values = np.random.default_rng(sum(shape)).normal(size=shape)
    return values.astype("float32")


def _positions(x):
    return list(range(1, len(x.shape) - 1))


def _flat(x):
    """(batch, positions, channels)."""
    return layers.Reshape((-1, x.shape[-1]))(x)


# --- kernels ----------------------------------------------------------------


def _dense(builder, x, y, width):
    return layers.Dense(width, activation="gelu")(x)


def _convolution(builder, x, y, width):
    return convolution(x, width, activation="relu")


def _dilated(builder, x, y, width):
    return convolution(x, width, dilation_rate=2, activation="tanh")


def _normalized(builder, x, y, width):
    x = convolution(x, width, use_bias=False)
    return layers.ReLU()(layers.BatchNormalization()(x))


def _grouped(builder, x, y, width):
    return convolution(even(x), 2 * width, groups=2, activation="relu")


def _grouped_and_shuffled(builder, x, y, width):
    x = convolution(even(x), 4 * (width // 2), groups=2)
    return convolution(_shuffle(builder, x, y, width), 2 * width, groups=2)


def _separable(builder, x, y, width):
    kind = _of_rank(x, "SeparableConv{}D")
    return kind(width, 3, padding="same", depth_multiplier=2)(x)


def _depthwise(builder, x, y, width):
    multiplier = 2 if x.shape[-1] < 10 else 1
    kind = _of_rank(x, "DepthwiseConv{}D")
    x = kind(3, padding="same", depth_multiplier=multiplier)(x)
    return layers.LeakyReLU()(x)


def _one_group_per_channel(builder, x, y, width):
    return convolution(x, x.shape[-1], groups=x.shape[-1])


def _transposed_kernel(builder, x, y, width):
    kind = _of_rank(x, "Conv{}DTranspose")
    return kind(width, 3, padding="same", activation="relu")(x)


def _upsampled(builder, x, y, width):
    """Each output of a strided kernel reads a part of it."""
    kind = _of_rank(x, "Conv{}DTranspose")
    x = kind(width, 4, strides=2, padding="same")(x)
    return _of_rank(x, "AveragePooling{}D")(2)(x)


def _two_output_axes(builder, x, y, width):
    shape = x.shape[1:-1]
    letters = "ab"[: len(shape)]
    x = layers.EinsumDense(
        f"x{letters}c,cde->x{letters}de", output_shape=(*shape, 2, width)
    )(x)
    return layers.Reshape((*shape, 2 * width))(x)


def _shared(builder, x, y, width):
    key = "shared", x.shape[-1]
    layer = builder.shared(key, lambda: layers.Dense(width, "relu"))
    return layer(x)


def _units_to_positions(builder, x, y, width):
    """A Dense layer whose units become channels at all positions."""
    shape = x.shape[1:-1]
    x = layers.Dense(int(np.prod(shape)) * width, "tanh")(_mean(x))
    return layers.Reshape((*shape, width))(x)


def _mean(x):
    return ops.mean(x, axis=_positions(x))


def _inner(shape, width):
    inputs = keras.Input(shape)
    x = layers.LeakyReLU()(convolution(inputs, width)) * array(width)
    y = ops.split(even(x), 2, axis=-1)[0]
    return keras.Model(inputs, layers.Concatenate()([x, y]))


def _nested(builder, x, y, width):
    return _inner(x.shape[1:], width)(x)


def _nested_and_shared(builder, x, y, width):
    key = "inner", x.shape[-1]
    inner = builder.shared(key, lambda: _inner(x.shape[1:], width))
    x, y = inner(x), inner(like(x, y))
    return convolution(x, width) + convolution(y, width)


def _nested_in_nested(builder, x, y, width):
    inputs = keras.Input(x.shape[1:])
    inner = keras.Sequential(
        [
            keras.Input((*x.shape[1:-1], None)),
            layers.Activation("tanh"),
            layers.Dropout(0.2),
        ]
    )
    middle = keras.Model(inputs, _nested(builder, inner(inputs), y, width))
    return inner(middle(x))


def _channels_first(builder, x, y, width):
    """On JAX alone with convolutions: TensorFlow has none on a CPU."""
    first = {"data_format": "channels_first"}
    x = ops.moveaxis(x, -1, 1)
    if JAX:
        kind = _of_rank(x, "Conv{}D")
        x = kind(width, 3, padding="same", activation="tanh", **first)(x)
    x = layers.BatchNormalization(axis=1)(x)
    shape = (x.shape[1], *[1] * (len(x.shape) - 2))
    return ops.moveaxis(x * array(*shape), 1, -1)


KERNELS = [
    _dense,
    _convolution,
    _dilated,
    _normalized,
    _grouped,
    _grouped_and_shuffled,
    _separable,
    _depthwise,
    _one_group_per_channel,
    _transposed_kernel,
    _upsampled,
    _two_output_axes,
    _shared,
    _units_to_positions,
    _nested,
    _nested_and_shared,
    _nested_in_nested,
    _channels_first,
]


# --- one tensor, channel by channel -----------------------------------------


def _bent(builder, x, y, width):
    activation = ["tanh", "sigmoid", "softplus", "selu"][width % 4]
    return layers.Activation(activation)(x)


def _prelu(builder, x, y, width):
    return layers.PReLU(shared_axes=[1])(x)


def _normalized_behind(builder, x, y, width):
    return layers.BatchNormalization()(layers.ReLU()(x))


def _normalized_twice(builder, x, y, width):
    """Two BatchNormalizations read the same sums."""
    a, b = (layers.BatchNormalization()(x) for _ in range(2))
    return layers.Concatenate()([layers.ReLU()(a), ops.tanh(b)])


def _per_channel(builder, x, y, width):
    letters = "ab"[: len(x.shape) - 2]
    return layers.EinsumDense(
        f"x{letters}c,c->x{letters}c",
        output_shape=x.shape[1:],
        bias_axes="c",
        activation="relu",
    )(x)


def _factors(builder, x, y, width):
    """Constants per channel, on the left and on the right."""
    shift, factor = array(x.shape[-1]), 1.5 + abs(array(x.shape[-1]))
    return ops.add(shift, x * factor) / factor


def _scaled(builder, x, y, width):
    return ops.add(0.5 * x, 0.25)


def _arrays(builder, x, y, width):
    x = ops.maximum(array(x.shape[-1]), x) - array(*x.shape[1:-1], 1)
    return ops.where(array(x.shape[-1]) > 0, ops.tanh(x), x)


def _instance_normalized(builder, x, y, width):
    return layers.GroupNormalization(groups=-1)(x)


def _unknown(builder, x, y, width):
    return Shuffled()(x)


def _softmax_over_positions(builder, x, y, width):
    return ops.softmax(x, axis=1) * x


def _standardised(builder, x, y, width):
    mean = ops.mean(x, axis=_positions(x), keepdims=True)
    return (x - mean) / (ops.std(x, axis=1, keepdims=True) + 1)


POINTWISE = [
    _bent,
    _prelu,
    _normalized_behind,
    _normalized_twice,
    _per_channel,
    _factors,
    _scaled,
    _arrays,
    _instance_normalized,
    _unknown,
    _softmax_over_positions,
    _standardised,
]


# --- moved and parted channels ----------------------------------------------


def _shuffle(builder, x, y, width):
    shape = x.shape[1:]
    x = layers.Reshape((*shape[:-1], 2, shape[-1] // 2))(even(x))
    return layers.Reshape(shape)(ops.swapaxes(x, -1, -2))


def _shuffled(builder, x, y, width):
    return _shuffle(builder, even(x), y, width)


def _heads(builder, x, y, width):
    """Channels in two axes, a kernel on the last, and back."""
    x = even(x)
    heads = layers.Reshape((*x.shape[1:-1], 2, x.shape[-1] // 2))(x)
    heads = layers.Dense(width)(heads)
    return layers.Reshape((*x.shape[1:-1], 2 * width))(heads)


def _positions_and_back(builder, x, y, width):
    flat = layers.Conv1D(width, 3, padding="same")(_flat(x))
    return ops.reshape(flat, (-1, *x.shape[1:-1], width))


def _positions_in_channels(builder, x, y, width):
    wide = layers.Reshape((x.shape[1], -1))(x)
    return layers.Reshape(x.shape[1:])(ops.tanh(wide))


def _transposed(builder, x, y, width):
    *others, last = range(1, len(x.shape) - 1)
    x = layers.Permute((last, *others, len(x.shape) - 1))(x)
    return layers.Reshape(y.shape[1:-1] + x.shape[-1:])(x)


def _mirrored(builder, x, y, width):
    return x + ops.tanh(ops.flip(x, axis=-1))


def _rolled(builder, x, y, width):
    return ops.roll(x, width - 7, axis=-1)


def _rolled_halves(builder, x, y, width):
    x = ops.roll(even(x), 2, axis=-1)
    x = layers.Reshape((*x.shape[1:-1], 2, x.shape[-1] // 2))(x)
    return x[..., 0, :] + ops.tanh(x[..., 1, :])


def _front(builder, x, y, width):
    return x[..., : width - 1]


def _back(builder, x, y, width):
    return x[..., -5:] if width % 2 else x[..., 1:]


def _every_other(builder, x, y, width):
    return even(x)[..., width % 2 :: 2]


def _gated(builder, x, y, width):
    a, b = ops.split(even(x), 2, axis=-1)
    return a * ops.sigmoid(b)


def _glu(builder, x, y, width):
    return ops.glu(even(x))


def _parts(builder, x, y, width):
    a, b = ops.split(x, [3], axis=-1)
    return ops.concatenate([ops.tanh(b), a], axis=-1)


def _tiled(builder, x, y, width):
    return ops.tile(x, 2)


def _repeated(builder, x, y, width):
    twice = ops.repeat(x, 2, axis=-1)
    return twice + like(twice, y)


MOVED = [
    _shuffled,
    _heads,
    _positions_and_back,
    _positions_in_channels,
    _transposed,
    _mirrored,
    _rolled,
    _rolled_halves,
    _front,
    _back,
    _every_other,
    _gated,
    _glu,
    _parts,
    _tiled,
    _repeated,
]


# --- several tensors --------------------------------------------------------


def _add(builder, x, y, width):
    return layers.Add()([x, like(x, y)])


def _plus(builder, x, y, width):
    return x + y if x.shape == y.shape else x + like(x, y)


def _times(builder, x, y, width):
    return layers.Multiply()([ops.tanh(x), ops.sigmoid(like(x, y))])


def _concatenate(builder, x, y, width):
    return layers.Concatenate()([x, y])


def _join_positions(builder, x, y, width):
    both = layers.Concatenate(axis=1)([x, like(x, y)])
    return both[:, : x.shape[1]] - both[:, x.shape[1] :]


def _stacked(builder, x, y, width):
    return ops.max(ops.stack([x, like(x, y)], axis=1), axis=1)


def _padded(builder, x, y, width):
    """The shortcut of CIFAR ResNets."""
    pad = [[0, 0]] * (len(x.shape) - 1) + [[1, 2]]
    return ops.pad(x, pad) + convolution(y, x.shape[-1] + 3)


def _thin(builder, x, y, width):
    return x * ops.sigmoid(convolution(y, 1))


def _squeeze_and_excite(builder, x, y, width):
    weights = layers.Dense(width, activation="relu")(_mean(x))
    weights = layers.Dense(x.shape[-1], activation="sigmoid")(weights)
    return x * layers.Reshape((*[1] * len(_positions(x)), -1))(weights)


def _weights_of_rows(builder, x, y, width):
    weights = layers.Dense(x.shape[1], activation="sigmoid")(_mean(y))
    shape = (x.shape[1], *[1] * (len(x.shape) - 2))
    return x * layers.Reshape(shape)(weights)


def _largest_channel(builder, x, y, width):
    return x + ops.tanh(ops.max(y, axis=-1, keepdims=True))


def _chosen(builder, x, y, width):
    y = like(x, y)
    return ops.where(x > y, x, ops.tanh(y))


def _attention(builder, x, y, width):
    """Queries and keys stay, values are followed."""
    query, key = (layers.Dense(4)(_flat(z)) for z in (x, y))
    scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))))
    value = layers.Dense(width)(_flat(y))
    return ops.reshape(scores @ value, (-1, *x.shape[1:-1], width))


def _einsum(builder, x, y, width):
    weights = ops.tanh(layers.Dense(x.shape[1])(_flat(y)[:, : x.shape[1]]))
    rest = "wc" if len(x.shape) == 4 else "c"
    return ops.einsum(f"bi{rest},bij->bj{rest}", x, weights)


COMBINED = [
    _add,
    _plus,
    _times,
    _concatenate,
    _join_positions,
    _stacked,
    _padded,
    _thin,
    _squeeze_and_excite,
    _weights_of_rows,
    _largest_channel,
    _chosen,
    _attention,
    _einsum,
]


# --- inexact ----------------------------------------------------------------


def _layer_normalized(builder, x, y, width):
    return layers.LayerNormalization()(x)


def _group_normalized(builder, x, y, width):
    return layers.GroupNormalization(groups=2)(even(x))


def _softmax(builder, x, y, width):
    return ops.softmax(x)


def _centred(builder, x, y, width):
    return x - ops.mean(x, axis=-1, keepdims=True)


INEXACT = [_layer_normalized, _group_normalized, _softmax, _centred]
EXACT = KERNELS + POINTWISE + MOVED + COMBINED
# Between these kernels nothing is but f with f(s x) = s f(x), s > 0, and what
# scales with x: copies w and s w go as well as w and w.
HOMOGENEOUS = [
    _convolution,
    _normalized,
    _normalized_behind,
    _grouped,
    _depthwise,
    _upsampled,
    _two_output_axes,
    _prelu,
    _per_channel,
    _factors,
    _shuffled,
    _front,
    _back,
    _tiled,
    _add,
    _plus,
    _concatenate,
    _stacked,
    _thin,
]


# --- sequences --------------------------------------------------------------


def _lstm(builder, x, y, width):
    return layers.LSTM(width, return_sequences=True)(x)


def _gru(builder, x, y, width):
    reset_after = width % 2 == 0
    gru = layers.GRU(width, return_sequences=True, reset_after=reset_after)
    return gru(x)


def _last_state(builder, x, y, width):
    state = layers.SimpleRNN(width, "relu")(x)
    return layers.RepeatVector(LENGTH)(state)


def _both_directions(builder, x, y, width):
    mode = "concat" if width % 2 else "sum"
    inner = layers.LSTM(width, return_sequences=True)
    return layers.Bidirectional(inner, merge_mode=mode)(x)


def _over_time(builder, x, y, width):
    return layers.TimeDistributed(layers.Dense(width, activation="relu"))(x)


def _multi_head_attention(builder, x, y, width):
    attention = layers.MultiHeadAttention(4, 3, value_dim=2)
    return x + attention(x, y)


def _grouped_query_attention(builder, x, y, width):
    return layers.GroupQueryAttention(3, 6, 3)(x, like(x, y))


def _dot_attention(builder, x, y, width):
    value = layers.Dense(width)(y)
    return layers.Attention()([x, value, like(x, y)])


RECURRENT = [_lstm, _gru, _last_state, _both_directions]
ATTENTION = [
    _multi_head_attention,
    _grouped_query_attention,
    _dot_attention,
]
SEQUENCES = [*EXACT, *3 * [*RECURRENT, *ATTENTION, _over_time]]
