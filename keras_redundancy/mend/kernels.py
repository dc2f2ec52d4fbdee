"""Kernels of a model and of the smaller one: what they read and write."""

import dataclasses
import itertools
import math

import keras
import numpy as np
from keras import layers, ops

from keras_redundancy._shared.convolutions import CONVOLUTIONS
from keras_redundancy.calibration.moments import HELD_OUT, Divided
from keras_redundancy.calibration.observer import (
    answers,
    as_rows,
    divided_moments,
    positions_for,
    sampled,
)
from keras_redundancy.mend.links import Surroundings
from keras_redundancy.mend.pairs import SideBySide, paired_calls

# Of kernels with more weights per unit the covariance of what they read would
# be too large, and larger kernels take too long to fit step by step.
MOST_WEIGHTS = 2400
LARGEST_KERNEL = 2**22
# Positions of a sample that are looked at, where samples abound.
POSITIONS = 16
# So many rows are kept at most, of no more numbers in all.
ROWS = 2**14
NUMBERS = 2**25


@dataclasses.dataclass(eq=False)
class Pair:
    """A layer with a kernel, and its counterpart in the smaller model.

    Attributes:
        old, new: the layers.
        kept: units of the old one that the new one has, shape (units,).
        link: what becomes of what they return, as `Surroundings.link` says.
        reads: keys of the tensors that they are called on: a pair for each
            call.
        before: the `Pair` of which this one reads the ReLU, and nothing else
            does; or None.
    """

    old: keras.Layer
    new: keras.Layer
    kept: np.ndarray
    link: str
    reads: list = dataclasses.field(default_factory=list)
    before: "Pair | None" = None

    @property
    def has_covariance(self) -> bool:
        """Whether least squares can fit it."""
        return math.prod(self.new.kernel.shape[:-1]) <= MOST_WEIGHTS

    @property
    def chain(self) -> "list[Pair]":
        """What is fitted at once, step by step, so that the link is right."""
        if self.before and _is_small(self.before, self):
            return [self.before, self]
        # Otherwise least squares are all that it takes.
        bends = self.link != "linear"
        return [self] if bends and _is_small(self) else []


def _is_small(*pairs):
    weights = sum(math.prod(pair.new.kernel.shape) for pair in pairs)
    return weights <= LARGEST_KERNEL


def pairs_of(old, new, kept_units) -> list[Pair]:
    """All layers with kernels that can be fitted, in the order they run.

    Args:
        old: the original model.
        new: the smaller one.
        kept_units: {id(layer of old): units that the new layer has}; other
            layers are left out.
    """
    around = Surroundings(old)
    found, before = {}, {}
    for *calls, paths in paired_calls(old, new):
        layer, its_copy = (call.operation for call in calls)
        if id(layer) not in kept_units or not _can_be_fit(layer):
            continue
        keys = tuple(
            (*path, id(call.inputs[0]))
            for path, call in zip(paths, calls, strict=True)
        )
        link, kept = around.link(calls[0]), kept_units[id(layer)]
        pair = found.setdefault(id(layer), Pair(layer, its_copy, kept, link))
        pair.reads.append(keys)
        if pair.link != link:
            pair.link = "linear"
        if type(layer) is layers.Dense:
            before[pair] = around.before(calls[0])
    for pair, call in before.items():
        read = call and found.get(id(call.operation))
        if read and len(read.reads) == len(pair.reads) == 1:
            pair.before = read
    return [p for p in found.values() if p.has_covariance or p.chain]


def _can_be_fit(layer):
    if type(layer) is layers.Dense:
        return True
    if type(layer) not in CONVOLUTIONS or layer.groups > 1:
        return False
    return layer.padding in ("same", "valid")


