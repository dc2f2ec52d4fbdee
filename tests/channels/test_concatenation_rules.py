"""Rules of operations that join channels, or divide them."""

import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy import _keras
from tests import models
from tests.channels.images import (
    assert_followed,
    convolution,
    pair_model,
    shuffled,
)


def padded_shortcut(x, y):
    """The shortcut of CIFAR ResNets: missing channels are zeros."""
    y = convolution("wide", 20)(y)
    x = layers.AveragePooling2D(1, 1)(x)
    return y + ops.pad(x, ((0, 0), (0, 0), (0, 0), (4, 4)))


def gated(x):
    x, gate = ops.split(x, 2, axis=-1)
    return x * ops.sigmoid(gate)


JOINED = {
    "channels": (
        lambda x, y: layers.Concatenate()([x, y]),
        {"a": 12, "b": 12},
    ),
    "twice": (
        lambda x, y: ops.concatenate([x, y, x], axis=-1),
        {"a": 12, "b": 12},
    ),
    "joined and added": (
        lambda x, y: ops.concatenate([x, y], -1) + convolution("c", 24)(x),
        {"ac": 12, "bc": 12},
    ),
    "part of both": (
        lambda x, y: ops.tanh(ops.concatenate([x, y], -1))[..., 6:-6],
        {"a": 6, "b": 6},
    ),
    "channels in front": (
        lambda x, y: layers.Concatenate(axis=1)(
            [layers.Permute((3, 1, 2))(x), ops.moveaxis(y, -1, 1)]
        ),
        {"a": 12, "b": 12},
    ),
    "stack of three": (
        lambda x, y: layers.Reshape((5, 5, 36))(ops.stack([x, y, x], -2)),
        {"ab": 12},
    ),
    "zeros": (padded_shortcut, None),
    "shuffle": (
        lambda x, y: shuffled(ops.concatenate([x, y], -1), 2),
        {"ab": 12},
    ),
    "shuffle in 3 groups": (lambda x, y: shuffled(x * y, 3), {"ab": 4}),
    "shuffled and grouped": (
        lambda x, y: layers.Conv2D(8, 3, groups=2, name="g")(
            shuffled(convolution("c", groups=2)(x + y), 2)
        ),
        None,
    ),
    "gate by hand": (lambda x, y: gated(x) + y[..., :6], None),
    "glu": (lambda x, y: ops.nn.glu(x * y, axis=-1), {"ab": 6}),
    "glu of positions": (
        lambda x, y: ops.nn.glu(ops.concatenate([x, y], 1), axis=1),
        {"ab": 12},
    ),
}


@pytest.mark.parametrize("name", JOINED)
def test_joined_and_divided(name, tmp_path):
    combine, expected = JOINED[name]
    found = assert_followed(pair_model(combine), tmp_path)
    if expected is not None:
        assert found == expected


def test_channels_of_padding_go_with_those_that_they_are_added_to():
    model = models.randomized(pair_model(padded_shortcut))
    sizes = {
        frozenset(layer.name for layer in s.producers): s.size
        for s in kr.trace(model).prunable
        if s.size == 12
    }
    assert sizes == {frozenset({"a", "wide"}): 12, frozenset("b"): 12}
    small = kr.prune(model, tau=0.1, keep="random", seed=0)
    (pad,) = (
        call.operation.pad_width
        for call in _keras.calls(_keras.graph_of(small))
        if call.operation.name == "pad"
    )
    front, back = pad[-1]
    wide = small.get_layer("wide").filters
    assert front + small.get_layer("a").filters + back == wide < 20
