"""Where in a run of the model the channels are that a kernel reads."""

import functools

import numpy as np

from keras_redundancy.channels.labels import InnerPlace, Read


def read_of_inputs(call, ids) -> Read | None:
    """Where the channels `ids` go into a call; None if they do not.

    Args:
        call: a `CallTrace`.
        ids: labels of shape (channels,).
    """
    for x in call.inputs:
        if x.place is not None and np.isin(ids, x.ids).all():
            return Read(x.place, _columns(x.ids, ids))
    return None


def _columns(given, ids):
    """Where `ids` are among those given: the second of a label at its second.

    Values of one label can differ, as those of x and relu(x) do.
    """
    if np.array_equal(given, ids):
        return np.arange(len(ids))
    order = np.argsort(given, kind="stable")
    first = np.searchsorted(given, ids, sorter=order)
    last = np.searchsorted(given, ids, sorter=order, side="right") - 1
    return order[np.minimum(first + _occurrences(ids), last)]


def _occurrences(ids):
    """How often each label is among those before it."""
    order = np.argsort(ids, kind="stable")
    ranks = np.arange(len(ids))
    numbers = np.empty_like(ranks)
    numbers[order] = ranks - np.searchsorted(ids, ids[order], sorter=order)
    return numbers


def read_inside(call, kernel, ids, compute, numbers=None) -> Read | None:
    """Where the channels `ids` are that a call computes for its `kernel`.

    The inputs of a layer inside another one are computed from layer to layer,
    beginning with the layer that the model's graph calls.

    Args:
        call: a `CallTrace`.
        kernel: the variable that reads the channels.
        ids: labels of shape (channels,).
        compute: a function of the operation and of a call's (args, kwargs)
            that returns the tensor, channels last.
        numbers: how many numbers each channel has, where it is a vector.

    Returns:
        A `Read`, or None where the inputs of the call are not known.
    """
    function = functools.partial(compute, call.operation)
    while call.inside is not None:
        given = call.inside.given
        if given is None or call.node is not None:
            return None
        call = call.inside.call
        given = functools.partial(given, call.operation)
        function = functools.partial(_composed, function, given)
    place = InnerPlace(call.path, call.node, kernel, function)
    columns = np.arange(len(ids) * (numbers or 1))
    return Read(place, columns.reshape(-1, numbers) if numbers else columns)


def _composed(function, given, args, kwargs):
    return function(*given(args, kwargs))
