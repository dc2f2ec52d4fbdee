"""What the rules say while a model is traced."""

import dataclasses
from collections.abc import Callable

from keras_redundancy.channels import labels
from keras_redundancy.channels.activations import Behaviours
from keras_redundancy.channels.labels import Channels


@dataclasses.dataclass
class Recorder:
    """All that the rules say while a model is traced.

    `follow` gives the labels of what a `CallTrace` returns, `behaviours` know
    what activation functions do. `opaque` holds
    operations and reasons by id(operation), `constants` the arrays in
    arguments and configs by id(owner) and path, `kept` the ids of variables
    without channels.

    `owners` are the layers of the graph by the id of a variable, `lent` layers
    and reasons by id(layer) of those whose variables are read by others too,
    `tied` the ids of these variables.
    """

    store: labels.LabelStore
    follow: Callable
    behaviours: Behaviours = dataclasses.field(default_factory=Behaviours)
    accesses: list = dataclasses.field(default_factory=list)
    widths: list = dataclasses.field(default_factory=list)
    steps: list = dataclasses.field(default_factory=list)
    products: list = dataclasses.field(default_factory=list)
    opaque: dict = dataclasses.field(default_factory=dict)
    constants: dict = dataclasses.field(default_factory=dict)
    kept: set = dataclasses.field(default_factory=set)
    owners: dict = dataclasses.field(default_factory=dict)
    lent: dict = dataclasses.field(default_factory=dict)
    tied: set = dataclasses.field(default_factory=set)


def frozen_channels(tensor, reason, store) -> Channels:
    """New, frozen labels for the last axis of `tensor`."""
    axis = max(len(tensor.shape) - 1, 0)
    ids = store.new((tensor.shape[axis] if tensor.shape else 0) or 0)
    store.freeze(ids, reason)
    return Channels(ids, axis)
