"""Layers as matrix products: rows times matrix and bias is what they return."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from keras_redundancy.mend.kernels import product_of
from tests import models

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def convolutions(width, step, padding, stretch):
    """(layer, shape of a sample) of all kinds."""
    size = width, 3
    settings = {"strides": step, "padding": padding, "dilation_rate": stretch}
    yield layers.Conv1D(4, width, **settings), (7, 2)
    yield layers.Conv2D(4, size, **settings), (7, 9, 2)
    yield layers.DepthwiseConv1D(width, depth_multiplier=2, **settings), (7, 3)
    yield (
        layers.DepthwiseConv2D(size, depth_multiplier=2, **settings),
        (7, 9, 3),
    )
    yield layers.SeparableConv2D(5, size, **settings), (7, 9, 3)
    yield layers.Conv1DTranspose(4, width, **settings), (8, 2)
    if stretch == 1:
        yield layers.Conv2D(4, size, groups=2, **settings), (7, 9, 4)
        yield layers.Conv2DTranspose(4, size, **settings), (8, 5, 2)


def assert_multiplies(layer, shape):
    layer.build((None, *shape))
    rng = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(rng.normal(size=variable.shape))
    x = rng.normal(size=(3, *shape)).astype("float32")
    wanted = models.numpy(layer(x))
    product = product_of(layer)
    if product.first:
        wanted = np.moveaxis(wanted, 1, -1)
    x = product.read(keras.ops.convert_to_tensor(x))
    positions = np.arange(product.positions(x))
    rows = models.numpy(product.rows(x, positions))
    found = np.einsum("spgn,gnu->spgu", rows, product.matrices)
    found = found.reshape(wanted.shape) + models.numpy(layer.bias)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    before = models.numpy(product.kernel)
    product.assign(product.matrices)
    np.testing.assert_array_equal(models.numpy(product.kernel), before)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("step", "stretch"), [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_convolutions(padding, step, stretch):
    for width in (1, 2, 3):
        for layer, shape in convolutions(width, step, padding, stretch):
            assert_multiplies(layer, shape)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(5), (4,)),
        (layers.Dense(5), (6, 4)),
        (layers.EinsumDense("abc,cd->abd", (6, 5), bias_axes="d"), (6, 4)),
        (layers.Conv1D(4, 3, 2, "causal"), (8, 2)),
        (layers.Conv1D(4, 3, 1, "causal", dilation_rate=2), (8, 2)),
        (layers.Conv3D(4, (1, 2, 3), (1, 2, 2), "same"), (4, 5, 6, 2)),
        (layers.Conv3DTranspose(4, (1, 2, 3), (1, 2, 2), "same"), (4, 5, 6, 2)),
    ],
)
def test_others(layer, shape):
    assert_multiplies(layer, shape)


@pytest.mark.skipif(ON_TENSORFLOW, reason="TensorFlow has them on a GPU alone")
def test_channels_first():
    for kind, padding in itertools.product(
        (layers.Conv2D, layers.Conv2DTranspose), ("same", "valid")
    ):
        layer = kind(4, (2, 3), 2, padding, data_format="channels_first")
        assert_multiplies(layer, (2, 7, 9))


@pytest.mark.parametrize(
    "layer",
    [
        layers.EinsumDense("abc,bd->adc", (5, None)),
        layers.EinsumDense("abc,cde->abde", (6, 2, 3)),
    ],
)
def test_what_is_no_matrix_product(layer):
    layer.build((None, 6, 4))
    assert product_of(layer) is None
