"""A model and the smaller one that was made from it, call by call."""

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy.calibration.observer import (
    Observer,
    Run,
    start_in,
)

# What of a moving variance is too small a variance to tell a ratio from.
LEAST = 1e-2
# By what the scale of a channel is changed at most.
MOST = 4
# The share of a variance that is left of it where a channel became constant.
CONSTANT = 1e-6


def paired_calls(old, new, paths=((), ())):
    """The calls of both models' graphs, in the order in which they run.

    Yields:
        (call, its counterpart, paths): the paths are those of the `Place`s of
        the tensors in each model. Calls of nested models are followed.
    """
    graphs = _keras.graph_of(old), _keras.graph_of(new)
    for calls in zip(*map(_keras.calls, graphs, paths), strict=True):
        if _keras.is_model(calls[0].operation):
            inner = tuple(call.key for call in calls)
            models = (call.operation for call in calls)
            yield from paired_calls(*models, inner)
        else:
            yield *calls, paths


def normalizes(operation) -> bool:
    """Whether it is a BatchNormalization whose statistics can be repaired."""
    kind = keras.layers.BatchNormalization
    return type(operation) is kind and not operation.renorm


class SideBySide(Observer):
    """A model and the smaller one, run on the same batch.

    Each BatchNormalization of the smaller model normalises as it will once it
    is repaired: what changed from the old to the new statistics of the batch,
    the mean by a difference and the variance by a ratio, is what changes in
    the moving ones.

    Attributes:
        model, new: the models.
        norms: (BatchNormalization of the old model, its copy, channels that
            the copy has) for each call of one, in order.
    """

    def __init__(self, old, new, kept_channels, keys=(frozenset(),) * 2):
        """Args:
        old, new: the models.
        kept_channels: {id(moving mean of old): channels that stay}; all do
            where there is none.
        keys: for each model those of the tensors that are kept for `look`.
        """
        super().__init__(old)
        self.new = new
        self._keys = keys
        self.norms = tuple(
            (call.operation, its_copy.operation, _kept(call, kept_channels))
            for call, its_copy, _ in paired_calls(old, new)
            if normalizes(call.operation)
        )

    def call(self, inputs):
        *tensors, start = inputs
        start = start_in(start)
        before = StatisticsRun(self._keys[0], start)
        before.run(self.model, tensors)
        references = [
            (layer, kept, *moments)
            # A run ends early where nothing more is looked at.
            for (layer, _, kept), moments in zip(
                self.norms, before.moments, strict=False
            )
        ]
        after = RepairedRun(self._keys[1], start, references)
        after.run(self.new, tensors)
        return self.look(before, after)

    def look(self, before, after):
        """What to return of the two runs: here, all statistics."""
        return before.moments, after.moments


def _kept(call, kept_channels):
    layer = call.operation
    everyone = np.arange(layer.moving_mean.shape[0])
    return kept_channels.get(id(layer.moving_mean), everyone)


class StatisticsRun(Run):
    """A run that notes the statistics of what is normalised.

    Attributes:
        moments: (mean, variance) over the batch, in the order of the calls;
            the moving ones where it is masked.
    """

    def __init__(self, keys, start):
        super().__init__(keys, start)
        self.moments = []

    def results(self, operation, args, kwargs):
        if normalizes(operation):
            self.moments.append(_statistics(operation, args[0]))
        return super().results(operation, args, kwargs)


class RepairedRun(StatisticsRun):
    """A run by the statistics that a repair would give.

    Attributes:
        references: for each call the old layer, the channels that stay, and
            the old mean and variance.
    """

    def __init__(self, keys, start, references):
        super().__init__(keys, start)
        self.references = iter(references)

    def results(self, operation, args, kwargs):
        if not normalizes(operation):
            return super().results(operation, args, kwargs)
        own = _statistics(operation, args[0])
        self.moments.append(own)
        layer, kept, *reference = next(self.references)
        moving = [ops.cast(x, own[0].dtype) for x in _moving(layer)]
        mean, variance = repaired(
            moving, reference, own, kept, operation.epsilon
        )
        x = ops.cast(args[0], own[0].dtype)
        y = ops.batch_normalization(
            x,
            mean,
            variance,
            operation.axis % len(x.shape),
            offset=_cast(operation.beta if operation.center else None, x),
            scale=_cast(operation.gamma if operation.scale else None, x),
            epsilon=operation.epsilon,
        )
        return ops.cast(y, operation.compute_dtype)


def repaired(moving, old, new, kept, epsilon):
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
    """
    known = ops.take(ops.stack([*moving, *old]), kept, axis=1)
    moving_mean, moving_variance, mean, variance = ops.unstack(known, 4)
    new_mean, new_variance = new
    least = epsilon + LEAST * moving_variance
    ratio = (new_variance + least) / (variance + least)
    ratio = ops.clip(ratio, 1 / MOST**2, MOST**2)
    ratio = ops.where(new_variance > CONSTANT * variance, ratio, 1)
    scaled = (moving_variance + epsilon) * ratio - epsilon
    # The same number where nothing changed, and none below zero.
    scaled = ops.where(ratio == 1, moving_variance, ops.maximum(scaled, 0))
    return moving_mean + new_mean - mean, scaled


def _statistics(layer, x):
    dtype = keras.backend.result_type(x.dtype, "float32")
    if _keras.mask_of(x) is not None:
        return tuple(ops.cast(value, dtype) for value in _moving(layer))
    axis = layer.axis % len(x.shape)
    others = [i for i in range(len(x.shape)) if i != axis]
    return ops.moments(ops.cast(x, dtype), axes=others)


def _moving(layer):
    return layer.moving_mean, layer.moving_variance


def _cast(variable, like):
    return None if variable is None else ops.cast(variable, like.dtype)
