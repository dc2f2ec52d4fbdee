"""Repair: mend a smaller model with calibration data."""

import dataclasses

import numpy as np

from keras_redundancy._shared.progress import progress
from keras_redundancy.calibration.observer import answers, full_precision
from keras_redundancy.channels.labels import Shifted
from keras_redundancy.channels.shifts import homes_of_shifts
from keras_redundancy.mend.kernels import pairs_of
from keras_redundancy.mend.pairs import SideBySide, repaired
from keras_redundancy.mend.reconstruct import reconstruct


@dataclasses.dataclass(frozen=True, eq=False)
class Repair:
    """How a smaller model is mended.

    Attributes:
        data, batch_size: what to mend it with, as for `reestimate`.
        rounds: how often all kernels are fitted to what the original ones
            return.
    """

    data: object
    batch_size: int
    rounds: int

    def mend(self, graph, removed, small, verbose: bool) -> None:
        """Mend `small` in place.

        Args:
            graph: the traced original model.
            removed: whether each group of channels is gone.
            small: the model without them.
            verbose: whether to draw a progress bar.
        """
        kept_channels = {
            id(axis.variable): np.flatnonzero(~removed[axis.group])
            for axis in graph.axes
        }
        kept_units = {
            id(step.layer): np.flatnonzero(~removed[graph.group[step.ids]])
            for step in graph.steps
            # A kernel that is read elsewhere too is not fitted to one layer.
            if isinstance(step, Shifted) and id(step.kernel) not in graph.tied
        }
        centered = {
            id(home.step.layer)
            for home in homes_of_shifts(graph).values()
            if home.sign < 0
        }
        data = self.data, self.batch_size
        reestimate(graph.model, small, kept_channels, *data)
        if not self.rounds:
            return
        pairs = pairs_of(graph.model, small, kept_units)
        count = self.rounds * len(pairs)
        with progress(verbose, count, "kernel") as step:
            for _ in range(self.rounds):
                for _ in reconstruct(
                    graph.model, small, pairs, kept_channels, centered, *data
                ):
                    step()
                reestimate(graph.model, small, kept_channels, *data)


def reestimate(old, new, kept_channels, data, batch_size: int) -> None:
    """Statistics of each BatchNormalization of `new`, in place.

    Both models run side by side. What changed from the old to the new
    statistics of what is normalised, the mean by a difference and the variance
    by a ratio (see `repaired`), is what changes in the moving ones: those of
    channels that are what they were stay what they were.

    Args:
        old: the original model.
        new: the smaller one, which is changed.
        kept_channels: {id(moving mean of old): channels that stay}; all do
            where there is none.
        data: what `Model.predict` takes.
        batch_size: for arrays.

    Raises:
        ValueError: `data` is empty or does not fit the model's inputs.

    Source: Jordan et al., REPAIR (2022); Wu and Johnson, Rethinking "Batch"
    in BatchNorm (2021), for the statistics over several batches.
    """
    observer = SideBySide(old, new, kept_channels)
    if not observer.norms:
        return
    before, after = _statistics(observer, data, batch_size)
    found = {}
    for (layer, its_copy, kept), *both in zip(
        observer.norms, before, after, strict=True
    ):
        found.setdefault(layer, (its_copy, kept, []))[2].append(both)
    for layer, (its_copy, kept, calls) in found.items():
        dtype = full_precision(old)
        moving = [
            np.asarray(x).astype(dtype)
            for x in (layer.moving_mean, layer.moving_variance)
        ]
        data = [
            np.mean(part, axis=0).astype(dtype)
            for part in zip(*calls, strict=True)
        ]
        mean, variance = repaired(moving, *data, kept, layer.epsilon)
        its_copy.moving_mean.assign(mean)
        its_copy.moving_variance.assign(variance)


def _statistics(observer, data, batch_size):
    """Means and variances (2, channels) of each call, for both models."""
    sums, count = None, 0
    for size, found in answers(observer, data, batch_size):
        weighted = [
            [size * np.stack([m, m**2, v]).astype(float) for m, v in calls]
            for calls in found
        ]
        sums = weighted if sums is None else _added(sums, weighted)
        count += size
    return [
        [_mean_and_variance(total / count) for total in totals]
        for totals in sums
    ]


def _added(sums, others):
    return [
        list(map(np.add, *totals)) for totals in zip(sums, others, strict=True)
    ]


def _mean_and_variance(moments):
    """Over all batches: the variance within them, and between them."""
    mean, square, variance = moments
    return np.stack([mean, variance + (square - mean**2).clip(0)])
