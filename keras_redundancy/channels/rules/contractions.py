"""Products of two tensors: matmul, einsum, attention written by hand."""

import itertools
import string

import keras
import numpy as np
from keras import layers

from keras_redundancy import _keras
from keras_redundancy._keras import numpy_operations as ops, variables_in
from keras_redundancy.channels.labels import Channels, Width
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.rules.registry import (
    for_classes,
    positions,
    rule,
    variables_stay,
    with_batch_axis,
)

CONTRACTS = of_call(
    "products_summed", "multiplies channels of two tensors and sums them"
)
POSITIONS = of_call(
    "summed_with_positions",
    "multiplies and sums channels with the positions of another tensor",
)
CONSTANT = of_call(
    "constant_width",
    "multiplies channels with a constant array of a fixed width: use a Dense "
    "layer with this kernel, which can be followed",
)
OTHER_SIZE = of_call("fixed_size", "needs this axis in the size that it has")
IMPLICIT = of_call(
    "implicit_subscripts",
    'does not name the axes that come out: write subscripts with "->"',
)

TIED = of_call(
    "tied_kernel",
    "multiplies the channels with the kernel of {owner}, which reads other "
    "channels with the same kernel",
)


PRODUCTS = (ops.Dot, ops.Einsum, ops.Matmul, ops.Tensordot)


@for_classes(ops.Dot, ops.Matmul, ops.Tensordot)
@with_batch_axis
def _of_two(operation, call):
    """A product of two tensors, or of a tensor and an array on a side."""
    args, kwargs = call.arguments
    operands = _keras.both_operands(args, kwargs)
    ranks = list(map(np.ndim, operands))
    is_first, has_array = call.index_of(operands[0]) == 0, len(call.inputs) == 1
    is_matmul = isinstance(operation, ops.Matmul)
    pairs = None if is_matmul else _summed_axes(operation, *ranks)
    if has_array and is_first and pairs in (None, [(ranks[0] - 1, 0)]):
        return _times_matrix(call)
    if min(ranks) < 2:
        return call.opaque(CONTRACTS)
    if is_matmul:
        letters = letters_of("...xy,...yz->...xz", ranks)
    else:
        letters = _letters_of_sums(*ranks, pairs)
    if has_array:
        return _times_constants(call, operands, *letters)
    return _product(call, *letters)


def _times_matrix(call):
    """A constant matrix on the right is read like the kernel of a layer."""
    x, (args, kwargs) = call.inputs[0], call.arguments
    path = ("kwargs", "x2") if "x2" in kwargs else ("args", len(args) - 1)
    matrix = kwargs.get("x2", args[-1])
    if isinstance(matrix, keras.Variable):
        return _times_kernel(call, matrix)
    if variables := variables_in(call.arguments):
        return variables_stay(call, variables)
    if isinstance(matrix, keras.KerasTensor) or np.ndim(matrix) != 2:
        return call.opaque(CONSTANT)
    ids = call.labels_on(-1)
    call.read_by(call.constant(matrix, *path), 0, ids)
    size = call.outputs[0].shape[-1]
    return Channels(call.new_frozen(size, CONSTANT), len(x.shape) - 1)


def _times_kernel(call, kernel):
    """Multiply by the kernel of a Dense layer: it writes the same units here.

    The channels that it reads stay. Removing one adds to the bias of the Dense
    layer, and this product has no bias to add the same to.
    """
    layer = call.recorder.owners.get(id(kernel))
    if type(layer) is not layers.Dense or layer.kernel is not kernel:
        return variables_stay(call, [kernel])
    shape = call.outputs[0].shape
    ids = call.labels_on(-1)
    call.freeze(TIED, ids, owner=layer.name)
    call.read_by(kernel, 0, ids)
    call.multiplies(kernel, positions(shape[1:-1]))
    return Channels(call.written_by(kernel, 1), len(shape) - 1)


def _times_constants(call, operands, given, out):
    """An einsum of one tensor and arrays, which have no axis of channels."""
    if variables := variables_in(call.arguments):
        return variables_stay(call, variables)
    [x] = call.inputs
    number = [isinstance(y, keras.KerasTensor) for y in operands].index(True)
    letter, own = given[number][x.axis], given[number]
    others = "".join(given[:number] + given[number + 1 :])
    if letter in others or letter not in out or own.count(letter) > 1:
        return call.opaque(CONSTANT)
    return Channels(x.ids, out.index(letter))


@rule.register(ops.Einsum)
@with_batch_axis
def _einsum(operation, call):
    operands, _ = call.arguments
    if "->" not in operation.subscripts:
        return call.opaque(IMPLICIT)
    ranks = list(map(np.ndim, operands))
    letters = letters_of(operation.subscripts, ranks)
    tensors = [x for x in operands if isinstance(x, keras.KerasTensor)]
    if len(tensors) == 1 < len(operands):
        return _times_constants(call, operands, *letters)
    if len(tensors) < len(operands):
        return call.opaque(CONSTANT)
    return _product(call, *letters)