class PairObserver(SideBySide):
    """Two models that return what a pair reads and writes.

    "moments": of rows, what the new kernel reads and then what the old one
    wrote. "rows": what the first layer of the chain reads, and what the old
    kernel wrote, of shape (samples, positions, numbers).
    """

    def __init__(self, old, new, kept_channels, pair):
        before, after = map(set, zip(*pair.reads, strict=True))
        for other in pair.chain:
            after.update(key for _, key in other.reads)
        keys = frozenset(before), frozenset(after)
        super().__init__(old, new, kept_channels, keys)
        self.pair = pair

    def look(self, *runs):
        (before, after), pair = runs, self.pair
        weights = math.prod(pair.new.kernel.shape[:-1])
        most = positions_for(weights, self.samples, POSITIONS)
        wanted = [
            ops.take(_outputs(pair.old, before.seen[key]), pair.kept, axis=-1)
            for key, _ in pair.reads
        ]
        wanted = [sampled(y, before.start, most) for y in wanted]
        found = {}
        if pair.has_covariance:
            read = _read_by(pair, after, most)
            rows = [
                ops.concatenate(both, axis=-1)
                for both in zip(read, wanted, strict=True)
            ]
            found["moments"] = divided_moments(rows)
        if pair.chain:
            read = _read_by(pair.chain[0], after, most)
            found["rows"] = [
                ops.concatenate(part, axis=1) for part in (read, wanted)
            ]
        return found


def look_at(old, new, kept_channels, pair, data, batch_size):
    """What the layers of a pair read and write.

    Args:
        old, new, kept_channels: as for `SideBySide`.
        pair: a `Pair` of layers of these.
        data: what `Model.predict` takes.
        batch_size: for arrays.

    Returns:
        (moments, rows): the moments, `Divided`, of what the new kernel reads
        and then what the old one wrote, before its activation, of the units
        that are kept, over all of the data; None for a large kernel. And
        three arrays: some rows of what the first layer of the chain reads and
        of what the old kernel wrote, and whether each is held out; None where
        there is no chain.
    """
    observer = PairObserver(old, new, kept_channels, pair)
    moments, rows = None, _Rows()
    for size, found in answers(observer, data, batch_size):
        if "moments" in found:
            moments = moments or Divided.of_no_rows(len(found["moments"][0][1]))
            moments.add(size, *found["moments"])
        if "rows" in found and not rows.are_enough:
            rows.add(*found["rows"])
        if rows.are_enough and moments is None:
            break
    return moments, rows.arrays


class _Rows:
    """Some rows of what a chain reads and should write, and their samples."""

    def __init__(self):
        self._parts, self._count, self._samples = [], 0, 0

    @property
    def are_enough(self) -> bool:
        if not self._parts:
            return False
        numbers = sum(x.shape[-1] for x in self._parts[0][:2])
        return self._count >= min(ROWS, NUMBERS // numbers)

    def add(self, read, wanted):
        samples, positions, _ = read.shape
        number = self._samples + np.arange(samples)
        parts = (*map(as_rows, (read, wanted)), np.repeat(number, positions))
        self._parts.append(parts)
        self._count += samples * positions
        self._samples += samples

    @property
    def arrays(self):
        """Inputs, what is wanted, and whether the row is held out.

        Every fifth sample is; of fewer than five, every fifth position.
        """
        if not self._parts:
            return None
        inputs, wanted, number = map(
            np.concatenate, zip(*self._parts, strict=True)
        )
        if self._samples < HELD_OUT:
            number = np.arange(len(number))
        return inputs, wanted, number % HELD_OUT == HELD_OUT - 1


def _read_by(pair, run, most):
    """What the new kernel reads: (samples, positions, weights) of each call."""
    return [
        ops.concatenate(
            [
                sampled(x, run.start, most)
                for x in _windows(pair.new, run.seen[key])
            ],
            axis=-1,
        )
        for _, key in pair.reads
    ]


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
    # Numbers, or tensors where the model leaves them open.
    sizes, pads, ends = ops.shape(x)[1:-1], [(0, 0)], []
    steps = layer.strides
    for size, width, step, stretch in zip(
        sizes, layer.kernel_size, steps, layer.dilation_rate, strict=True
    ):
        reach, pad = (width - 1) * stretch + 1, 0
        if layer.padding == "same":
            count = -(-size // step)
            pad = (count - 1) * step + reach - size
            pad = max(pad, 0) if isinstance(pad, int) else ops.maximum(pad, 0)
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
