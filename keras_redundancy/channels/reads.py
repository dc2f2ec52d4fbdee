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
        if x.place is None or not np.isin(ids, x.ids).all():
            continue
        order = np.argsort(x.ids, kind="stable")
        columns = order[np.searchsorted(x.ids, ids, sorter=order)]
        return Read(x.place, columns)
    return None


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
