"""Rules of layers that multiply by a kernel."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.rule_checks import assert_copies_go

SHAPES = {1: (9, 5), 2: (7, 7, 5), 3: (5, 5, 5, 5)}


def between(layer, rank=2, width=16):
    """A model in which `layer` reads units and is read by a kernel."""
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    inputs = keras.Input(SHAPES[rank])
    x = kind(width, 3, padding="same", activation="relu", name="before")(inputs)
    x = layer(x)
    x = kind(6, 1, activation="relu", name="after")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


CONVOLUTIONS = {
    "one": (layers.Conv1D(8, 3, padding="causal", dilation_rate=2), 1),
    "two": (layers.Conv2D(8, 3, strides=2, activation="tanh"), 2),
    "three": (layers.Conv3D(8, 2, use_bias=False), 3),
    "dilated": (layers.Conv2D(8, 3, dilation_rate=2, padding="same"), 2),
    "grouped": (layers.Conv2D(8, 3, groups=2, padding="same"), 2),
    "grouped in 4": (layers.Conv2D(16, 1, groups=4, activation="relu"), 2),
    "grouped 1D": (layers.Conv1D(8, 3, groups=2, padding="same"), 1),
    "depthwise by groups": (layers.Conv2D(16, 3, groups=16), 2),
    "multiplier by groups": (layers.Conv2D(32, 3, groups=16), 2),
    "transposed 1D": (layers.Conv1DTranspose(8, 3, strides=2), 1),
    "transposed": (layers.Conv2DTranspose(8, 3, strides=2), 2),
    "transposed 3D": (layers.Conv3DTranspose(7, 2, use_bias=False), 3),
    "depthwise": (layers.DepthwiseConv2D(3), 2),
    "depthwise 1D": (layers.DepthwiseConv1D(3, use_bias=False), 1),
    "multiplier": (
        layers.DepthwiseConv2D(3, depth_multiplier=3, activation="relu"),
        2,
    ),
    "separable": (layers.SeparableConv2D(8, 3, activation="relu"), 2),
    "separable 1D": (layers.SeparableConv1D(8, 3, depth_multiplier=2), 1),
    "dense on an image": (layers.Dense(8, activation="gelu", name="wide"), 2),
    "dense on a volume": (layers.Dense(8, name="wide"), 3),
    "einsum": (layers.EinsumDense("abcd,de->abce", (7, 7, 8)), 2),
    "einsum with ellipsis": (
        layers.EinsumDense("...x,xy->...y", 8, bias_axes="y"),
        2,
    ),
    "einsum over positions": (
        layers.EinsumDense("abc,bd->adc", (6, 16), bias_axes="c"),
        1,
    ),
    "einsum per channel": (
        layers.EinsumDense("abc,bc->abc", (9, 16), bias_axes="bc"),
        1,
    ),
    "einsum of two axes": (
        layers.EinsumDense("abc,cde->abde", (9, 2, 8), bias_axes="de"),
        1,
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_planted_copies_go(name, tmp_path):
    layer, rank = CONVOLUTIONS[name]
    layer = type(layer).from_config(layer.get_config())
    several = name == "einsum of two axes"
    model = _without_after(layer) if several else between(layer, rank)
    graph = assert_copies_go(model, tmp_path)
    assert not [s for s in graph.spaces if s.frozen and s.producers][:-1]


def _without_after(layer):
    inputs = keras.Input(SHAPES[1])
    x = layers.Conv1D(12, 3, padding="same", activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layer(x))))


def test_every_group_keeps_as_many_filters():
    model = between(layers.Conv2D(8, 3, groups=2, name="grouped"))
    sizes = {s.name: s.size for s in kr.trace(model).prunable}
    assert sizes == {"before": 8, "grouped": 4, "after": 6}
    models.randomized(model)
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    grouped = small.get_layer("grouped")
    assert (grouped.groups, grouped.filters) == (2, 6)
    assert grouped.kernel.shape == (3, 3, 6, 6)


def test_a_depthwise_unit_holds_all_its_filters():
    layer = layers.DepthwiseConv2D(3, depth_multiplier=3, name="depthwise")
    model = models.randomized(between(layer))
    (space,) = (s for s in kr.trace(model).prunable if s.name == "before")
    places = {
        (a.on.layer.name, a.on.variable.name): a.positions for a in space.axes
    }
    assert places["depthwise", "kernel"].shape == (16, 1)
    np.testing.assert_array_equal(
        places["depthwise", "bias"], np.arange(48).reshape(16, 3)
    )


def test_scaled_units_merge_through_a_depthwise_convolution():
    """Twice the filter and thrice the depthwise kernel: six times as much."""
    inputs = keras.Input((6, 6, 8))
    x = layers.Conv2D(6, 3, use_bias=False, name="before")(inputs)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    for name, factor in (("before", 2), ("depthwise", 3)):
        kernel = model.get_layer(name).kernel
        value = models.numpy(kernel)
        axis = -1 if name == "before" else -2
        value = np.moveaxis(value, axis, 0)
        value[4] = factor * value[1]
        kernel.assign(np.moveaxis(value, 0, axis))
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("before").filters == 5
    models.assert_same_function(model, small)


def test_embeddings_lose_the_columns_that_are_copies(tmp_path):
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(30, 12, name="words")(inputs)
    x = layers.Conv1D(8, 3, padding="causal", activation="relu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    data = np.random.default_rng(0).integers(0, 30, (4, 7))
    graph = assert_copies_go(model, tmp_path, data=data)
    assert [s.name for s in graph.prunable] == ["words", "conv1d"]


def test_flops_of_all_kinds_of_kernels():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=2, padding="same")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = layers.SeparableConv2D(6, 3, padding="same")(x)
    x = layers.Conv2DTranspose(5, 2, strides=2)(x)
    x = layers.EinsumDense("abcd,de->abce", (16, 16, 3))(x)
    grouped = 64 * 9 * 2 * 8
    depthwise = 64 * 9 * 16
    separable = 64 * (9 * 16 + 16 * 6)
    transposed = 64 * 4 * 6 * 5
    einsum = 256 * 5 * 3
    assert kr.flops(keras.Model(inputs, x)) == (
        grouped + depthwise + separable + transposed + einsum
    )


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="TensorFlow runs channels_first convolutions on a GPU alone",
)
@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(8, 3, data_format="channels_first", groups=2),
        layers.DepthwiseConv2D(3, data_format="channels_first"),
        layers.SeparableConv2D(8, 3, data_format="channels_first"),
        layers.Conv2DTranspose(8, 3, data_format="channels_first"),
    ],
    ids=lambda layer: layer.name,
)
def test_channels_first(layer, tmp_path):
    first = {"data_format": "channels_first"}
    inputs = keras.Input((5, 7, 7))
    x = layers.Conv2D(12, 3, activation="relu", **first)(inputs)
    x = layers.BatchNormalization(axis=1)(layer(x))
    x = layers.AveragePooling2D(2, **first)(x)
    x = layers.Flatten(**first)(x)
    assert_copies_go(keras.Model(inputs, layers.Dense(3)(x)), tmp_path)


def mixing(layer):
    """A layer that mixes the 5 positions of 16 channels, "before" it Dense."""
    inputs = keras.Input((5, 20))
    x = layers.Dense(16, activation="relu", name="before")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="top")(layer(x)))


def over_positions(dense):
    """A `Dense` on the axis of positions, as mixers of MLPs have it."""
    return lambda x: layers.Permute((2, 1))(dense(layers.Permute((2, 1))(x)))


MIXERS = {
    "dense": lambda: over_positions(layers.Dense(7)),
    "activated": lambda: over_positions(layers.Dense(7, "gelu")),
    "einsum": lambda: layers.EinsumDense("abc,bd->adc", (7, 16), bias_axes="d"),
}


@pytest.mark.parametrize("name", MIXERS)
def test_channels_go_on_where_positions_are_mixed(name, tmp_path):
    graph = assert_copies_go(mixing(MIXERS[name]()), tmp_path)
    assert [s.name for s in graph.prunable] == ["before"]


@pytest.mark.parametrize("name", MIXERS)
def test_parallel_units_do_not_merge_scaled_where_positions_have_biases(name):
    """A bias of a position is added to all channels, whatever their scale."""
    model = models.randomized(mixing(MIXERS[name]()))
    (space,) = kr.trace(model).prunable
    models.copy_units(space, np.array([0]), np.array([5]), scale=2.5)
    small = kr.prune(model, tau=0.9999)
    old, new = (models.numpy(m.get_layer("top").kernel) for m in (model, small))
    np.testing.assert_allclose(new[0], old[0] + old[5], rtol=1e-5)


def test_hidden_units_of_a_token_mixer_go(tmp_path):
    """They are on the last axis, where the channels come back behind them."""
    inputs = keras.Input((5, 12))
    x = layers.Dense(16, "relu", name="before")(inputs)
    hidden = layers.Dense(9, "gelu", name="hidden")
    y = over_positions(lambda z: layers.Dense(5)(hidden(z)))(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Add()([x, y])))
    graph = assert_copies_go(model, tmp_path)
    assert "hidden" in {s.name for s in graph.prunable}
