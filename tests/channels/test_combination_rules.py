"""Rules of operations that combine tensors."""

import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.channels.images import (
    array,
    assert_followed,
    convolution,
    pair_model,
    thin,
    vector,
)
from tests.rule_checks import prune

BOTH = {
    "Add": lambda x, y: layers.Add()([x, y]),
    "Average": lambda x, y: layers.Average()([x, y]),
    "Maximum": lambda x, y: layers.Maximum()([x, y]),
    "Minimum": lambda x, y: layers.Minimum()([x, y]),
    "Multiply": lambda x, y: layers.Multiply()([x, y]),
    "Subtract": lambda x, y: layers.Subtract()([x, y]),
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / (1 + y),
    "**": lambda x, y: (1 + x) ** y,
    ">": lambda x, y: ops.cast(x > y + 0.1, "float32") * y,
    "arctan2": lambda x, y: ops.arctan2(x, y + 0.1),
    "hypot": ops.hypot,
    "logaddexp": ops.logaddexp,
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "divide_no_nan": lambda x, y: ops.divide_no_nan(x, y),
    "where": lambda x, y: ops.where(x > 0.5, x, y - 1),
    "where, channel by channel": lambda x, y: ops.where(x[:, :1] > 0.5, y, 1),
    "by keyword": lambda x, y: ops.add(x1=x, x2=y),
    "stack": lambda x, y: ops.stack([x, y], axis=2),
    "stack last": lambda x, y: ops.stack([x, y], axis=-1),
    "join positions": lambda x, y: layers.Concatenate(axis=1)([x, y]),
    "join columns": lambda x, y: ops.concatenate([x, y[:, :, :2]], axis=-2),
    "gated": lambda x, y: x * ops.sigmoid(ops.max(y, (1, 2), keepdims=True)),
}


@pytest.mark.parametrize("name", BOTH)
def test_two_tensors_of_the_same_channels(name, tmp_path):
    found = assert_followed(pair_model(BOTH[name]), tmp_path)
    assert found == {"ab": 12}


def squeeze_and_excite(x, y):
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(6, 1, activation="relu", name="s")(y)
    y = layers.Conv2D(12, 1, activation="sigmoid", name="e")(y)
    return layers.Multiply()([x, y])


def squeeze_and_excite_with_ops(x, y):
    y = ops.mean(x, axis=(1, 2))
    y = ops.relu(layers.Dense(6, name="s")(y))
    y = ops.sigmoid(layers.Dense(12, name="e")(y))
    return x * y[:, None, None, :]


def position_weights(x, y):
    """A weight for each of the 5 rows: they are no channels of `x`."""
    rows = ops.softmax(layers.Dense(5, name="rows")(vector(y)), axis=-1)
    return x * ops.expand_dims(rows, (-1, -2))


BROADCAST = {
    "one channel": (
        lambda x, y: layers.Add()([x, thin(y)]),
        {"a": 12, "b": 12, "thin": 1},
    ),
    "one channel, ops": (
        lambda x, y: ops.sigmoid(thin(y)) * x,
        {"a": 12, "b": 12, "thin": 1},
    ),
    "one channel on both sides": (
        lambda x, y: thin(x, "t") + thin(y, "u"),
        {"a": 12, "b": 12, "tu": 1},
    ),
    "one channel of one position": (
        lambda x, y: x * vector(y, 1)[:, None, None],
        {"a": 12, "b": 12, "v": 1},
    ),
    "vectors": (
        lambda x, y: x * layers.Reshape((1, 1, 12))(vector(y)),
        {"av": 12, "b": 12},
    ),
    "vectors, fewer axes": (
        lambda x, y: layers.Multiply()([x, vector(y)]),
        {"av": 12, "b": 12},
    ),
    "vectors against sequences": (
        lambda x, y: layers.Add()([vector(y), layers.Reshape((25, 12))(x)]),
        {"av": 12, "b": 12},
    ),
    "rows against columns": (
        lambda x, y: x[:, :, :1] * y[:, 1:2],
        {"ab": 12},
    ),
    "squeeze and excite": (squeeze_and_excite, {"ae": 12, "s": 6}),
    "squeeze and excite, ops": (
        squeeze_and_excite_with_ops,
        {"ae": 12, "s": 6},
    ),
    "weights of positions": (position_weights, {"a": 12, "b": 12, "v": 12}),
    "outer product": (
        lambda x, y: vector(x, 5, "rows")[..., None] * vector(y)[:, None],
        {"a": 12, "b": 12, "v": 12},
    ),
    "channels in front": (
        lambda x, y: (
            layers.Permute((3, 1, 2))(x) * layers.Reshape((12, 1, 1))(vector(y))
        ),
        {"av": 12, "b": 12},
    ),
}


