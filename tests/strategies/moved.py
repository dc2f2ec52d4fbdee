"""Steps that move channels, or take parts of them."""

from keras import layers, ops

from tests.strategies.tensors import even, halves_in_turn, like, sequence_of


def _shuffled(builder, x, y, width):
    return halves_in_turn(even(x))


def _heads(builder, x, y, width):
    """Channels in two axes, a kernel on the last, and back."""
    x = even(x)
    heads = layers.Reshape((*x.shape[1:-1], 2, x.shape[-1] // 2))(x)
    heads = layers.Dense(width)(heads)
    return layers.Reshape((*x.shape[1:-1], 2 * width))(heads)


def _positions_and_back(builder, x, y, width):
    flat = layers.Conv1D(width, 3, padding="same")(sequence_of(x))
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


# Of these, f with f(s x) = s f(x) for s > 0, and kernels.
HOMOGENEOUS = [
    _shuffled,
    _front,
    _back,
    _tiled,
]
