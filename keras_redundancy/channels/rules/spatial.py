"""Pooling, padding, cropping and resizing of positions."""

from keras import layers

from keras_redundancy._keras_internals import (
    image_operations,
    nn_operations as nn,
)
from keras_redundancy.channels.labels import Channels
from keras_redundancy.channels.rules.registry import channel_axis, for_classes


@for_classes(
    image_operations.Resize,
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
    nn.AveragePool,
    nn.MaxPool,
)
def _spatial(operation, call):
    """Works on the spatial axes alone, those that its data_format leaves."""
    axis = channel_axis(operation, call)
    return Channels(call.labels_on(axis), axis)


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
