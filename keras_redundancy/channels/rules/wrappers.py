"""Wrappers: they do with channels what the layer inside does."""

import functools
from collections.abc import Callable

import numpy as np
from keras import layers, ops

from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.rules import recurrent
from keras_redundancy.channels.rules.registry import rule

OVER_TIME = of_call("over_time", "works along the axis that holds the channels")
NOT_ONE_TENSOR = of_call(
    "wrapped_outputs",
    "wraps a layer that does not return one tensor with a channel axis",
)
UNEQUAL = of_call("unequal_directions", "wraps two layers of unequal width")
OTHER_AXIS = of_call(
    "concatenated_on_other_axis",
    "concatenates along another axis than the channels",
)
BIDIRECTIONAL = {
    "forward_layer": ("layer", "config"),
    "backward_layer": ("backward_layer", "config"),
}


@rule.register(layers.TimeDistributed)
def _time_distributed(layer, call):
    """The inner layer does not see axis 1, that of time."""
    x = call.inputs[call.index_of(call.argument("inputs"))]
    if x.axis == 1:
        return call.opaque(OVER_TIME)
    shape = (x.shape[0], *x.shape[2:])
    step = Channels(x.ids, x.axis - 1, shape, x.place)
    out = call.through(layer.layer, step, times=x.shape[1], given=_steps)
    if isinstance(out, list) or len(out.shape) < 2:
        return call.opaque(NOT_ONE_TENSOR)
    return Channels(out.ids, out.axis + 1)


def _steps(layer, args, kwargs):
    """The steps of all samples, as samples of the layer inside."""
    x = recurrent.arguments(layer, args, kwargs, "inputs")
    return (ops.reshape(x, (-1, *ops.shape(x)[2:])),), {}


@rule.register(layers.Bidirectional)
def _bidirectional(layer, call):
    """Keras takes twice the forward layer's width for the width of both.

    So unit i of one direction goes with unit i of the other.
    """
    x = call.inputs[call.index_of(call.argument("sequences"))]
    directions = [_direction(layer, call, x, name) for name in BIDIRECTIONAL]
    forward, backward = (out[0] for out in directions)
    size, axis = len(forward.ids), forward.axis - layer.return_sequences
    states = recurrent.initial_states(call, size, axis)
    joined = layer.merge_mode == "concat"
    if len(backward.ids) != size:
        return call.opaque(UNEQUAL)
    if joined and forward.axis != len(forward.shape) - 1:
        return call.opaque(OTHER_AXIS)
    if states is None:
        return call.opaque(recurrent.UNKNOWN_STATE)
    call.tie(forward.ids, backward.ids, *states)
    kept = [state for out in directions for state in out[1:]]
    if layer.merge_mode is None:
        return [forward, backward, *kept]
    ids = call.tied(forward.ids, backward.ids)
    if joined:
        ids = np.concatenate([forward.ids, backward.ids])
    return [Channels(ids, forward.axis), *kept]


def _direction(layer, call, x, name):
    """List of `Channels`: what one of the two layers returns."""
    sets = {
        setting: (*BIDIRECTIONAL[name], setting)
        for setting in ("units", "filters")
    }
    out = call.through(getattr(layer, name), x, sets=sets, given=given_to(name))
    return out if isinstance(out, list) else [out]


def given_to(name: str) -> Callable:
    """How a `Bidirectional` layer calls one of the two layers inside.

    Args:
        name: "forward_layer" or "backward_layer".

    Returns:
        A function of the `Bidirectional` layer and of the (args, kwargs) of a
        call of it that returns those of the call inside.
    """
    return functools.partial(_given_to, name)


def _given_to(name, layer, args, kwargs):
    """Both directions get the same sequences, and a half of the states."""
    x, states, mask = (
        recurrent.arguments(layer, args, kwargs, each)
        for each in ("sequences", "initial_state", "mask")
    )
    own = {} if mask is None else {"mask": mask}
    if states is not None:
        half = len(states) // 2
        is_forward = name == "forward_layer"
        own["initial_state"] = states[:half] if is_forward else states[half:]
    return (x,), own


@rule.register(layers.SpectralNormalization)
def _spectral_normalization(layer, call):
    """`vector_u` has an entry for each place of the kernel's last axis."""
    before = len(call.recorder.accesses)
    out = call.through(layer.layer, *call.inputs)
    last = len(layer.kernel.shape) - 1
    for access in call.recorder.accesses[before:]:
        if access.variable is layer.kernel and access.axis == last:
            call.carried_by(layer.vector_u, 1, access.ids)
    call.keeps(*layer.weights)
    return out
