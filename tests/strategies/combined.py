"""Steps that combine several tensors."""

from keras import layers, ops

from tests.strategies.tensors import (
    convolution,
    like,
    mean_of,
    positions_of,
    sequence_of,
)


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
    weights = layers.Dense(width, activation="relu")(mean_of(x))
    weights = layers.Dense(x.shape[-1], activation="sigmoid")(weights)
    return x * layers.Reshape((*[1] * len(positions_of(x)), -1))(weights)


def _weights_of_rows(builder, x, y, width):
    weights = layers.Dense(x.shape[1], activation="sigmoid")(mean_of(y))
    shape = (x.shape[1], *[1] * (len(x.shape) - 2))
    return x * layers.Reshape(shape)(weights)


def _largest_channel(builder, x, y, width):
    return x + ops.tanh(ops.max(y, axis=-1, keepdims=True))


def _chosen(builder, x, y, width):
    y = like(x, y)
    return ops.where(x > y, x, ops.tanh(y))


def _attention(builder, x, y, width):
    """Queries and keys stay, values are followed."""
    query, key = (layers.Dense(4)(sequence_of(z)) for z in (x, y))
    scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))))
    value = layers.Dense(width)(sequence_of(y))
    return ops.reshape(scores @ value, (-1, *x.shape[1:-1], width))


def _einsum(builder, x, y, width):
    weights = ops.tanh(
        layers.Dense(x.shape[1])(sequence_of(y)[:, : x.shape[1]])
    )
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


# Of these, f with f(s x) = s f(x) for s > 0, and kernels.
HOMOGENEOUS = [
    _add,
    _plus,
    _concatenate,
    _stacked,
    _thin,
]
