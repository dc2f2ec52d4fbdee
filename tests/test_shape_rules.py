"""Rules of operations that move axes, or take parts of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.rule_checks import assert_copies_go, prune


def image_model(between, width=16, **options):
    """`between` takes an image of 6 x 6 positions and 16 channels."""
    inputs = keras.Input((6, 6, 5), **options)
    x = layers.Conv2D(width, 3, padding="same", activation="relu", name="a")
    x = layers.Flatten()(between(x(inputs)))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def vector_model(between, width=48):
    """`between` takes vectors of 48 channels."""
    inputs = keras.Input((12,))
    x = layers.Dense(width, activation="relu", name="a")(inputs)
    x = layers.Flatten()(between(x))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def assert_followed(model, tmp_path=None, sizes=None, **options):
    """Copies go, and no unit has to stay but those of the output.

    `sizes` are the numbers of units that the spaces should have.
    """
    graph = assert_copies_go(model, tmp_path, **options)
    stays = {s.name: s.frozen for s in graph.spaces if s.frozen and s.producers}
    assert stays == {"top": "it is an output of the model"}
    if sizes is not None:
        assert [s.size for s in graph.prunable] == sizes
    return graph


def reshape(*shape):
    return lambda x: layers.Reshape(shape)(x)


def reshape_operation(*shape):
    return lambda x: ops.reshape(x, (-1, *shape))


IMAGES = {
    "flatten": (lambda x: layers.Flatten()(x), 16),
    "keep": (reshape(36, 16), 16),
    "keep, open positions": (reshape(-1, 16), 16),
    "keep, open channels": (reshape(36, -1), 16),
    "other positions": (reshape(3, 12, 16), 16),
    "one more axis": (reshape(6, 6, 16, 1), 16),
    "one more axis before": (reshape(6, 6, 1, 16), 16),
    "rows into channels": (reshape(6, 96), 16),
    "two positions into channels": (reshape(18, 32), 16),
    "four positions, open channels": (reshape(9, -1), 16),
    "two positions, open positions": (reshape(-1, 32), 16),
    "channels in two axes": (reshape(6, 6, 4, 4), 4),
    "channels in three axes": (reshape(36, 2, 2, 4), 4),
    "channels in two axes, open": (reshape(36, -1, 4), 4),
    "channels among open positions": (reshape(-1, 8), 8),
    "channels among columns": (reshape(6, 24, 4), 4),
    "ops": (reshape_operation(6, 6, 16), 16),
    "ops, flat": (reshape_operation(576), 16),
    "ops, channels in two axes": (reshape_operation(36, 2, 8), 8),
    "positions in the batch": (
        lambda x: reshape_operation(36, 16)(ops.reshape(x, (-1, 16))),
        16,
    ),
    "rows in the batch": (
        lambda x: reshape_operation(36, 16)(ops.reshape(x, (-1, 96))),
        16,
    ),
    "permute": (lambda x: layers.Permute((3, 1, 2))(x), 16),
    "permute positions": (lambda x: layers.Permute((2, 1, 3))(x), 16),
    "permute and reshape": (
        lambda x: reshape(16, 36)(layers.Permute((3, 1, 2))(x)),
        16,
    ),
    "permute and halve": (
        lambda x: reshape(32, 18)(layers.Permute((3, 1, 2))(x)),
        16,
    ),
    "transpose": (lambda x: ops.transpose(x, (0, 3, 2, 1)), 16),
    "swapaxes": (lambda x: ops.swapaxes(x, 1, -1), 16),
    "moveaxis": (lambda x: ops.moveaxis(x, -1, 1), 16),
    "moveaxis, several": (lambda x: ops.moveaxis(x, [1, -1], [2, 1]), 16),
    "expand_dims": (lambda x: ops.expand_dims(x, 1), 16),
    "expand_dims, last": (lambda x: ops.expand_dims(x, -1), 16),
    "expand_dims, several": (lambda x: ops.expand_dims(x, (1, -1)), 16),
    "squeeze": (lambda x: ops.squeeze(reshape(1, 36, 1, 16)(x), 1), 16),
    "squeeze, several": (
        lambda x: ops.squeeze(reshape(1, 36, 1, 16)(x), (1, -2)),
        16,
    ),
    "repeat": (lambda x: ops.repeat(x, 2, axis=-1), 16),
    "repeat positions": (lambda x: ops.repeat(x, 2, axis=1), 16),
    "tile": (lambda x: ops.tile(x, 3), 16),
    "tile all axes": (lambda x: ops.tile(x, (1, 2, 1, 3)), 16),
    "flip": (lambda x: ops.flip(x, -1), 16),
    "flip positions": (lambda x: ops.flip(x, (1, 2)), 16),
    "roll": (lambda x: ops.roll(x, 5, axis=-1), 16),
    "roll back": (lambda x: ops.roll(x, -21, axis=3), 16),
    "roll positions": (lambda x: ops.roll(x, (1, -2), axis=(1, 2)), 16),
    "pad positions": (
        lambda x: ops.pad(x, ((0, 0), (1, 0), (2, 1), (0, 0))),
        16,
    ),
    "reflect positions": (
        lambda x: ops.pad(x, [[0, 0], [1, 1], [2, 2], [0, 0]], "reflect"),
        16,
    ),
    "take positions": (lambda x: ops.take(x, [5, 0, 2], axis=1), 16),
    "take one position": (lambda x: ops.take(x, 3, axis=2), 16),
    "take a table of positions": (
        lambda x: ops.take(x, [[5, 0], [2, 2]], axis=-2),
        16,
    ),
    "unstack": (lambda x: ops.stack(ops.unstack(x, axis=1)[1:4], axis=2), 16),
    "unstack rows": (lambda x: ops.unstack(x, axis=-2)[0], 16),
    "one position": (lambda x: x[:, 2], 16),
    "one column, one more axis": (lambda x: x[:, ::2, None, -1], 16),
    "positions, mirrored": (lambda x: x[:, ::-1, 1:-1], 16),
    "all channels": (lambda x: x[..., :16], 16),
    "channels, mirrored": (lambda x: x[..., ::-1], 16),
    "channels, mirrored, with bounds": (lambda x: x[..., 15:-17:-1], 16),
    "every other channel": (lambda x: x[..., ::2], 8),
    "every fourth channel": (lambda x: x[..., 3::4], 4),
    "upsampling": (lambda x: layers.UpSampling2D(2)(x), 16),
    "resizing": (lambda x: layers.Resizing(4, 8)(x), 16),
    "resize": (lambda x: ops.image.resize(x, (9, 3)), 16),
    "pad images": (lambda x: ops.image.pad_images(x, 1, 2, 1, 2), 16),
    "crop images": (lambda x: ops.image.crop_images(x, 1, 2, 1, 2), 16),
    "center crop": (lambda x: layers.CenterCrop(4, 3)(x), 16),
    "adaptive pooling": (lambda x: layers.AdaptiveMaxPooling2D(3)(x), 16),
    "depth to space": (lambda x: ops.nn.depth_to_space(x, 2), 4),
    "space to depth": (lambda x: ops.nn.space_to_depth(x, 3), 16),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name, tmp_path):
    between, size = IMAGES[name]
    assert_followed(image_model(between), tmp_path, size and [size])


VECTORS = {
    "flatten": (lambda x: layers.Flatten()(x), 48),
    "image": (reshape(2, 2, 12), 12),
    "sequence": (reshape(4, 12), 12),
    "open positions": (reshape(-1, 12), 12),
    "open channels": (reshape(4, -1), 12),
    "ops": (reshape_operation(2, 2, 12), 12),
    "transposed": (lambda x: layers.Permute((2, 1))(reshape(4, 12)(x)), 12),
    "and split again": (
        lambda x: reshape(2, 2, 3, 4)(reshape(2, 2, 12)(x)),
        4,
    ),
    "expand_dims": (lambda x: ops.expand_dims(x, -1), 48),
    "repeat vector": (lambda x: layers.RepeatVector(3)(x), 48),
    "broadcast": (lambda x: ops.tile(x[:, None], (1, 5, 1)), 48),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name, tmp_path):
    between, size = VECTORS[name]
    assert_followed(vector_model(between), tmp_path, [size])


@pytest.mark.parametrize("first", [False, True])
def test_units_that_become_an_image(first, tmp_path):
    """Dense(3 * 3 * 24) reshaped to an image: 24 units of 9 neurons each."""
    form = "channels_first" if first else "channels_last"
    if first and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow convolves channels_first on a GPU alone")
    default = keras.config.image_data_format()
    keras.config.set_image_data_format(form)
    try:
        inputs = keras.Input((12,))
        x = layers.Dense(3 * 3 * 24, activation="relu", name="a")(inputs)
        x = layers.Reshape((24, 3, 3) if first else (3, 3, 24))(x)
        x = layers.BatchNormalization(axis=1 if first else -1)(x)
        x = layers.UpSampling2D(2)(x)
        x = layers.Conv2D(8, 3, activation="relu", name="b")(x)
        x = layers.Dense(3, name="top")(layers.Flatten()(x))
        graph = assert_followed(keras.Model(inputs, x), tmp_path, [24, 8])
    finally:
        keras.config.set_image_data_format(default)
    (producer, *_) = graph.prunable[0].axes
    channels = np.arange(216).reshape((24, 9) if first else (9, 24))
    np.testing.assert_array_equal(
        np.sort(producer.positions), channels if first else channels.T
    )


@pytest.mark.parametrize("pool", [ops.max_pool, ops.average_pool])
def test_pooling_operations(pool):
    """Not saved: on JAX, Keras cannot run them after loading."""
    assert_followed(image_model(lambda x: pool(x, (2, 2), (2, 2))), None, [16])


def test_open_sizes(tmp_path):
    inputs = keras.Input((None, None, 5))
    x = layers.Conv2D(16, 3, activation="relu", name="a")(inputs)
    x = layers.Reshape((-1, 16))(x)
    x = layers.Conv1D(8, 2, activation="relu", name="b")(x)
    x = ops.reshape(ops.expand_dims(x, 2), (-1, 8))
    model = keras.Model(inputs, layers.Dense(3, name="top")(x))
    assert_followed(model, tmp_path, [16, 8])


def test_open_sizes_behind_the_channels(tmp_path):
    inputs = keras.Input((None, None, 5))
    x = layers.Conv2D(16, 3, activation="relu", name="a")(inputs)
    x = layers.Reshape((16, -1))(layers.Permute((3, 1, 2))(x))
    model = keras.Model(inputs, layers.Dense(3, name="top")(ops.max(x, -1)))
    assert_followed(model, tmp_path, [16])


def test_a_fixed_batch(tmp_path):
    def between(x):
        x = ops.reshape(x, (4, 36, 16))
        return ops.broadcast_to(x[:, None], (4, 2, 36, 16))

    assert_followed(image_model(between, batch_size=4), tmp_path, [16])


def test_flatten_of_channels_first(tmp_path):
    def between(x):
        x = layers.Permute((3, 1, 2))(x)
        x = layers.MaxPooling2D(2, data_format="channels_first")(x)
        return layers.Flatten(data_format="channels_first")(x)

    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow pools channels_first on a GPU alone")
    assert_followed(image_model(between), tmp_path, [16])


# --- parts of the channels --------------------------------------------------


def joined(*parts):
    """The parts, each through a kernel of its own, side by side."""
    return ops.concatenate(
        [ops.tanh(layers.Dense(6)(part)) for part in parts], axis=-1
    )


PARTS = {
    "front": (lambda x: x[..., :9], [9, 7]),
    "front, from the end": (lambda x: x[..., :-7], [9, 7]),
    "back": (lambda x: x[..., 9:], [9, 7]),
    "back, from the end": (lambda x: x[..., -7:], [9, 7]),
    "middle": (lambda x: x[:, :, :, 5:11], [5, 6, 5]),
    "middle, from the end": (lambda x: x[..., -11:-5], [5, 6, 5]),
    "beyond": (lambda x: x[..., 9:99], [9, 7]),
    "front and back": (lambda x: joined(x[..., :9], x[..., 9:]), [9, 7]),
    "overlapping": (lambda x: joined(x[..., :11], x[..., 5:]), [5, 6, 5]),
    "front, mirrored": (lambda x: x[..., :9][..., ::-1], [9, 7]),
    "front of an odd half": (lambda x: x[..., 1::2][..., :4], [4, 4]),
    "halves": (lambda x: joined(*ops.split(x, 2, axis=-1)), [8, 8]),
    "a single part": (lambda x: ops.split(x, 1, axis=-1)[0], [16]),
    "one half": (lambda x: ops.split(x, 2, axis=3)[1], [8, 8]),
    "parts": (lambda x: joined(*ops.split(x, [5, 11], axis=-1)), [5, 6, 5]),
    "halves of positions": (lambda x: ops.split(x, 2, axis=1)[1], [16]),
    "even parts": (lambda x: joined(*ops.array_split(x, 4, axis=-1)), [4]),
    "uneven rows": (lambda x: ops.array_split(x, 4, axis=1)[2], [16]),
    "channels in the middle": (
        lambda x: ops.transpose(x, (0, 3, 1, 2))[:, 4:, None, 1:],
        [4, 12],
    ),
    "halves multiplied": (
        lambda x: ops.multiply(*ops.split(x, 2, axis=-1)),
        [8],
    ),
    "part of a flattened image": (
        lambda x: layers.Flatten()(x)[:, : 16 * 20],
        [16],
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts(name, tmp_path):
    between, sizes = PARTS[name]
    graph = assert_followed(image_model(between), tmp_path)
    found = [s.size for s in graph.prunable if s.name == "a"]
    assert found == sizes


SINGLE = {
    "first": (lambda x: x[..., 0], 0, [15]),
    "one": (lambda x: x[..., 6], 6, [6, 9]),
    "last": (lambda x: x[..., -1], 15, [15]),
    "from the end": (lambda x: x[..., -5], 11, [11, 4]),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_channel_stays(name, tmp_path):
    """Its number is counted again among the channels that stay."""
    pick, number, sizes = SINGLE[name]

    def between(x):
        return ops.concatenate([x, x * ops.expand_dims(pick(x), -1)], -1)

    graph = assert_copies_go(image_model(between), tmp_path)
    assert [s.size for s in graph.prunable if s.name == "a"] == sizes
    (stays,) = (s for s in graph.spaces if s.frozen and s.name == "a")
    assert f"takes the single channel {number}" in stays.frozen


@pytest.mark.parametrize("cut", [lambda x: x[..., :-7], lambda x: x[..., -7]])
def test_bounds_from_the_end_when_only_the_end_is_cut(cut):
    """x[..., :-7] of 16 channels is x[..., :9] when some of the 7 go."""

    def between(x):
        y = cut(x)
        y = y if len(y.shape) == 4 else ops.expand_dims(y, -1)
        return ops.concatenate([layers.Dense(6)(y), x], -1)

    only_a = {"tau": 0.9999, "layers": "a"}
    model = models.randomized(image_model(between))
    *_, last = (s for s in kr.trace(model).prunable if s.name == "a")
    models.copy_units(last, np.array([0, 1]), np.array([3, 5]))
    small = kr.prune(model, **only_a)
    assert small.get_layer("a").filters == 14
    models.assert_same_function(model, small)


def test_equal_sections_when_only_the_second_is_cut():
    model = models.randomized(
        image_model(lambda x: joined(*ops.split(x, 2, axis=-1)))
    )
    _, second, *_ = kr.trace(model).prunable
    models.copy_units(second, np.array([0, 1]), np.array([3, 5]))
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("a").filters == 14
    models.assert_same_function(model, small)


def test_a_shift_when_only_other_channels_are_cut():
    def between(x):
        return joined(x[..., :10], ops.roll(x, -10, axis=-1))

    model = models.randomized(image_model(between))
    first, *_ = kr.trace(model).prunable
    models.copy_units(first, np.array([0, 1]), np.array([3, 5]))
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("a").filters == 14
    models.assert_same_function(model, small)


def sliced_block(cut, size=None):
    inner_in = keras.Input((6, 6, size))
    return keras.Model(inner_in, ops.tanh(cut(inner_in)), name="inner")


def test_parts_in_a_model_that_is_used_twice(tmp_path):
    """One setting serves two calls: both lose the same channels."""
    inner = sliced_block(
        lambda x: ops.concatenate(ops.split(x, [4], -1)[::-1], -1)
    )
    inputs = keras.Input((6, 6, 5))
    x, y = (
        layers.Conv2D(16, 3, padding="same", name=name)(inputs) for name in "ab"
    )
    x = layers.Flatten()(ops.concatenate([inner(x), inner(y)], 1))
    model = keras.Model(inputs, layers.Dense(3, name="top")(x))
    graph = assert_followed(model, tmp_path)
    assert [len(s.producers) for s in graph.prunable] == [2, 2]
    assert [s.size for s in graph.prunable] == [4, 12]


def test_parts_in_a_model_that_is_used_at_two_widths():
    """The bound from the end cannot be rewritten for both."""
    inner = sliced_block(lambda x: x[..., :-4])
    inputs = keras.Input((6, 6, 5))
    x, y = layers.Conv2D(16, 1)(inputs), layers.Conv2D(12, 1)(inputs)
    x = layers.Flatten()(ops.concatenate([inner(x), inner(y)], -1))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    *before, _ = (s for s in kr.trace(model).spaces if s.producers)
    assert [s.size for s in before] == [8, 4, 12, 4]
    assert all("has more or fewer" in s.frozen for s in before)
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)


# --- what stays -------------------------------------------------------------

STAYS = {
    "channels in the batch": (
        lambda x: reshape_operation(2, 36, 8)(ops.reshape(x, (-1, 8))),
        "of (4, 6, 6, 16) to (288, 8) does not keep channels apart",
    ),
    "cut across": (reshape(48, 12), "does not keep channels apart"),
    "transposed in between": (
        lambda x: reshape(6, 6, 16)(layers.Permute((2, 1))(reshape(36, 16)(x))),
        "of (4, 16, 36) to (4, 6, 6, 16) does not keep channels apart",
    ),
    "ravel": (
        lambda x: ops.reshape(ops.ravel(x), (4, -1)),
        "flattens the batch axis too",
    ),
    "repeat of all": (
        lambda x: ops.reshape(ops.repeat(x, 2), (4, -1)),
        "flattens the batch axis too",
    ),
    "uneven repeats": (
        lambda x: ops.repeat(x, np.arange(16), axis=-1),
        "repeats channels unevenly",
    ),
    "reflected channels": (
        lambda x: ops.pad(x, [[0, 0]] * 3 + [[2, 2]], "reflect"),
        "pads the channels with mode 'reflect'",
    ),
    "roll of all": (lambda x: ops.roll(x, 3), "flattens the batch axis too"),
    "roll of two axes": (
        lambda x: ops.roll(x, (3, 1), axis=(-1, 1)),
        "shifts several axes",
    ),
    "squeeze of all": (
        lambda x: ops.squeeze(reshape(36, 1, 16)(x)),
        "give it the axis= to remove",
    ),
    "every third channel": (
        lambda x: x[..., ::3],
        "takes channels 0:16:3 of 16",
    ),
    "every other, from the end": (
        lambda x: x[..., -3::2],
        "takes channels 13:16:2 of 16",
    ),
    "take channels": (
        lambda x: ops.take(x, [3, 1], axis=-1),
        "by an array of indices",
    ),
    "unstack channels": (
        lambda x: ops.stack(ops.unstack(x, axis=-1)[:3], axis=-1),
        "makes a tensor of every channel",
    ),
    "uneven parts": (
        lambda x: ops.array_split(x, 3, axis=-1)[0],
        "makes 3 uneven parts of 16 channels",
    ),
    "NumPy numbers": (
        lambda x: ops.reshape(x, (-1, 36, np.int64(16))),
        "give it Python numbers",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name):
    """A reason in words, and a model that is not cut there."""
    between, reason = STAYS[name]
    model = models.randomized(image_model(between, batch_size=4))
    (space,) = (s for s in kr.trace(model).spaces if s.name == "a")
    assert reason in space.frozen
    same = prune(model, 0.1)
    models.assert_same_function(model, same, tolerance=0)
