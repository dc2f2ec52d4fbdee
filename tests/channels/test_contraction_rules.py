"""Rules of products of tensors: matrices, einsum, attention by hand."""

import keras
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.channels.rules.contractions import CONSTANT
from tests.channels.images import (
    array,
    assert_followed,
    image_model,
    pair_model,
    thin,
)


def attention(heads):
    """Attention by hand, as a graph of operations."""
    inputs = keras.Input((7, 10))

    def projected(name):
        x = layers.Dense(16, name=name)(inputs)
        x = layers.Reshape((7, heads, 16 // heads))(x)
        return ops.transpose(x, (0, 2, 1, 3))

    scores = ops.matmul(projected("q"), ops.swapaxes(projected("k"), -1, -2))
    weights = ops.softmax(scores / (16 // heads) ** 0.5)
    x = ops.transpose(ops.matmul(weights, projected("v")), (0, 2, 1, 3))
    x = layers.Dense(8, activation="relu", name="o")(layers.Reshape((7, 16))(x))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def test_one_head_keeps_its_queries_and_keys(tmp_path):
    model = attention(1)
    scores = {"k + q", "q + k"} & {s.name for s in kr.trace(model).spaces}
    found = assert_followed(model, tmp_path, scores)
    assert found == {"v": 16, "o": 8}
    allowed = kr.trace(model, allow_inexact=True).prunable
    assert sum(s.name in scores for s in allowed) == 1


def test_heads_go_with_their_queries_keys_and_values(tmp_path):
    found = assert_followed(attention(4), tmp_path)
    assert sorted(found.values()) == [4, 8]


PRODUCTS = {
    "weights from positions": (
        lambda x, y: ops.einsum("bhwc,bhwk->bhkc", x, thin(y)),
        {"a": 12, "b": 12},
    ),
    "with ellipsis": (
        lambda x, y: ops.einsum("...c,...c->...c", x, y),
        {"ab": 12},
    ),
    "per channel": (
        lambda x, y: ops.einsum("bhwc,bhvc->bwvc", x, y),
        {"ab": 12},
    ),
    "of one tensor": (
        lambda x, y: ops.einsum("bhwc->bwc", x) + y[:, 1],
        {"ab": 12},
    ),
    "channels in front": (
        lambda x, y: ops.matmul(ops.moveaxis(x, -1, 1), ops.moveaxis(y, -1, 1)),
        {"ab": 12},
    ),
    "one channel in front": (
        lambda x, y: ops.matmul(
            ops.moveaxis(x, -1, 1), ops.moveaxis(thin(y), -1, 1)
        ),
        {"a": 12, "b": 12, "thin": 1},
    ),
    "of three": (
        lambda x, y: ops.einsum("bhwc,bhvc,bhvk->bwc", x, y, thin(y)),
        {"ab": 12},
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_tensors(name, tmp_path):
    combine, expected = PRODUCTS[name]
    model = pair_model(combine)
    made = {layer.name for layer in model.layers}
    frozen = {"thin"} & made - set(expected)
    assert assert_followed(model, tmp_path, frozen) == expected


MIXED = {
    "matrix first": lambda x: ops.matmul(array(5, 5), x),
    "of another shape": lambda x: ops.matmul(array(7, 5), x),
    "einsum": lambda x: ops.einsum("hk,bkwc->bhwc", array(5, 5), x),
    "tensordot": lambda x: ops.moveaxis(
        ops.tensordot(x, array(5, 6), axes=[[2], [0]]), -1, 1
    ),
    "einsum of three": lambda x: ops.einsum(
        "hk,bkwc,vw->bhvc", array(5, 5), x, array(3, 5)
    ),
}


# Keras itself compares None with numbers in Tensordot.
COMPARES_NONE = "ignore:NotImplemented should not be used"


@pytest.mark.filterwarnings(COMPARES_NONE)
@pytest.mark.parametrize("name", MIXED)
def test_constants_that_mix_positions(name, tmp_path):
    """Such as the adjacency matrix of a graph network."""
    found = assert_followed(image_model(MIXED[name]), tmp_path)
    assert found == {"a": 12}


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: ops.einsum("bhwc,cd->bhwd", x, array(12, 7)),
        lambda x: ops.einsum("bhwc,c->bhw", x, array(12)),
        lambda x: ops.matmul(array(7, 12), ops.swapaxes(x, -1, -2)),
    ],
)
def test_constants_that_mix_channels(mix):
    graph = kr.trace(image_model(mix))
    assert {s.name: s.reason_code for s in graph.spaces}["a"] == CONSTANT.code


@pytest.mark.filterwarnings(COMPARES_NONE)
@pytest.mark.parametrize(
    "times",
    [
        *(ops.matmul, ops.dot),
        lambda x, y: ops.tensordot(x, y, axes=1),
        lambda x, y: ops.tensordot(x, y, axes=[[3], [0]]),
        lambda x, y: ops.tensordot(x, y, axes=[[-1], [-2]]),
    ],
)
def test_a_constant_matrix_is_read_like_a_kernel(times, tmp_path):
    model = image_model(lambda x: times(x, array(12, 7)))
    assert assert_followed(model, tmp_path) == {"a": 12}