@pytest.mark.parametrize("name", BROADCAST)
def test_broadcasting(name, tmp_path):
    combine, expected = BROADCAST[name]
    model = pair_model(combine)
    frozen = {"rows"} & {layer.name for layer in model.layers}
    assert assert_followed(model, tmp_path, frozen) == expected


def test_positions_that_meet_channels_have_to_stay():
    spaces = kr.trace(pair_model(position_weights)).spaces
    (rows,) = (space for space in spaces if space.name == "rows")
    assert rows.frozen == (
        "multiply (Multiply) combines channels with the positions of another "
        "tensor"
    )


# --- what stays -------------------------------------------------------------


def scaled_by_gamma(x, layer, y):
    y = layer(y)
    return x * layer.gamma + y


def times_table(x, layer, y):
    y = layer(ops.argmax(y, axis=-1))
    return x @ layer.embeddings + y


STAYS = {
    "channels on other axes": (
        lambda x, y: (
            convolution("c", 5)(x) + ops.moveaxis(convolution("d", 5)(y), -1, 1)
        ),
        "combines tensors whose channels do not line up",
    ),
    "widened by an array": (
        lambda x, y: thin(x, "a1") * array(7) + ops.sum(y, -1)[..., None],
        "has an array operand with more entries than the channels",
    ),
    "an array is joined": (
        lambda x, y: ops.concatenate([x, array(4, 5, 5, 3)], -1),
        "joins channels with a constant array",
    ),
    "a variable": (
        lambda x, y: scaled_by_gamma(x, layers.BatchNormalization(), y),
        "gamma, a weight of another layer",
    ),
    "the kernel of a layer that is no Dense": (
        lambda x, y: times_table(x, layers.Embedding(12, 5), y),
        "embeddings, a weight of another layer",
    ),
    "all axes": (lambda x, y: x - ops.mean(x), "over the batch axis too"),
    "the batch": (lambda x, y: x - ops.mean(x, 0), "over the batch axis too"),
    "along channels": (lambda x, y: ops.cumsum(x, -1), "along the channels"),
    "scores and positions": (
        lambda x, y: ops.einsum(
            "bhwc,bhc->bhwc", x, y[:, :, 0, :1] * array(12)
        ),
        "more entries than the channels",
    ),
    "no arrow": (
        lambda x, y: ops.einsum("bhwc,bhwc", x, y)[None, None, None],
        'write subscripts with "->"',
    ),
    "Dot": (
        lambda x, y: layers.Dot(-1)(
            [layers.Reshape((25, 12))(x), layers.Reshape((25, 12))(y)]
        ),
        "multiplies channels of two tensors and sums them",
    ),
    "no operation of ours": (
        lambda x, y: ops.argmax(x, -1)[..., None] * y,
        "there is no rule for the operation argmax (Argmax)",
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name):
    """A reason in words, and a model that is not cut there."""
    combine, reason = STAYS[name]
    model = models.randomized(pair_model(combine, batch_size=4))
    reasons = [s.frozen for s in kr.trace(model).spaces if s.producers]
    assert any(reason in (frozen or "") for frozen in reasons)
    small = prune(model, 0.1)
    models.outputs(small, models.random_inputs(model))
