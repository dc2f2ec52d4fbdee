"""Rules of operations that take parts of the channels."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.channels.shapes import (
    assert_followed,
    assert_stays,
    image_model,
    that_run,
)
from tests.rule_checks import assert_copies_go, prune


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


@pytest.mark.parametrize("name", that_run(PARTS, "front, mirrored"))
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
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name):
    assert_stays(*STAYS[name])
