"""Rules of operations over positions, and over channels."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.channels.images import (
    assert_followed,
    image_model,
    pair_model,
)

POSITIONS = {
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "mean, kept": lambda x: ops.mean(x, axis=1, keepdims=True),
    "max": lambda x: ops.max(x, axis=1),
    "max from": lambda x: ops.max(x, axis=1, initial=0.3),
    "min": lambda x: ops.min(x, axis=(-2, -3)),
    "sum": lambda x: ops.sum(x, axis=2),
    "std": lambda x: ops.std(x, axis=1),
    "var": lambda x: ops.var(x, axis=[1, 2], keepdims=True),
    "prod": lambda x: ops.prod(1 + x, axis=1),
    "median": lambda x: ops.median(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=(1, 2)),
    "any": lambda x: ops.cast(ops.any(x > 1, axis=1), "float32"),
    "all": lambda x: ops.cast(ops.all(x > 0.1, axis=(1, 2)), "float32"),
    "count": lambda x: ops.cast(ops.count_nonzero(x, axis=1), "float32"),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "cumprod": lambda x: ops.cumprod(1 + x, axis=2),
    "sort": lambda x: ops.sort(x, axis=1),
    "in front": lambda x: ops.mean(ops.moveaxis(x, -1, 1), axis=(2, -1)),
    "pooled": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_over_positions(name, tmp_path):
    if name == "count" and keras.backend.backend() == "torch":
        pytest.skip("Keras 3.15 reads the axes the other way round there")
    found = assert_followed(image_model(POSITIONS[name]), tmp_path)
    assert found == {"a": 12}


@pytest.mark.parametrize("over", [ops.max, ops.min, ops.amax])
@pytest.mark.parametrize("kept", [True, False])
def test_the_largest_channel_is_the_same_without_copies(over, kept, tmp_path):
    def between(x, y):
        best = over(x, axis=-1, keepdims=kept)
        return y * (best if kept else ops.expand_dims(best, -1))

    found = assert_followed(pair_model(between), tmp_path)
    assert found == {"a": 12, "b": 12}


def channel_and_spatial_attention(x, y):
    """CBAM: weights of channels, then weights of positions."""
    first = layers.Dense(6, activation="relu", name="s")
    second = layers.Dense(12, name="e")
    pooled = [ops.mean(x, axis=(1, 2)), ops.max(x, axis=(1, 2))]
    x = x * ops.sigmoid(sum(second(first(p)) for p in pooled))[:, None, None]
    maps = [op(x, axis=-1, keepdims=True) for op in (ops.mean, ops.max)]
    maps = layers.Conv2D(1, 3, padding="same", name="m")(
        layers.Concatenate()(maps)
    )
    return x * ops.sigmoid(maps)


def without_mean(x, y):
    return x - ops.mean(x, axis=-1, keepdims=True)


INEXACT = {
    "sum": (lambda x, y: y * ops.sum(x, -1, keepdims=True), "reduces over"),
    "mean": (without_mean, "reduces over the channels"),
    "std": (lambda x, y: y + ops.std(x, -1)[..., None], "reduces over"),
    "attention to channels and positions": (
        channel_and_spatial_attention,
        "(Mean) reduces over the channels",
    ),
    "softmax": (lambda x, y: layers.Softmax()(x) * y, "(softmax)"),
    "ops.softmax": (lambda x, y: ops.softmax(x) * y, "over the channels"),
    "layer normalization": (
        lambda x, y: layers.LayerNormalization()(x + y),
        "its mean and variance",
    ),
    "scores": (
        lambda x, y: ops.einsum("bhwc,bhvc->bhwv", x, y),
        "multiplies channels of two tensors and sums them",
    ),
    "scores by matmul": (
        lambda x, y: ops.matmul(x, ops.swapaxes(y, -1, -2)),
        "multiplies channels of two tensors and sums them",
    ),
}


@pytest.mark.parametrize("name", INEXACT)
def test_what_is_computed_over_all_channels_goes_on_request(name):
    combine, reason = INEXACT[name]
    model = models.randomized(pair_model(combine))
    graph = kr.trace(model)
    stays = [s.frozen for s in graph.spaces if "a" in s.name.split(" + ")]
    assert stays
    assert all(reason in frozen for frozen in stays)
    allowed = kr.trace(model, allow_inexact=True).prunable
    (space,) = (s for s in allowed if "a" in s.name.split(" + "))
    assert reason in space.inexact
    options = {"allow_inexact": True, "keep": "random", "seed": 0}
    plan = kr.plan(model, tau=0.1, **options)
    small = plan.apply()
    assert small.get_layer("a").filters < 12
    assert small.count_params() == plan.parameters[1]
    (answer,) = models.outputs(small, models.random_inputs(model))
    assert np.isfinite(answer).all()


def test_softmax_over_positions_is_exact(tmp_path):
    def between(x, y):
        x = layers.Reshape((25, 12))(x)
        return ops.softmax(x, axis=1) * layers.Reshape((25, 12))(y)

    found = assert_followed(pair_model(between), tmp_path)
    assert found == {"ab": 12}
