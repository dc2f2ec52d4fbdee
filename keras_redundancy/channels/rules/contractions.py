"""Products of two tensors: matmul, einsum, attention written by hand."""

import string

import keras
from keras import layers

from keras_redundancy._keras_internals import (
    numpy_operations as ops,
)
from keras_redundancy.channels.calls import frozen_channels
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.rules.registry import rule

CONTRACTS = "{name} ({kind}) multiplies channels of two tensors and sums them"
CONSTANT = "{name} ({kind}) has a constant array operand of a fixed width"
OTHER_SIZE = "{name} ({kind}) needs this axis to keep its size"


@rule.register(ops.Matmul)
def _matmul(operation, call):
    if len(call.inputs) != 2:
        return call.opaque(CONSTANT)
    a, b = (len(x.shape) for x in call.inputs)
    if min(a, b) < 2:
        return call.opaque(CONTRACTS)
    outer = string.ascii_uppercase[: max(a, b) - 2]
    first = outer[len(outer) - (a - 2) :] + "xy"
    second = outer[len(outer) - (b - 2) :] + "yz"
    return _product(call, [first, second], outer + "xz")


@rule.register(ops.Einsum)
def _einsum(operation, call):
    subscripts = operation.subscripts.replace(" ", "")
    operands, _ = call.arguments
    tensors = all(isinstance(x, keras.KerasTensor) for x in operands)
    if "->" not in subscripts or not tensors:
        return call.opaque(CONSTANT if not tensors else CONTRACTS)
    left, out = subscripts.split("->")
    given = left.split(",")
    widest = max(
        len(x.shape) - len(letters.replace("...", ""))
        for x, letters in zip(call.inputs, given, strict=True)
    )
    others = string.digits[:widest]
    given = [
        letters.replace("...", _last(others, len(x.shape), letters))
        for x, letters in zip(call.inputs, given, strict=True)
    ]
    return _product(call, given, out.replace("...", others))


def _last(letters, rank, named):
    count = rank - len(named.replace("...", ""))
    return letters[len(letters) - count :]


@rule.register(layers.Dot)
def _dot(layer, call):
    return call.opaque(CONTRACTS)


def _product(call, given, out):
    """Labels of an einsum over tensors, one channel axis of which goes on.

    The result is linear in every tensor, so channels that are not summed
    over keep their labels.
    """
    carried = {}
    for x, letters in zip(call.inputs, given, strict=True):
        letter = letters[x.axis]
        if letter in out and letters.count(letter) == 1:
            carried.setdefault(letter, []).append(x)
        else:
            call.freeze(CONTRACTS, x.ids)
    chosen = max(carried, key=out.index, default=None)
    for letter, tensors in carried.items():
        alone = sum(letter in letters for letters in given) == len(tensors)
        if letter != chosen or not alone:
            call.freeze(OTHER_SIZE, *(x.ids for x in tensors))
    if chosen is None:
        reason = call.say(CONTRACTS)
        return frozen_channels(call.outputs[0], reason, call.recorder.store)
    tensors = carried[chosen]
    ids = tensors[0].ids
    if len(tensors) > 1:
        ids = call.tied(*(x.ids for x in tensors))
    return Channels(ids, out.index(chosen))
