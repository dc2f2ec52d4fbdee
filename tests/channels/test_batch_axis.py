"""Channels that a reshape merges with the batch axis, such as heads."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.channels.test_heads import (
    HEADS,
    LENGTH,
    SIZE,
    Attention,
    OneKernel,
)
from tests.rule_checks import assert_copies_go, between

SAMPLE = LENGTH, SIZE


class InBatch(Attention):
    """Heads are samples: shape (batch * heads, positions, size of a head)."""

    def split(self, x):
        x = super().split(x)
        return ops.reshape(x, (ops.shape(x)[0] * self.heads, *SAMPLE))

    def call(self, x):
        query, key, value = self.projected(x)
        scores = query @ ops.transpose(key, (0, 2, 1))
        heads = ops.softmax(self.scored(scores, x, query)) @ value
        return self.out(self.joined(heads, ops.shape(x)[0]))

    def joined(self, x, batch):
        x = ops.reshape(x, (batch, self.heads, *SAMPLE))
        x = ops.transpose(x, (0, 2, 1, 3))
        return ops.reshape(x, (batch, LENGTH, self.heads * SIZE))


class MaskedInBatch(InBatch):
    """Each head gets the same mask."""

    def scored(self, scores, x, query):
        return scores + ops.repeat(ops.max(x, -1)[:, None], self.heads, 0)


class AroundBatch(InBatch):
    """The first head of all samples, then the second; with a mask."""

    def split(self, x):
        x = ops.transpose(Attention.split(self, x), (1, 0, 2, 3))
        return ops.reshape(x, (-1, *SAMPLE))

    def scored(self, scores, x, query):
        return scores + ops.tile(ops.max(x, -1)[:, None], (self.heads, 1, 1))

    def joined(self, x, batch):
        x = ops.reshape(x, (self.heads, batch, *SAMPLE))
        x = ops.transpose(x, (1, 2, 0, 3))
        return ops.reshape(x, (batch, LENGTH, self.heads * SIZE))


@pytest.mark.parametrize("kind", [InBatch, MaskedInBatch, AroundBatch])
def test_heads_in_the_batch_go(kind, tmp_path):
    model = between(kind(), (LENGTH, 7))
    graph = assert_copies_go(model, tmp_path)
    assert {s.size for s in graph.prunable} == {HEADS, 8, 16}
    half = kr.prune(model, kr.L1(), ratio=0.5, absorb=kr.Drop())
    half.save(tmp_path / "half.keras")
    again = keras.models.load_model(tmp_path / "half.keras")
    models.assert_same_function(half, again)
    kernels = [x.shape for x in again.weights if "out" in x.path]
    assert kernels[0] == (HEADS // 2 * SIZE, 4)


# --- operations on that axis ------------------------------------------------


def heads_model(function):
    """`function` takes heads in the batch, and nothing but heads can go."""
    inputs = keras.Input((LENGTH, 7))
    x = layers.Dense(SIZE * HEADS, name="a")(inputs)
    x = ops.reshape(x, (-1, LENGTH, SIZE, HEADS))
    x = ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (-1, *SAMPLE))
    x = layers.Flatten()(joined(function(ops.softmax(x))))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def joined(x):
    return ops.reshape(x, (-1, HEADS, *SAMPLE))


def computed(x):
    """What acts on each sample alone, wherever the axis of the batch is."""
    x = ops.tanh(layers.LayerNormalization(scale=False, center=False)(x))
    x = ops.concatenate([x, -x], axis=2)[..., 1 : SIZE + 1]
    x = x + ops.mean(x, axis=1, keepdims=True) * np.ones((LENGTH, SIZE))
    x = ops.transpose(ops.expand_dims(x, 0), (0, 2, 1, 3))
    x = ops.unstack(ops.where(x > 0, x, 0.1), axis=0)[0]
    x = ops.stack(ops.split(x, LENGTH, axis=0)[::-1], axis=2)[0]
    return ops.einsum("bij,bkj,bkl->bil", x, x, layers.ReLU()(x))


def mixed_by_kernels(x):
    """Kernels that read other channels than those in the batch."""
    x = layers.Dense(8, activation="relu", name="mixed")(x)
    return layers.Conv1D(SIZE, 2, padding="same")(x)


def in_another_order(x):
    return ops.reshape(ops.swapaxes(joined(x), 0, 1), (-1, *SAMPLE))


def cut_across(x):
    return ops.reshape(ops.reshape(x, (HEADS, -1, *SAMPLE)), (-1, *SAMPLE))


def test_what_acts_on_each_sample_is_followed():
    graph = assert_copies_go(heads_model(computed))
    assert [s.size for s in graph.prunable] == [HEADS]


def test_units_of_kernels_between_go():
    model = heads_model(mixed_by_kernels)
    graph = assert_copies_go(model)
    assert [s.size for s in graph.prunable] == [8, SIZE]
    rows = HEADS * LENGTH
    kernels = 7 * SIZE * HEADS * LENGTH + SIZE * HEADS * LENGTH * 3
    assert kr.flops(model) == kernels + rows * 3 * SIZE * 8


def test_heads_that_go_are_not_counted():
    """The layer mixes positions of each head, which are samples there."""
    layer = layers.EinsumDense("abc,bd->adc", (LENGTH, SIZE))
    plan = kr.plan(heads_model(layer), kr.L1(), ratio=0.5)
    small = plan.apply()
    per_head = LENGTH * SIZE * (7 + LENGTH + 3)
    assert plan.flops == (HEADS * per_head, HEADS // 2 * per_head)
    assert kr.flops(small) == plan.flops[1]


BATCH = "channels are merged with the batch axis"
STAYS = {
    "flip": (lambda x: ops.flip(x, 0), BATCH),
    "slice": (lambda x: x + x[:1, :], BATCH),
    "split": (lambda x: ops.add(*ops.split(x, 2)), BATCH),
    "array split": (lambda x: ops.array_split(x, 2)[0], BATCH),
    "layer": (layers.GRU(SIZE, return_sequences=True), BATCH),
    "both orders": (lambda x: x + in_another_order(x), BATCH),
    "join": (lambda x: ops.concatenate([x, x]), "do not line up"),
    "cut across": (cut_across, "does not keep channels apart"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_works_along_the_batch_stays(name):
    function, reason = STAYS[name]
    graph = kr.trace(heads_model(function))
    assert graph.prunable == []
    (space,) = (s for s in graph.spaces if s.name == "a")
    assert reason in space.frozen


# --- windows that are samples -----------------------------------------------


class MaskedWindows(OneKernel):
    """Attention within windows that are samples, with a mask for each."""

    windows = 4

    def scored(self, scores, x, query):
        mask = np.tri(LENGTH)[None] * np.arange(self.windows)[:, None, None]
        count = ops.shape(x)[0] // self.windows
        shape = self.heads, LENGTH, LENGTH
        scores = ops.reshape(scores, (count, self.windows, *shape))
        scores = scores - mask[:, None].astype("float32")
        return ops.reshape(scores, (-1, *shape))


class Windows(layers.Layer):
    """Takes images apart into windows, whose number per image is known."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = MaskedWindows(name="attention")

    def build(self, shape):
        self.attention.build((None, LENGTH, shape[-1]))

    def call(self, x):
        channels = x.shape[-1]
        y = ops.reshape(x, (-1, LENGTH, channels))
        y = self.attention(y)
        return ops.reshape(y, (-1, *x.shape[1:-1], y.shape[-1]))


class WindowsOfABatch(Windows):
    """Its call takes known sizes of batches alone."""

    def call(self, x):
        count = ops.shape(x)[0] // 1
        return ops.reshape(super().call(x), (count, *x.shape[1:-1], 8))


@pytest.mark.parametrize("kind", [Windows, WindowsOfABatch])
def test_heads_in_masked_windows_go(kind, tmp_path):
    model = between(kind(), (MaskedWindows.windows * LENGTH, 7))
    graph = assert_copies_go(model, tmp_path)
    assert {s.size for s in graph.prunable} == {HEADS, 8, 16}
