"""Pooling, padding, cropping and resizing of positions."""

import math

from keras import layers

from keras_redundancy._keras import image_operations, nn_operations as nn
from keras_redundancy._shared.named import named
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import of_call
from keras_redundancy.channels.rules.registry import (
    channel_axis,
    for_classes,
    rule,
)

CHANNELS_FIRST = of_call(
    "channels_first_order",
    "orders channels_first channels in its own way: use channels_last, which "
    "can be followed",
)
NO_BATCH = of_call("no_batch_axis", "reads an image without a batch axis")


def _of_all_ranks(names: str) -> list:
    """The layers of these names for one, two and three axes of positions."""
    ranks = ("1D", "2D", "3D")
    return [getattr(layers, x + rank) for x in names.split() for rank in ranks]


@for_classes(
    layers.CenterCrop,
    layers.Resizing,
    *_of_all_ranks("AdaptiveAveragePooling AdaptiveMaxPooling AveragePooling"),
    *_of_all_ranks("Cropping MaxPooling SpatialDropout UpSampling ZeroPadding"),
    *named(image_operations, "CropImages PadImages Resize"),
    *named(nn, "AdaptiveAveragePool AdaptiveMaxPool AveragePool MaxPool"),
)
def _spatial(operation, call):
    """Works on the spatial axes alone, those that its data_format leaves."""
    axis = channel_axis(operation, call)
    ids = call.labels_on(axis)
    if getattr(operation, "fill_value", 0):
        # A border of a fixed value does not scale with the channels.
        ids = call.tied(ids)
    return Channels(ids, axis)


@rule.register(image_operations.ExtractPatches)
def _extract_patches(operation, call):
    """All channels of the first place of a patch, of the second, and so on."""
    if len(call.inputs[0].shape) < len(operation.size) + 2:
        return call.opaque(NO_BATCH)
    axis = channel_axis(operation, call)
    places = math.prod(operation.size)
    return Channels(call.copied(call.labels_on(axis), places), axis)


@for_classes(*_of_all_ranks("GlobalAveragePooling GlobalMaxPooling"))
def _global_pooling(layer, call):
    axis = channel_axis(layer, call)
    return Channels(call.labels_on(axis), axis if layer.keepdims else 1)


@rule.register(nn.DepthToSpace)
def _depth_to_space(operation, call):
    """A channel comes from one channel for each place of a block."""
    if operation.data_format == "channels_first":
        return call.opaque(CHANNELS_FIRST)
    rows = call.labels_on(3).reshape(operation.block_size**2, -1)
    return Channels(call.summed(*rows), 3)


@rule.register(nn.SpaceToDepth)
def _space_to_depth(operation, call):
    if operation.data_format == "channels_first":
        return call.opaque(CHANNELS_FIRST)
    places = operation.block_size**2
    return Channels(call.copied(call.labels_on(3), places), 3)
