"""Layers that multiply by a kernel: dense, convolutions, embeddings."""

import keras
from keras import layers, ops

from keras_redundancy import _keras
from keras_redundancy._keras import nn_operations as nn
from keras_redundancy._shared import convolutions
from keras_redundancy.channels.activations import Kind
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import Reason, of_call
from keras_redundancy.channels.rules.contractions import (
    PRODUCTS,
    letters_of,
    read_as_kernel,
)
from keras_redundancy.channels.rules.pointwise import activated, behaviour
from keras_redundancy.channels.rules.registry import (
    channel_axis,
    for_classes,
    positions,
    rule,
    with_batch_axis,
)

SUMMED = of_call("channels_summed", "sums over the channels")
NO_UNITS = of_call("no_units", "writes no channels")
REVERSED = of_call(
    "tied_embeddings",
    "multiplies the channels with the embeddings, in reverse",
)
NUMBERS = of_call(
    "embedded", "takes them as numbers of the vectors that it returns"
)
CONSTANT = Reason(
    "constant_inside", "it is an array in the code of a layer or a model"
)
COMPUTED = of_call(
    "computed_kernel",
    "sums over the channels with a kernel that is no weight itself",
)
# What may read a weight of the code of a layer as its kernel.
READ_KERNELS = (*PRODUCTS, nn.Conv)
VOCABULARY = of_call("vocabulary", "returns a number for each token")


@rule.register(layers.Dense)
@with_batch_axis
def _dense(layer, call):
    """Where the last axis is one of positions, the channels may go on."""
    x, (*sizes, _) = call.inputs[0], call.output_sizes[0]
    if x.axis < len(sizes) and call.choose([False, True]):
        return _over_positions(layer, call, x, sizes)
    call.read_by(layer.kernel, 0, call.labels_on(-1))
    call.multiplies_in_all(layer.kernel, positions(sizes))
    return _written(layer, call, layer.kernel, 1, "units", len(sizes))


def _over_positions(layer, call, x, sizes):
    """The same kernel for each channel, as the mixers of MLPs have it."""
    call.reads_whole(*layer.weights)
    others = [size for axis, size in enumerate(sizes) if axis != x.axis]
    per = None if x.batch else x.ids
    call.multiplies_in_all(layer.kernel, positions(others), per)
    ids = x.ids if layer.bias is None else call.tied(x.ids)
    return Channels(activated(call, ids, layer.activation, x.axis), x.axis)


def _written(layer, call, kernel, axis, setting, out_axis, taps="all"):
    """The units of a kernel with their bias and activation function."""
    units = call.written_by(kernel, axis)
    call.counted_in(setting, ids=units)
    call.shifted_by(
        layer.bias,
        kernel,
        axis,
        units,
        linear=_is_linear(layer, call, out_axis),
        setting=("use_bias", True),
        taps=taps,
    )
    units = activated(call, units, layer.activation, out_axis)
    return Channels(units, out_axis)


def _is_linear(layer, call, axis):
    """Whether the layer has no activation function, or the identity."""
    return behaviour(call, layer.activation, axis).kind is Kind.LINEAR


@rule.register(layers.Embedding)
def _embedding(layer, call):
    if call.inputs:
        call.freeze(NUMBERS, call.inputs[0].ids)
    units = call.written_by(layer.embeddings, 1)
    call.shifted_by(None, layer.embeddings, 1, units)
    call.counted_in("output_dim", ids=units)
    return Channels(units, len(call.outputs[0].shape) - 1)


@rule.register(layers.ReversibleEmbedding)
def _reversible_embedding(layer, call):
    """In reverse, embeddings are a kernel: no channel can stand for another.

    The channels that a tied kernel reads are those that it writes where it
    embeds: to change how it reads a channel would change what it embeds.
    """
    own = None if layer.tie_weights else layer.reverse_embeddings
    if not call.argument("reverse"):
        out = _embedding(layer, call)
        call.carried_by(own, 0, out.ids)
        return out
    x = call.inputs[0]
    kernel, axis = (layer.embeddings, 1) if own is None else (own, 0)
    call.inexact(REVERSED, x.ids)
    call.carried_by(kernel, axis, x.ids)
    call.keeps(*layer.weights)
    call.multiplies(kernel, positions(x.shape[1:-1]))
    return call.frozen(call.outputs[0], VOCABULARY)


