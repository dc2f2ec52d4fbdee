"""Rules of operations that move axes, or make others of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests.channels.shapes import (
    assert_followed,
    assert_stays,
    image_model,
    reshape,
    reshape_operation,
    that_run,
)


def vector_model(between, width=48):
    """`between` takes vectors of 48 channels."""
    inputs = keras.Input((12,))
    x = layers.Dense(width, activation="relu", name="a")(inputs)
    x = layers.Flatten()(between(x))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


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
    "channels in the batch": (
        lambda x: reshape_operation(2, 36, 8)(ops.reshape(x, (-1, 8))),
        8,
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
    "patches": (lambda x: ops.image.extract_patches(x, (2, 3)), 16),
    "patches that overlap": (
        lambda x: ops.image.extract_patches(x, 3, strides=1, padding="same"),
        16,
    ),
    "pad images": (lambda x: ops.image.pad_images(x, 1, 2, 1, 2), 16),
    "crop images": (lambda x: ops.image.crop_images(x, 1, 2, 1, 2), 16),
    "center crop": (lambda x: layers.CenterCrop(4, 3)(x), 16),
    "adaptive pooling": (lambda x: layers.AdaptiveMaxPooling2D(3)(x), 16),
    "depth to space": (lambda x: ops.nn.depth_to_space(x, 2), 4),
    "space to depth": (lambda x: ops.nn.space_to_depth(x, 3), 16),
}


IMAGES = that_run(
    IMAGES,
    "positions, mirrored",
    "channels, mirrored",
    "channels, mirrored, with bounds",
)


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


# --- what stays -------------------------------------------------------------

STAYS = {
    "cut across the batch": (
        lambda x: reshape_operation(36, 16)(ops.reshape(x, (-1, 12))),
        "of (4, 6, 6, 16) to (192, 12) does not keep channels apart",
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
    "NumPy numbers": (
        lambda x: ops.reshape(x, (-1, 36, np.int64(16))),
        "give it Python numbers",
    ),
}


@pytest.mark.parametrize("name", that_run(STAYS, "reflected channels"))
def test_what_stays(name):
    assert_stays(*STAYS[name])
