"""Attention: whole heads are the units that can go."""

import numpy as np
from keras import backend, layers, ops

from keras_redundancy._keras import (
    attention_projections,
    attention_values,
    nn_operations as nn,
)
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import Reason, of_call
from keras_redundancy.channels.rules.registry import (
    for_classes,
    positions,
    rule,
)

SCORES = of_call(
    "attention_scores",
    "sums over its query and key channels: its scores are made from all of "
    "them",
)
NO_CHANNELS = Reason(
    "attention_scores_out",
    "the attention scores of {name} ({kind}) have no channels",
)
OTHER_AXES = of_call(
    "attention_axes",
    "attends over other axes than the one between batch and channels",
)
OTHER_OUTPUT = of_call(
    "attention_output_shape", "has an output_shape of several axes"
)
HEADS_MASKED = of_call(
    "attention_mask_of_heads", "has a mask or a bias for each of its heads"
)
INSIDE_HEADS = of_call(
    "attention_inside_heads",
    "attends by whole heads: of the channels inside of a head none can go",
)
NO_TENSOR = of_call(
    "no_tensor", "is called on something other than tensors of the model"
)
SHARED = of_call(
    "shared_key_heads",
    "has fewer heads of keys than of queries, and on TensorFlow Keras cannot "
    "run it where one of them is left",
)
# Of `keras.ops.dot_product_attention`.
ARGUMENTS = ("query", "key", "value", "mask", "bias")


@for_classes(layers.Attention, layers.AdditiveAttention)
def _attention(layer, call):
    """Sums of values, weighted by what query and key say."""
    numbers = [call.index_of(x) for x in call.argument("inputs")]
    if None in numbers:
        return call.opaque(NO_TENSOR)
    query, value, *key = numbers
    for number in (query, *(key or [value])):
        call.freeze(SCORES, call.inputs[number].ids)
    call.keeps(*layer.weights)
    axis = len(call.outputs[0].shape) - 1
    out = Channels(call.labels_on(-1, value), axis)
    return [out, *(call.frozen(x, NO_CHANNELS) for x in call.outputs[1:])]


# --- heads ------------------------------------------------------------------


@rule.register(layers.MultiHeadAttention)
def _multi_head(layer, call):
    read, reason = _read(layer, call)
    if reason:
        return call.opaque(reason)
    written = _project(layer, call, read)
    heads = call.tied(*written.values())
    call.counted_in("num_heads", ids=heads)
    units = _output(layer, call, heads, read["query"])
    if layer.get_config()["output_shape"] is not None:
        call.counted_in("output_shape", ids=units)
    elif call.setting(("output_shape",)) is None:
        call.tie(units, read["query"].ids)
    else:
        # The width is that of the query, unless it is set.
        call.counted_in("output_shape", ids=units, whole=read["query"].ids)
    return _outputs(call, units, heads)


@rule.register(layers.GroupQueryAttention)
def _group_query(layer, call):
    """Groups of query heads share a key and a value head, and go with it.

    The output has the width of the query, and Keras wants values of the same.
    """
    read, reason = _read(layer, call)
    if reason:
        return call.opaque(reason)
    written = _project(layer, call, read)
    queries = written.pop("query")
    gates = written.pop("gate", queries)
    shared = _shared(call, queries, *written.values())
    heads = call.tied(queries, gates)
    call.counted_in("num_query_heads", ids=heads)
    call.counted_in("num_key_value_heads", ids=shared)
    units = _output(layer, call, heads, read["query"])
    call.tie(units, read["query"].ids, read["value"].ids)
    return _outputs(call, units, heads)


def _shared(call, queries, *shared):
    """Labels of heads that groups of query heads share, and go with.

    A single one stays, and any of the query heads can go.
    """
    count = len(shared[0])
    groups = queries.reshape(count, -1).T if count > 1 else ()
    return call.tied(*shared, *groups)