@rule.register(_keras.Weight)
def _weight(layer, call):
    """A weight that the code of a layer reads: channels are on its last axis.

    Where it is no kernel, it is not known whether it is a bias or a scale.
    """
    axis = len(layer.weight.shape) - 1
    if axis < 0:  # A number has no channels.
        call.keeps(layer.weight)
        return Channels(call.new(0), 0)
    if axis and id(layer) in call.recorder.kernels:
        ids = call.written_by(layer.weight, axis)
    else:
        ids = call.new(layer.weight.shape[axis])
        call.carried_by(layer.weight, axis, ids)
    call.counted_in("shape", axis, ids=ids)
    return Channels(ids, axis)


@rule.register(_keras.Constant)
def _constant(layer, call):
    return call.frozen(call.outputs[0], CONSTANT)


@rule.register(_keras.EachSample)
def _each_sample(layer, call):
    return Channels(call.inputs[0].ids, call.inputs[0].axis)


# --- convolutions -----------------------------------------------------------


def taps_of(layer):
    """The outputs of a convolution that read the whole of a filter."""
    whole = layer.padding == "valid" or set(layer.kernel_size) == {1}
    return "all" if whole else "inside"


def _multiplies(call, tensor, axis, *kernels):
    """Kernels are multiplied at each position of a tensor."""
    sizes = [n for i, n in enumerate(tensor.shape) if i not in (0, axis)]
    for kernel in kernels:
        call.multiplies(kernel, positions(sizes))


@for_classes(*convolutions.CONVOLUTIONS)
@with_batch_axis
def _convolution(layer, call):
    axis = channel_axis(layer, call)
    _multiplies(call, call.outputs[0], axis, layer.kernel)
    ids = call.labels_on(axis)
    if layer.groups == 1:
        call.read_by(layer.kernel, -2, ids)
    elif layer.groups == len(ids):
        return _one_group_per_channel(layer, call, ids, axis)
    else:
        # All groups are read by one axis, so all keep the same channels.
        for part in ids.reshape(layer.groups, -1):
            call.read_by(layer.kernel, -2, call.copied(part))
    out = _written(
        layer, call, layer.kernel, -1, "filters", axis, taps_of(layer)
    )
    if layer.groups > 1:
        call.tie(*out.ids.reshape(layer.groups, -1))
    return out


@rule.register(nn.Conv)
@with_batch_axis
def _convolved_by_code(operation, call):
    """The code of a layer convolves with a weight of its own."""
    makers = [x.place and _keras.origin(x.place.tensor) for x in call.inputs]
    first = operation.data_format or keras.config.image_data_format()
    axis = 1 if first == "channels_first" else len(call.inputs[0].shape) - 1
    is_known = [id(maker) in call.recorder.kernels for maker in makers]
    if is_known != [False, True]:
        return call.opaque(COMPUTED)
    weight, ids = makers[1], call.labels_on(axis)
    (kernel,) = weight.weights[:1]
    _multiplies(call, call.outputs[0], axis, kernel)
    if not isinstance(weight, _keras.Weight):
        return call.opaque(SUMMED)  # A layer that returns its kernel: it stays.
    read_as_kernel(call, weight, len(kernel.shape) - 2, ids)
    return Channels(call.inputs[1].ids, axis)


def _one_group_per_channel(layer, call, ids, axis):
    """A depthwise convolution, written as a grouped one."""
    multiplier = layer.filters // len(ids)
    filters = call.filtered_by(layer.kernel, -1, ids, multiplier)
    call.counted_in("groups", ids=ids)
    call.counted_in("filters", ids=filters)
    call.carried_by(layer.bias, 0, filters, acts="adds")
    return Channels(activated(call, filters, layer.activation, axis), axis)


@for_classes(*convolutions.TRANSPOSED)
@with_batch_axis
def _transposed_convolution(layer, call):
    """The kernel has the shape (..., filters, channels).

    With strides, each output reads some places of the kernel. Without, those
    near the border do.
    """
    axis = channel_axis(layer, call)
    _multiplies(call, call.inputs[0], axis, layer.kernel)
    call.read_by(layer.kernel, -1, call.labels_on(axis))
    if set(layer.kernel_size) == set(layer.strides) == {1}:
        taps = "all"
    else:
        taps = "inside" if set(layer.strides) == {1} else "some"
    return _written(layer, call, layer.kernel, -2, "filters", axis, taps)


@for_classes(*convolutions.DEPTHWISE)
@with_batch_axis
def _depthwise_convolution(layer, call):
    """The kernel has the shape (..., channels, multiplier)."""
    axis = channel_axis(layer, call)
    _multiplies(call, call.outputs[0], axis, layer.kernel)
    ids = call.filtered_by(
        layer.kernel, -2, call.labels_on(axis), layer.depth_multiplier
    )
    call.carried_by(layer.bias, 0, ids, acts="adds")
    return Channels(activated(call, ids, layer.activation, axis), axis)


