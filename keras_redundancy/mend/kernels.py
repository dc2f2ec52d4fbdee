"""Layers as matrix products: what their kernels read, row by row."""

import dataclasses
import functools
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from keras_redundancy._keras import attention_projections
from keras_redundancy._shared.convolutions import (
    CONVOLUTIONS,
    DEPTHWISE,
    SEPARABLE,
    TRANSPOSED,
    depthwise_part,
)
from keras_redundancy.channels.rules.attention import values_of_heads


@dataclasses.dataclass(frozen=True, eq=False)
class KernelProduct:
    """A kernel that multiplies rows: outputs = rows @ matrix + bias.

    A grouped convolution has a matrix for each of its groups, and a depthwise
    one for each channel.

    Attributes:
        layer: the layer.
        kernel: the variable.
        groups: how many matrices there are.
        order: axes of the kernel: those of its places, the channels it reads,
            the units.
        taps: a function of a tensor's spatial sizes: for each of these an
            integer array (outputs, places) of what each output reads at each
            place of the kernel, -1 for what lies outside.
        first: whether channels are the axis 1 of what is read.
        before: a function of what the layer reads that returns what the
            kernel does; None where that is the same.
        given: a function of the (args, kwargs) of a call, where the layer is
            part of another one that the graph calls: it returns what the
            layer reads.
    """

    layer: keras.Layer
    kernel: keras.Variable
    groups: int
    order: tuple[int, ...]
    taps: Callable
    first: bool = False
    before: Callable | None = None
    given: Callable | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the matrices: (groups, numbers in a row, units of a group)."""
        *places, channels, units = (self.kernel.shape[i] for i in self.order)
        if self.is_depthwise:
            return channels, math.prod(places), units
        return self.groups, math.prod(places) * channels, units // self.groups

    @property
    def is_depthwise(self) -> bool:
        return isinstance(self.layer, DEPTHWISE)

    @property
    def matrices(self) -> NDArray[np.float64]:
        """Shape (groups, numbers in a row, units of a group)."""
        return np.asarray(ops.convert_to_numpy(self.tensor), np.float64)

    @property
    def tensor(self):
        """The matrices on the device, in the dtype of the kernel."""
        groups, numbers, units = self.shape
        kernel = ops.transpose(self.kernel, self.order)
        return ops.swapaxes(ops.reshape(kernel, (numbers, groups, units)), 0, 1)

    def assign(self, matrices: NDArray) -> None:
        """Put matrices, of the shape `shape`, in the kernel's place."""
        shape = [self.kernel.shape[i] for i in self.order]
        kernel = matrices.swapaxes(0, 1).reshape(shape)
        self.kernel.assign(kernel.transpose(np.argsort(self.order)))

    @property
    def bias(self) -> keras.Variable | None:
        return self.layer.bias

    def read(self, x):
        """What the kernel reads, given what the layer does."""
        x = ops.cast(x, self.kernel.dtype)
        return x if self.before is None else self.before(x)

    def positions(self, x) -> int:
        """At how many positions of each sample the kernel reads x."""
        return math.prod(len(taps) for taps in self.taps(self._sizes(x)))

    def _sizes(self, x):
        return x.shape[2:] if self.first else x.shape[1:-1]

    def rows(self, x, positions: NDArray):
        """What the kernel reads at some positions.

        Args:
            x: what it reads, a tensor (samples, ...).
            positions: numbers of the output positions to look at.

        Returns:
            A tensor (samples, positions, groups, numbers in a row).
        """
        sizes = self._sizes(x)
        index = _places(self.taps(sizes), sizes, positions)
        channels, count = x.shape[1 if self.first else -1], math.prod(sizes)
        if self.first:
            x = ops.reshape(x, (-1, channels, count))
            x = ops.swapaxes(x, 1, 2)
        else:
            x = ops.reshape(x, (-1, count, channels))
        if (index == count).any():
            # What lies outside is 0.
            x = ops.pad(x, [[0, 0], [0, 1], [0, 0]])
        if not np.array_equal(index, np.arange(count)[:, None]):
            x = ops.take(x, index.reshape(-1), axis=1)
        groups = channels if self.is_depthwise else self.groups
        each = channels // groups
        x = ops.reshape(x, (-1, *index.shape, groups, each))
        x = ops.moveaxis(x, 3, 2) if groups > 1 else x
        return ops.reshape(
            x, (-1, len(positions), groups, index[0].size * each)
        )


