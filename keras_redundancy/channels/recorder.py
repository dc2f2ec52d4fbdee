"""What the rules say while a model is traced."""

import collections
import dataclasses

import numpy as np

from keras_redundancy.channels import labels
from keras_redundancy.channels.activations import Behaviours
from keras_redundancy.channels.labels import Channels


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A call could take one of several axes for that of the channels.

    Attributes:
        operation: what is called.
        count: the number of axes that it could take.
        ids: labels of what comes out.
    """

    operation: object
    count: int
    ids: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Rivals:
    """Two tensors have channels on axes that one result cannot both keep.

    Attributes:
        operation: what is called on them.
        stay: labels of the channels that have to stay for this.
        followed: labels of those that are followed in their place.
    """

    operation: object
    stay: np.ndarray
    followed: np.ndarray


@dataclasses.dataclass(frozen=True)
class Traced:
    """A tensor of a traced model: its channels, and a `KerasTensor` like it.

    Attributes:
        channels: its `Channels`.
        tensor: a `KerasTensor` of its shape; the size of the batch is open.
        sample: a `KerasTensor` of its shape where the model is called on one
            sample. None if that is the shape of `tensor` with the size of the
            batch on an open axis 0.
    """

    channels: Channels
    tensor: object
    sample: object = None


@dataclasses.dataclass
class Recorder:
    """All that the rules say while a model is traced.

    Attributes:
        store: the labels, with their ties and reasons.
        behaviours: what activation functions do.
        accesses, widths, steps, products: the records of those names in
            `labels`, in the order of the calls.
        opaque: {id(operation): (operation, reason)} of what was not followed.
        constants: {(id(owner), path): `Constant`} of arrays in arguments and
            configs.
        kept: ids of variables without channels.
        whole: ids of variables that some call does not read by channels.
        owners: {id(variable): layer} of the layers of the graph.
        lent: {id(layer): (layer, reason)} of layers whose variables are read
            by others too.
        tied: ids of these variables.
        chosen: {id(operation): number of the axis to take}, see `Choice`; the
            first for all others.
        choices, rivals: the records of those names.
        kernels: ids of the `Weight`s that are multiplied like kernels.
        read_as_kernels: how often each of these was, by its id.
        batch: the size of the batch that products are counted on: 1, or the
            one that the model's inputs fix.
    """

    store: labels.LabelStore
    behaviours: Behaviours = dataclasses.field(default_factory=Behaviours)
    accesses: list = dataclasses.field(default_factory=list)
    widths: list = dataclasses.field(default_factory=list)
    steps: list = dataclasses.field(default_factory=list)
    products: list = dataclasses.field(default_factory=list)
    opaque: dict = dataclasses.field(default_factory=dict)
    constants: dict = dataclasses.field(default_factory=dict)
    kept: set = dataclasses.field(default_factory=set)
    whole: set = dataclasses.field(default_factory=set)
    owners: dict = dataclasses.field(default_factory=dict)
    lent: dict = dataclasses.field(default_factory=dict)
    tied: set = dataclasses.field(default_factory=set)
    chosen: dict = dataclasses.field(default_factory=dict)
    choices: list = dataclasses.field(default_factory=list)
    rivals: list = dataclasses.field(default_factory=list)
    kernels: set = dataclasses.field(default_factory=set)
    read_as_kernels: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    batch: int = 1


def frozen_channels(tensor, reason, store) -> Channels:
    """New, frozen labels for the last axis of `tensor`."""
    axis = max(len(tensor.shape) - 1, 0)
    ids = store.new((tensor.shape[axis] if tensor.shape else 0) or 0)
    store.freeze(ids, reason)
    return Channels(ids, axis)