@for_classes(*convolutions.SEPARABLE)
@with_batch_axis
def _separable_convolution(layer, call):
    axis = channel_axis(layer, call)
    kernels = layer.depthwise_kernel, layer.pointwise_kernel
    _multiplies(call, call.outputs[0], axis, *kernels)
    ids = call.filtered_by(
        layer.depthwise_kernel,
        -2,
        call.labels_on(axis),
        layer.depth_multiplier,
    )
    call.read_by(layer.pointwise_kernel, -2, ids, _after_depthwise)
    return _written(layer, call, layer.pointwise_kernel, -1, "filters", axis)


def _after_depthwise(layer, args, kwargs):
    """What the pointwise kernel of a separable convolution reads."""
    (x,) = keras.tree.flatten([args, kwargs])
    y = convolutions.depthwise_part(layer, ops.cast(x, layer.compute_dtype))
    first = layer.data_format == "channels_first"
    return ops.moveaxis(y, 1, -1) if first else y


# --- einsum -----------------------------------------------------------------


@rule.register(layers.EinsumDense)
@with_batch_axis
def _einsum_dense(layer, call):
    """Follows one channel axis: that of the input, or a new one.

    In "abc,cd->abd" the kernel reads c and writes d. In "abc,bd->adc" it
    mixes positions, and c stays what it was. Of several new ones, such as
    heads and their channels, it is the last, unless more can go by another.
    """
    x = call.inputs[0]
    ranks = [len(x.shape), len(layer.kernel.shape)]
    (given, kernel), out = letters_of(layer.equation, ranks)
    read = given[x.axis]
    _count_products(layer, call, given + out, kernel, read)
    if read not in kernel and read not in out:
        return call.opaque(SUMMED)
    written = "".join(i for i in out if i in kernel and i not in given)
    if read not in out and not written:
        return call.opaque(NO_UNITS)
    letter = read if read in out else call.choose(written[::-1])
    if read not in kernel:
        ids = x.ids
        call.reads_whole(layer.kernel)
    elif read in out:
        ids = call.filtered_by(layer.kernel, kernel.index(read), x.ids)
    else:
        call.read_by(layer.kernel, kernel.index(read), x.ids)
        ids = call.written_by(layer.kernel, kernel.index(letter))
    _count_channels(layer, call, letter, ids)
    axis = out.index(letter)
    bias_axes = layer.bias_axes if layer.bias is not None else written
    is_whole = out.endswith(bias_axes) and set(bias_axes) <= set(kernel)
    if read not in out and letter in bias_axes and is_whole:
        # A constant input adds the same to all outputs that share the letters
        # of the bias, if the kernel writes no other letters.
        call.shifted_by(
            layer.bias,
            layer.kernel,
            kernel.index(letter),
            ids,
            linear=_is_linear(layer, call, axis),
            setting=("bias_axes", bias_axes),
            taps="all" if set(bias_axes) == set(written) else "some",
            spans=[kernel.index(i) for i in bias_axes],
        )
    elif layer.bias is not None and letter in layer.bias_axes:
        call.carried_by(layer.bias, axis - len(out), ids, acts="adds")
    elif layer.bias is not None:  # The same is added to all channels.
        call.reads_whole(layer.bias)
        ids = call.tied(ids)
    return Channels(activated(call, ids, layer.activation, axis), axis)


def _count_products(layer, call, letters, kernel, read):
    """Every axis that the kernel does not have repeats its product.

    A layer that returns its kernel, as it reads ones, multiplies nothing else.
    """
    if _keras.returns_weight(layer):
        return
    x, shapes = call.inputs[0], [*call.input_sizes[0], *call.output_sizes[0]]
    sizes = dict(zip(letters, shapes, strict=True))
    per = None if read in kernel or x.batch else x.ids
    known = {*kernel} if per is None else {read, *kernel}
    others = [size for letter, size in sizes.items() if letter not in known]
    call.multiplies_in_all(layer.kernel, positions(others), per)


def _count_channels(layer, call, letter, ids):
    """`output_shape` has an entry for all but the batch and the ellipsis.

    One that is None follows the input.
    """
    out = layer.equation.replace(" ", "").split("->")[1]
    named = out.replace("...", "") if "..." in out else out[1:]
    number = named.find(letter)
    if number >= 0 and layer.partial_output_shape[number] is not None:
        call.counted_in("output_shape", number, ids=ids)