def _places(taps, sizes, positions):
    """For each position, numbers of the input positions that it reads.

    Returns:
        Shape (positions, places), int32: for what lies outside of the input,
        the number behind the last one.
    """
    index = np.zeros((len(positions), 1), int)
    is_inside = np.ones((len(positions), 1), bool)
    counts = [len(each) for each in taps]
    outputs = np.unravel_index(positions, counts) if counts else ()
    for each, size, at in zip(taps, sizes, outputs, strict=True):
        own = each[at][:, None, :]
        index = index[..., None] * size + own.clip(0)
        is_inside = is_inside[..., None] & (own >= 0)
        index, is_inside = (
            x.reshape(len(positions), -1) for x in (index, is_inside)
        )
    return np.where(is_inside, index, math.prod(sizes)).astype("int32")


def product_of(layer) -> KernelProduct | None:
    """The product that a layer makes; None of one that is not known."""
    kind = type(layer)
    if kind is layers.Dense:
        return KernelProduct(layer, layer.kernel, 1, (0, 1), _everywhere)
    if kind is layers.EinsumDense and _is_dense(layer):
        return KernelProduct(layer, layer.kernel, 1, (0, 1), _everywhere)
    if kind in (layers.MultiHeadAttention, layers.GroupQueryAttention):
        return _projection_of_heads(layer)
    known = (*CONVOLUTIONS, *TRANSPOSED, *DEPTHWISE, *SEPARABLE)
    if kind not in known or layer.padding not in ("same", "valid", "causal"):
        return None
    first = layer.data_format == "channels_first"
    order = tuple(range(layer.rank + 2))
    taps = functools.partial(_taps, layer)
    if kind in SEPARABLE:
        return _pointwise(layer, order)
    if kind in TRANSPOSED:
        if layer.output_padding is not None:
            return None
        order = (*order[:-2], order[-1], order[-2])
        taps = functools.partial(_transposed_taps, layer)
    groups = layer.groups if kind in CONVOLUTIONS else 1
    return KernelProduct(layer, layer.kernel, groups, order, taps, first)


def _pointwise(layer, order):
    """The second kernel of a separable convolution."""
    before = functools.partial(depthwise_part, layer)
    first = layer.data_format == "channels_first"
    kernel = layer.pointwise_kernel
    return KernelProduct(layer, kernel, 1, order, _everywhere, first, before)


def _projection_of_heads(layer):
    """The output projection of an attention layer, if it is a matrix."""
    dense = attention_projections(layer)["output"]
    if len(dense.kernel.shape) != 3:
        return None
    return KernelProduct(
        dense,
        dense.kernel,
        1,
        (0, 1, 2),
        _everywhere,
        given=functools.partial(values_of_heads, layer),
    )


def _is_dense(layer):
    """Whether it multiplies the last axis with a matrix, like "abc,cd->abd"."""
    given, _, written = layer.equation.replace(" ", "").partition("->")
    read, kernel = given.split(",")
    is_matrix = len(kernel) == len(layer.kernel.shape) == 2
    same = read.endswith(kernel[0]) and written == read[:-1] + kernel[-1]
    is_new = kernel[-1] not in read
    has_bias = layer.bias is None or len(layer.bias.shape) == 1
    return is_matrix and same and is_new and has_bias


def _everywhere(sizes):
    """Each position reads itself."""
    return [np.arange(size)[:, None] for size in sizes]


def _taps(layer, sizes):
    """What the outputs of a convolution read."""
    taps = []
    for size, width, step, stretch in zip(
        sizes,
        layer.kernel_size,
        _each(layer.strides, layer.rank),
        _each(layer.dilation_rate, layer.rank),
        strict=True,
    ):
        reach, pad = (width - 1) * stretch + 1, 0
        if layer.padding == "same":
            count = -(-size // step)
            pad = max((count - 1) * step + reach - size, 0) // 2
        elif layer.padding == "causal":
            pad, count = reach - 1, -(-size // step)
        else:
            count = (size - reach) // step + 1
        starts = np.arange(count)[:, None] * step - pad
        found = starts + np.arange(width) * stretch
        taps.append(np.where((found >= 0) & (found < size), found, -1))
    return taps


def _transposed_taps(layer, sizes):
    """Those of the convolution whose gradient this is, the other way round."""
    taps = []
    for size, width, step, stretch in zip(
        sizes,
        layer.kernel_size,
        _each(layer.strides, layer.rank),
        _each(layer.dilation_rate, layer.rank),
        strict=True,
    ):
        reach, pad = (width - 1) * stretch + 1, 0
        if layer.padding == "same":
            count = size * step
            pad = max((size - 1) * step + reach - count, 0) // 2
        else:
            count = size * step + max(reach - step, 0)
        found = np.arange(count)[:, None] + pad - np.arange(width) * stretch
        is_read = (found >= 0) & (found % step == 0) & (found < size * step)
        taps.append(np.where(is_read, found // step, -1))
    return taps


def _each(value, rank):
    return (value,) * rank if isinstance(value, int) else value
