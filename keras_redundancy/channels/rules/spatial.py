"""Pooling, padding, cropping and resizing of positions."""

from keras import layers

from keras_redundancy._keras import (
    image_operations,
    nn_operations as nn,
)
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.channels.rules.registry import (
    channel_axis,
    for_classes,
    rule,
)

CHANNELS_FIRST = Reason(
    "channels_first_order",
    "{name} ({kind}) orders channels_first channels in its own way: use "
    "channels_last, which can be followed",
)


@for_classes(
    image_operations.CropImages,
    image_operations.PadImages,
    image_operations.Resize,
    layers.AdaptiveAveragePooling1D,
    layers.AdaptiveAveragePooling2D,
    layers.AdaptiveAveragePooling3D,
    layers.AdaptiveMaxPooling1D,
    layers.AdaptiveMaxPooling2D,
    layers.AdaptiveMaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.CenterCrop,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.Resizing,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
    nn.AdaptiveAveragePool,
    nn.AdaptiveMaxPool,
    nn.AveragePool,
    nn.MaxPool,
)
def _spatial(operation, call):
    """Works on the spatial axes alone, those that its data_format leaves."""
    axis = channel_axis(operation, call)
    ids = call.labels_on(axis)
    if getattr(operation, "fill_value", 0):
        # A border of a fixed value does not scale with the channels.
        ids = call.tied(ids)
    return Channels(ids, axis)


@for_classes(
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
)
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