def letters_of(subscripts: str, ranks: list[int]) -> tuple[list[str], str]:
    """A letter for each axis of the operands of an einsum, and of the result.

    Args:
        subscripts: such as "...ab,bc->...ac"; digits stand for the axes that
            "..." is about.
        ranks: the number of axes of each operand.
    """
    left, out = subscripts.replace(" ", "").split("->")
    given = left.split(",")
    missing = [
        rank - len(letters.replace("...", ""))
        for letters, rank in zip(given, ranks, strict=True)
    ]
    others = string.digits[: max(missing)]
    given = [
        letters.replace("...", others[len(others) - count :])
        for letters, count in zip(given, missing, strict=True)
    ]
    return given, out.replace("...", others)


def _summed_axes(operation, first, second):
    """Pairs of axes of two operands, of so many axes, that are summed over."""
    if isinstance(operation, ops.Dot):
        pairs = [(first - 1, max(second - 2, 0))]
    elif isinstance(operation.axes, int):
        count = operation.axes
        pairs = [(first - count + n, n) for n in range(count)]
    else:
        pairs = zip(*operation.axes, strict=True)
    return [(a % first, b % second) for a, b in pairs]


def _letters_of_sums(first, second, pairs):
    """As `letters_of`, for pairs of axes that are summed over."""
    left = list(string.ascii_lowercase[:first])
    right = list(string.ascii_uppercase[:second])
    for a, b in pairs:
        right[b] = left[a]
    out = [x for x in left + right if (x in left) != (x in right)]
    return ["".join(left), "".join(right)], "".join(out)


@rule.register(layers.Dot)
def _dot(layer, call):
    return call.opaque(CONTRACTS)


def _product(call, given, out):
    """Labels of an einsum over tensors: one channel axis is passed on.

    The result is linear in every tensor, so channels that are not summed
    over keep their labels.
    """
    units = _times_weight(call, given, out) if len(given) == 2 else None
    if units is not None:
        return units
    carried = {}
    channels = [y[x.axis] for x, y in zip(call.inputs, given, strict=True)]
    for letter in dict.fromkeys(channels):
        ids, others, once = _labels_of(letter, call, given)
        if others or not once:
            call.freeze(POSITIONS, *ids)
            for x in others:
                call.rivals(ids[0], x.ids)
        elif letter in out:
            carried[letter] = ids
        else:
            call.tie(*ids)
            call.inexact(CONTRACTS, *ids)
    if not carried:
        return call.frozen(call.outputs[0], CONTRACTS)
    chosen = call.choose(sorted(carried, key=out.index, reverse=True))
    for letter, ids in carried.items():
        if letter != chosen:
            call.freeze(OTHER_SIZE, *ids)
            call.rivals(ids[0], carried[chosen][0])
    ids = carried[chosen]
    ids = call.multiplied(*ids) if len(ids) > 1 else ids[0]
    return Channels(ids, out.index(chosen))


def _times_weight(call, given, out):
    """Units of a weight that the code of a layer reads as its kernel.

    The last axis of the weight is that of the units. None where the weight
    does not sum over the channels of the other tensor.
    """
    makers = [x.place and _keras.origin(x.place.tensor) for x in call.inputs]
    known = [id(maker) in call.recorder.kernels for maker in makers]
    if sum(known) != 1:
        return None
    number = known.index(True)
    x, letters = call.inputs[1 - number], given[1 - number]
    read, own = letters[x.axis], given[number]
    is_read = read in own[:-1] and read not in out
    if not is_read or own[-1] in letters or own[-1] not in out:
        return None
    weight = makers[number]
    shapes = [*call.input_sizes[1 - number], *call.output_sizes[0]]
    sizes = dict(zip(letters + out, shapes, strict=True))
    # A weight of size 1 along an axis is used again all along it.
    held = dict(zip(own, call.input_sizes[number], strict=True))
    others = [n for letter, n in sizes.items() if held.get(letter) != n]
    (kernel,) = weight.weights[:1]
    call.multiplies_in_all(kernel, positions(others))
    if not isinstance(weight, _keras.Weight):
        return None  # A layer that returns its kernel: it stays.
    read_as_kernel(call, weight, own.index(read), x.ids)
    return Channels(call.inputs[number].ids, out.index(own[-1]))


def read_as_kernel(call, weight, axis, ids) -> None:
    """Note that an axis of a `Weight` reads channels, as a kernel does."""
    call.read_by(weight.weight, axis, ids)
    call.recorder.read_as_kernels[id(weight)] += 1
    call.recorder.widths.append(Width(weight, ("shape", axis), ids))


def _labels_of(letter, call, given):
    """Labels on the axis `letter`, and tensors with positions there instead.

    Tensors of size 1 are broadcast along it. The third value is whether no
    tensor has two such axes.
    """
    holders = [
        (x, letters)
        for x, letters in zip(call.inputs, given, strict=True)
        if letter in letters
    ]
    sizes = [x.shape[letters.index(letter)] for x, letters in holders]
    if None not in sizes:
        full = [size == max(sizes) for size in sizes]
        holders = list(itertools.compress(holders, full))
    ids = [x.ids for x, letters in holders if letters[x.axis] == letter]
    others = [x for x, letters in holders if letters[x.axis] != letter]
    once = all(letters.count(letter) == 1 for _, letters in holders)
    once &= len(set(map(len, ids))) == 1
    return ids, others, once
