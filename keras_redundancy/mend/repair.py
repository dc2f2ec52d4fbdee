"""Repair: mend a smaller model with calibration data."""

import dataclasses

import keras
import numpy as np

from keras_redundancy._shared.convolutions import DEPTHWISE
from keras_redundancy._shared.progress import progress
from keras_redundancy._shared.threads import one_thread
from keras_redundancy.channels.labels import Normalized, Shifted
from keras_redundancy.channels.shifts import homes_of_shifts, means_behind
from keras_redundancy.mend.distilling import Training, arrays_for, train
from keras_redundancy.mend.kernels import product_of
from keras_redundancy.mend.links import Surroundings
from keras_redundancy.mend.normalization import Norm, normalizes
from keras_redundancy.mend.reconstruct import KernelFit
from keras_redundancy.mend.recurrent import recurrent_fits
from keras_redundancy.mend.walk import mended_layers, walk

# Bytes for the samples that are mended with, at the widest place of a model.
MEMORY = 2**30


@dataclasses.dataclass(eq=False)
class Repair:
    """How a smaller model is mended.

    Attributes:
        data, batch_size: what to mend it with, as for `batches`.
        rounds: how often all kernels are fitted to what the original ones
            return; with 0 only the statistics of every BatchNormalization
            follow the change.
        training: how the model is distilled after that; None: not at all.
        memory: bytes that activations of both models, and the rows that a
            kernel is fitted to, may take at a time. As many samples are used
            as there is room for.
        used, given: how many samples were used, of how many, when a model was
            mended last; None before.
    """

    data: object
    batch_size: int
    rounds: int
    memory: int = MEMORY
    training: Training | None = None
    used: int | None = None
    given: int | None = None

    def mend(self, graph, removed, small, verbose: bool) -> None:
        """Mend `small` in place.

        Args:
            graph: the traced original model.
            removed: whether each group of channels is gone.
            small: the model without them.
            verbose: whether to draw a progress bar.

        Raises:
            ValueError: there is no memory for one sample.
        """
        todo = _menders(graph, removed, small, bool(self.rounds))
        walks = max(self.rounds, 1)
        count = walks * len(todo)
        with progress(verbose, count, "layer") as done, one_thread():
            for _ in range(walks if todo else 0):
                self.used, self.given = walk(
                    graph.model,
                    small,
                    dict(todo),
                    self.data,
                    self.batch_size,
                    self.memory,
                    done,
                )
        if verbose and self.says:
            print(self.says)
        if self.training is not None:
            data = arrays_for(graph.model, self.data, self.training)
            fit = {"verbose": "auto" if verbose else 0}
            train(small, graph.model, data, self.training, **fit)

    @property
    def says(self) -> str:
        """That memory bounds the number of samples, if it did."""
        if self.used is None or self.used >= self.given:
            return ""
        return (
            f"mended with {self.used:,} of {self.given:,} samples: more take "
            f"more than memory={self.memory:,} bytes"
        )


def _menders(graph, removed, small, fits):
    """{id(layer): the `Norm`, `KernelFit` or `RecurrentFit` of it}."""
    kept_channels = {
        id(axis.variable): np.flatnonzero(~removed[axis.group])
        for axis in graph.axes
    }
    layers = mended_layers(graph.model, small)
    menders = {
        id(old): Norm(old, new, kept_channels.get(id(old.moving_mean)))
        for old, new in layers
        if normalizes(old)
    }
    if fits:
        kept_units = _kept_units(graph, removed, kept_channels, layers)
        menders |= _fits(graph, kept_units, layers)
        menders |= recurrent_fits(graph, removed, layers)
    return menders


def _kept_units(graph, removed, kept_channels, layers):
    """{id(layer): units that stay} of the layers whose kernels are fitted.

    A kernel that is read elsewhere too is not fitted to one layer.
    """
    kept_units = {
        id(step.layer): np.flatnonzero(~removed[graph.group[step.ids]])
        for step in graph.steps
        if isinstance(step, Shifted) and id(step.kernel) not in graph.tied
    }
    for layer, _ in layers:
        if type(layer) in DEPTHWISE and id(layer.kernel) not in graph.tied:
            channels = kept_channels.get(id(layer.kernel))
            if channels is not None:
                each = np.arange(layer.depth_multiplier)
                units = channels[:, None] * layer.depth_multiplier + each
                kept_units[id(layer)] = units.reshape(-1)
    return kept_units


def _centered(graph):
    """Ids of the layers whose means a BatchNormalization takes away."""
    kernels = {
        id(home.step.layer)
        for home in homes_of_shifts(graph).values()
        if home.sign < 0
    }
    alone = means_behind(graph)
    depthwise = {
        id(step.after)
        for step in graph.steps
        if isinstance(step, Normalized)
        and id(step.after) in alone
        and type(step.after) in DEPTHWISE
        and step.after.activation is keras.activations.linear
    }
    return kernels | depthwise


def _fits(graph, kept_units, layers):
    """{id(layer): its `KernelFit`} of all kernels that can be fitted."""
    centered = _centered(graph)
    around, found = Surroundings(graph.model), {}
    for old, new in layers:
        key, calls = id(old), around.calls_of(old)
        products = product_of(old), product_of(new)
        if key not in kept_units or None in products:
            continue
        inside = products[0].given is not None
        links = set() if inside else set(map(around.link, calls))
        link = links.pop() if len(links) == 1 else "linear"
        found[key] = KernelFit(
            *products, kept_units[key], link, key in centered
        )
    return found
