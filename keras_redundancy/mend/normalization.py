"""Moving statistics of a smaller model, from what its data became."""

import dataclasses
import math

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from keras_redundancy import _keras
from keras_redundancy.mend.reconstruct import spread

# So many rows, of all samples together, say what mean and variance are.
ROWS = 2**14
# What of a moving variance is too small a variance to tell a ratio from.
LEAST = 1e-2
# By what the scale of a channel is changed at most.
MOST = 4
# The share of a variance that is left of it where a channel became constant.
CONSTANT = 1e-6


def normalizes(operation) -> bool:
    """Whether it is a BatchNormalization whose statistics can be repaired."""
    kind = layers.BatchNormalization
    return type(operation) is kind and not operation.renorm


@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
    """A BatchNormalization whose statistics are to follow the change.

    Attributes:
        old, new: the layer of the model and that of the smaller one.
        kept: channels that the new one has, shape (channels,); None for all.
    """

    old: layers.BatchNormalization
    new: layers.BatchNormalization
    kept: NDArray[np.intp] | None
    is_bare = False

    def mend(self, step, frontier) -> list[keras.Variable]:
        """Set the statistics, in place; returns the variables."""
        calls = [
            tuple(zip(*frontier.at(call.reads[0]), strict=True))[2:]
            for call in step.calls
        ]
        repair_statistics(self.old, self.new, self.kept, calls)
        return [self.new.moving_mean, self.new.moving_variance]


def repair_statistics(old, new, kept: NDArray | None, calls: list) -> None:
    """Set the moving statistics of a BatchNormalization, in place.

    Args:
        old, new: the layer of the original model and that of the smaller one.
        kept: which channels the new one has; None for all.
        calls: for each call (what the old layer reads, what the new one
            does), two lists of tensors. The statistics are the mean of those
            of all calls. Those of a masked call say nothing: it is left out.
            So is a call in which other axes than that of the statistics
            became smaller: a mean over fewer channels is another one, though
            each of these channels is what it was.
    """
    calls = [
        both
        for both in calls
        if _keras.mask_of(both[0][0]) is None and _are_comparable(old, both)
    ]
    if not calls:
        return
    moving = [
        np.asarray(keras.ops.convert_to_numpy(x), np.float64)
        for x in (old.moving_mean, old.moving_variance)
    ]
    before, after = (
        np.mean([_statistics(old, tensors) for tensors in side], axis=0)
        for side in zip(*calls, strict=True)
    )
    if kept is None:
        kept = np.arange(len(moving[0]))
    mean, variance = repaired(moving, before, after, kept, old.epsilon)
    new.moving_mean.assign(mean)
    new.moving_variance.assign(variance)


def _are_comparable(layer, both):
    """Whether old and new tensors have the same sizes, but for their axis."""
    shapes = [list(tensors[0].shape) for tensors in both]
    for shape in shapes:
        del shape[layer.axis]
    return shapes[0] == shapes[1]


def _statistics(layer, tensors):
    """Mean and variance of the channels of all tensors, shape (2, channels).

    Of many positions some are looked at, in both models the same ones: so
    what chance makes of one is made of the other.
    """
    counts, means, variances = [], [], []
    most = max(ROWS // sum(x.shape[0] for x in tensors), 1)
    for number, x in enumerate(tensors):
        x = ops.moveaxis(x, layer.axis, -1)
        count = math.prod(x.shape[1:-1])
        x = ops.reshape(x, (-1, count, x.shape[-1]))
        if count > most:
            x = ops.take(x, spread(count, number, most), axis=1)
        dtype = keras.backend.result_type(x.dtype, "float32")
        x = ops.cast(x, dtype)
        # Unlike E[x^2] - E[x]^2, this is right for a large mean as well.
        mean = ops.mean(x, axis=(0, 1))
        variance = ops.mean(ops.square(x - mean), axis=(0, 1))
        means.append(ops.convert_to_numpy(mean).astype(np.float64))
        variances.append(ops.convert_to_numpy(variance).astype(np.float64))
        counts.append(x.shape[0] * x.shape[1])
    mean = np.average(means, axis=0, weights=counts)
    between = np.square(means - mean)
    return mean, np.average(variances + between, axis=0, weights=counts)


def repaired(
    moving: NDArray, old: NDArray, new: NDArray, kept: NDArray, epsilon: float
) -> tuple[NDArray, NDArray]:
    """Moving statistics of the channels that stay, after a change.

    A channel that is normalised is (x - mean) / sqrt(variance + epsilon). So
    that the data comes out with the mean and the spread that it had, the
    moving mean moves by what the data's mean moved, and variance + epsilon
    is multiplied by what the data's variance was multiplied by.

    That ratio says nothing where the variances are next to nothing: of a
    channel that fires for one sample of 400, chance decides whether it fires
    for two. So epsilon and `LEAST` of the moving variance are added to both
    variances: a channel that hardly varies, beside what it varied in
    training, keeps its scale. No scale changes by more than `MOST`: what is
    left of a channel that nothing kept can tell is error, which a larger
    scale would pass on. And a channel that became constant keeps its moving
    variance: its mean is all that the data says of it.

    Args:
        moving: mean and variance of the old layer, two of shape (channels,).
        old: those of the data in the old model, two of shape (channels,).
        new: those of the data in the new model, two of shape (kept,).
        kept: which channels these are.
        epsilon: that of the layer.

    Returns:
        Moving mean and variance, two of shape (kept,).

    Source: Jordan et al., REPAIR (2022).
    """
    known = np.take([*moving, *old], kept, axis=1)
    moving_mean, moving_variance, mean, variance = known
    new_mean, new_variance = new
    least = epsilon + LEAST * moving_variance
    ratio = (new_variance + least) / (variance + least)
    ratio = ratio.clip(1 / MOST**2, MOST**2)
    ratio = np.where(new_variance > CONSTANT * variance, ratio, 1)
    scaled = (moving_variance + epsilon) * ratio - epsilon
    # The same number where nothing changed, and none below zero.
    scaled = np.where(ratio == 1, moving_variance, scaled.clip(0))
    return moving_mean + new_mean - mean, scaled
