"""Reconstruct: what kernels read changed, so they are fitted to it anew.

`refit` makes up for what goes from the inputs of each consumer, as if all else
stayed. But behind a layer that was cut, inputs are not quite what they were.
Here the smaller model and the one that it was made from run side by side, and
one kernel of the smaller one after the other is fitted, by least squares over
its whole window, to give what the original one gave. Each takes a pass over
the data: fitted all at once, to inputs that change by it, they get worse.

Source: He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural
Networks (2017), with the inputs of the pruned network.
"""

import dataclasses
import itertools
import math

import keras
import numpy as np
from keras import layers, ops

from keras_redundancy import regression
from keras_redundancy.calibration.observer import (
    collect,
    moments_of,
    sampled,
)
from keras_redundancy.calibration.pairs import SideBySide, paired_calls

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
# Kernels with more weights per unit are left as they are: the covariance of
# what they read would be too large.
MOST_WEIGHTS = 2400
# Positions of a sample that are looked at.
POSITIONS = 16
# The share of a variance that rounding to these may be: ten squared steps.
ROUNDING = {"bfloat16": 10 * 2.0**-14, "float16": 10 * 2.0**-20}


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A layer with a kernel, and its counterpart in the smaller model.

    Attributes:
        old, new: the layers.
        kept: units of the old one that the new one has, shape (units,).
        reads: keys of the tensors that they are called on: a pair for each
            call.
    """

    old: keras.Layer
    new: keras.Layer
    kept: np.ndarray
    reads: tuple


def reconstruct(
    old, new, kept_units, kept_channels, centered, data, batch_size
) -> None:
    """Fit the kernels of `new` to what those of `old` return, in place.

    Args:
        old: the original model.
        new: the smaller one, which is changed.
        kept_units: {id(layer of old): units that the new layer has}; other
            layers are left as they are.
        kept_channels: {id(moving mean of old): channels that stay}.
        centered: ids of layers of `old` whose outputs have their mean taken
            away by a BatchNormalization.
        data: what `Model.predict` takes.
        batch_size: for arrays.
    """
    for pair in _pairs(old, new, kept_units):
        observer = PairObserver(old, new, kept_channels, pair)
        (moments,) = collect(observer, data, batch_size)
        _fit(pair, moments, id(pair.old) in centered)


def _fit(pair, moments, is_centered):
    """New kernel and bias from the moments of (inputs, wanted outputs)."""
    layer, known = pair.new, moments.covariance
    kernel = np.asarray(layer.kernel, np.float64)
    start = kernel.reshape(-1, kernel.shape[-1])
    if layer.bias is None and not is_centered:
        # Without a shift the mean has to be predicted like the rest.
        known = known + np.outer(moments.mean, moments.mean)
    inputs, wanted = np.split(np.arange(len(known)), [len(start)])
    rounding = ROUNDING.get(layer.compute_dtype, regression.ROUNDING)
    fitted = regression.ridge_regression(
        known, inputs, wanted, start, moments.samples, rounding
    )
    layer.kernel.assign(fitted.reshape(kernel.shape))
    if layer.bias is not None:
        rest = moments.mean[wanted] - moments.mean[inputs] @ fitted
        layer.bias.assign(rest)


def _pairs(old, new, kept_units):
    found = {}
    for *calls, paths in paired_calls(old, new):
        layer, its_copy = (call.operation for call in calls)
        if id(layer) in kept_units and _can_be_fit(layer, calls[0]):
            keys = tuple(
                (*path, id(call.inputs[0]))
                for path, call in zip(paths, calls, strict=True)
            )
            found.setdefault(id(layer), (layer, its_copy, []))[2].append(keys)
    return [
        Pair(layer, its_copy, kept_units[id(layer)], tuple(keys))
        for layer, its_copy, keys in found.values()
        if math.prod(its_copy.kernel.shape[:-1]) <= MOST_WEIGHTS
    ]


def _can_be_fit(layer, call):
    if type(layer) is layers.Dense:
        return True
    if type(layer) not in CONVOLUTIONS or layer.groups > 1:
        return False
    sizes = *call.inputs[0].shape[1:], *call.outputs[0].shape[1:]
    return None not in sizes and layer.padding in ("same", "valid")


class PairObserver(SideBySide):
    """Two models that return moments of what a pair reads and writes."""

    def __init__(self, old, new, kept_channels, pair):
        keys = tuple(map(frozenset, zip(*pair.reads, strict=True)))
        super().__init__(old, new, kept_channels, keys)
        self.pair = pair

    def look(self, *runs):
        return [_moments(runs, self.pair)]


def _moments(runs, pair):
    """Of rows: what the new kernel reads, then what the old one wrote."""
    rows = []
    for keys in pair.reads:
        x, y = (run.seen[key] for run, key in zip(runs, keys, strict=True))
        wanted = ops.take(_outputs(pair.old, x), pair.kept, axis=-1)
        parts = [
            sampled(part, runs[0].start, POSITIONS)
            for part in (*_windows(pair.new, y), wanted)
        ]
        row = ops.concatenate(parts, axis=-1)
        rows.append(ops.reshape(row, (-1, row.shape[-1])))
    return moments_of(rows)


def _outputs(layer, x):
    """What a layer returns before its activation, channels last."""
    x = ops.cast(x, layer.kernel.dtype)
    if isinstance(layer, layers.Dense):
        y = ops.matmul(x, layer.kernel)
    else:
        y = layer.convolution_op(x, layer.kernel)
        if layer.data_format == "channels_first":
            y = ops.moveaxis(y, 1, -1)
    return y if layer.bias is None else y + layer.bias


def _windows(layer, x):
    """What each place of a kernel reads: tensors (samples, ..., channels).

    In the order of the kernel's weights, one tensor for each of its places.
    """
    if isinstance(layer, layers.Dense):
        return [x]
    if layer.data_format == "channels_first":
        x = ops.moveaxis(x, 1, -1)
    sizes, pads, ends = x.shape[1:-1], [(0, 0)], []
    steps = layer.strides
    for size, width, step, stretch in zip(
        sizes, layer.kernel_size, steps, layer.dilation_rate, strict=True
    ):
        reach, pad = (width - 1) * stretch + 1, 0
        if layer.padding == "same":
            count = -(-size // step)
            pad = max((count - 1) * step + reach - size, 0)
        else:
            count = (size - reach) // step + 1
        pads.append((pad // 2, pad - pad // 2))
        ends.append((count - 1) * step + 1)
    x = ops.pad(x, [*pads, (0, 0)])
    places = itertools.product(*map(range, layer.kernel_size))
    windows = []
    for place in places:
        starts = [
            i * stretch
            for i, stretch in zip(place, layer.dilation_rate, strict=True)
        ]
        cuts = (
            slice(start, start + end, step)
            for start, end, step in zip(starts, ends, steps, strict=True)
        )
        windows.append(x[slice(None), *cuts])
    return windows
