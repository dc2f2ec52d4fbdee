"""Attention in layers of one's own: whole heads go, where they can."""

import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.rule_checks import assert_copies_go, between

HEADS, SIZE, LENGTH = 4, 3, 5


class Attention(layers.Layer):
    """Attention by hand; subclasses say how heads and scores are made."""

    def __init__(self, heads=HEADS, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.out = heads, layers.Dense(8, name="out")

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}

    def build(self, shape):
        self.make(shape)
        if not self.out.built:
            self.out.build((*shape[:-1], self.heads * SIZE))

    def dense(self, name, shape, heads=None):
        made = layers.Dense((heads or self.heads) * SIZE, name=name)
        made.build(shape)
        return made

    def split(self, x, heads=None):
        """Shape (batch, heads, positions, size of a head)."""
        x = ops.reshape(x, (-1, LENGTH, heads or self.heads, SIZE))
        return ops.transpose(x, (0, 2, 1, 3))

    def call(self, x):
        query, key, value = self.projected(x)
        scores = query @ ops.swapaxes(key, -1, -2)
        x = ops.softmax(self.scored(scores, x, query)) @ value
        x = ops.transpose(x, (0, 2, 1, 3))
        return self.out(ops.reshape(x, (-1, LENGTH, self.heads * SIZE)))

    def make(self, shape):
        self.parts = [self.dense(name, shape) for name in "qkv"]

    def projected(self, x):
        return [self.split(part(x)) for part in self.parts]

    def scored(self, scores, x, query):
        return scores


class OneKernel(Attention):
    """One kernel for all three."""

    def make(self, shape):
        self.qkv = self.dense("qkv", shape, 3 * self.heads)

    def projected(self, x):
        x = ops.reshape(self.qkv(x), (-1, LENGTH, 3, self.heads, SIZE))
        return ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), axis=0)


class Biased(OneKernel):
    """A bias for each head and distance: a weight that `call` reads."""

    def make(self, shape):
        super().make(shape)
        shape = 2 * LENGTH, self.heads
        self.bias = self.add_weight(shape, "normal", name="bias")

    def scored(self, scores, x, query):
        at = [[LENGTH + i - j for i in range(LENGTH)] for j in range(LENGTH)]
        return scores + ops.transpose(ops.take(self.bias, at, 0), (2, 0, 1))


class Shared(Attention):
    """Two heads of keys and values for each four of queries, as kernels."""

    def make(self, shape):
        self.parts = []
        for heads in (2 * HEADS, HEADS, HEADS):
            sizes = heads, LENGTH, SIZE
            part = layers.EinsumDense("abc,cde->adbe", sizes)
            part.build(shape)
            self.parts.append(part)
        self.out = layers.EinsumDense("abcd,bde->ace", (LENGTH, 8))
        self.out.build((None, 2 * HEADS, LENGTH, SIZE))

    def call(self, x):
        query, *others = (part(x) for part in self.parts)
        key, value = (ops.repeat(x, 2, axis=1) for x in others)
        scores = ops.einsum("abcd,abed->abce", query, key)
        scores = ops.softmax(scores)
        return self.out(ops.einsum("abce,abed->abcd", scores, value))


class Sloping(Attention):
    """The scores get positions, times a fixed number for each head."""

    def make(self, shape):
        super().make(shape)
        self.at = layers.Dense(LENGTH)
        self.at.build((None, shape[-1]))
        self.slopes = np.linspace([0.1], [0.7], self.heads, dtype="float32")

    def scored(self, scores, x, query):
        at = ops.expand_dims(self.at(ops.max(x, 1)), 1)
        return scores + ops.expand_dims(at * self.slopes, 2)


class Taken(Attention):
    """The scores of other positions are added, by an array of indices."""

    def scored(self, scores, x, query):
        at = np.ones((1, HEADS, LENGTH, LENGTH), "int32")
        return scores + ops.take_along_axis(scores, at, 3)


class Single(Attention):
    """One head of keys and values for all queries."""

    def make(self, shape):
        self.parts = [
            self.dense(name, shape, heads)
            for name, heads in (("q", HEADS), ("k", 1), ("v", 1))
        ]

    def projected(self, x):
        heads = (HEADS, 1, 1)
        return [
            self.split(p(x), n) for p, n in zip(self.parts, heads, strict=True)
        ]


KINDS = [Attention, OneKernel, Shared, Sloping, Taken]


@pytest.mark.parametrize("kind", KINDS)
def test_heads_go(kind):
    graph = assert_copies_go(between(kind(), (LENGTH, 7)))
    assert sorted(s.size for s in graph.prunable)[-3:] == [HEADS, 8, 16]


def test_heads_go_by_an_argument_with_the_bias_of_each():
    model = models.randomized(between(Biased(), (LENGTH, 7)))
    spaces = [s for s in kr.trace(model).prunable if s.size == HEADS]
    models.plant(model, spaces=spaces)
    plan = kr.plan(model, tau=0.9999)
    assert plan.blocks == {"biased": "by its arguments"}
    small = plan.apply()
    assert small.get_layer("biased").heads == HEADS - 1
    models.assert_same_function(model, small)


def test_what_all_heads_share_stays():
    """Of one head of keys and values, nothing can go where queries lose heads.

    Else the values could lose channels, which are fewer parameters.
    """
    graph = assert_copies_go(between(Single(), (LENGTH, 7)))
    assert {s.size for s in graph.prunable} == {HEADS, 8, 16}
    stays = {s.reason_code for s in graph.spaces if s.size == SIZE if s.frozen}
    assert stays >= {"summed_with_positions", "fixed_size"}