@rule.register(nn.DotProductAttention)
def _dot_product_attention(operation, call):
    """Heads on axis 2 of query, key and value; channels of a head on axis 3."""
    query, key, value, *others = map(call.argument, ARGUMENTS)
    numbers = [call.index_of(x) for x in (query, key, value)]
    if None in numbers:
        return call.opaque(NO_TENSOR)
    read = [call.inputs[number] for number in numbers]
    for x in others:
        _freeze_heads_of(x, call, read)
    query, *shared = read
    heads = shared[0].shape[2], query.shape[2]
    is_shared = None not in heads and 1 < heads[0] < heads[1]
    if is_shared and backend.backend() == "tensorflow":
        return call.opaque(SHARED)
    # A reshape into one head leaves the channels inside of it.
    single = [x for x in shared if x.axis != 2 and x.shape[2] == 1]
    inside = [x for x in read if x.axis != 2]
    if len(inside) > len(single):
        call.freeze(INSIDE_HEADS, *(x.ids for x in read))
        return call.frozen(call.outputs[0], INSIDE_HEADS)
    for x in single:
        call.freeze(INSIDE_HEADS, x.ids)
    if not single:
        _shared(call, query.ids, *(x.ids for x in shared))
    return Channels(call.tied(query.ids), 2)


def _freeze_heads_of(x, call, read):
    """A mask or a bias of shape (batch, heads or 1, queries, keys)."""
    number, shape = call.index_of(x), getattr(x, "shape", np.shape(x))
    if number is not None:
        call.freeze(HEADS_MASKED, call.inputs[number].ids)
    if len(shape) > 2 and shape[-3] != 1:
        call.freeze(HEADS_MASKED, *(y.ids for y in read))


def _read(layer, call):
    """{name: `Channels`} of query, value and key; and a reason or None.

    The reason says why a layer with heads cannot be followed.
    """
    given = {name: call.argument(name) for name in ("query", "value", "key")}
    if given["key"] is None:
        given["key"] = given["value"]
    numbers = {name: call.index_of(x) for name, x in given.items()}
    if None in numbers.values():
        return {}, NO_TENSOR
    read = {name: call.inputs[number] for name, number in numbers.items()}
    if any((len(x.shape), x.axis) != (3, 2) for x in read.values()):
        return read, OTHER_AXES
    if len(layer.get_config().get("output_shape") or ()) > 1:
        return read, OTHER_OUTPUT
    return read, None


def _project(layer, call, read):
    """New labels of the heads, {name: those that its kernel writes}.

    The kernels have the shape (channels, heads, size of a head).
    """
    written = {}
    for name, dense in attention_projections(layer).items():
        if name != "output":
            x = read["query" if name == "gate" else name]
            call.read_by(dense.kernel, 0, x.ids)
            call.multiplies(dense.kernel, positions(x.shape[1:-1]))
            written[name] = call.written_by(dense.kernel, 1)
            call.carried_by(dense.bias, 0, written[name])
    return written


def _output(layer, call, heads, query):
    """New labels of the output: axis 2 of (heads, size of a head, units)."""
    dense = attention_projections(layer)["output"]
    size = dense.kernel.shape[1]
    call.read_by(dense.kernel, 0, heads, values_of_heads, size)
    call.multiplies(dense.kernel, positions(query.shape[1:-1]))
    units = call.written_by(dense.kernel, 2)
    # A bias that is missing would have to be made for all projections.
    linear = len(call.outputs) == 1
    call.shifted_by(dense.bias, dense.kernel, 2, units, linear=linear)
    return units


def values_of_heads(layer, args, kwargs):
    """What the output kernel reads: (samples, queries, heads * their size)."""
    values = attention_values(layer, args, kwargs)
    size = values.shape[-2] * values.shape[-1]
    return ops.reshape(values, (*ops.shape(values)[:2], size))


def _outputs(call, units, heads):
    """The output, and the scores of shape (batch, heads, queries, keys)."""
    mask = call.argument("attention_mask")
    shape = getattr(mask, "shape", np.shape(mask))
    if len(shape) > 3 and shape[1] != 1:
        call.freeze(HEADS_MASKED, heads)
    scores = [Channels(call.tied(heads), 1) for _ in call.outputs[1:]]
    return [Channels(units, 2), *scores]
