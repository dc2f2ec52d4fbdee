"""The convolution layers of Keras, by how their kernels are laid out."""

from keras import layers, ops

# kernel (..., inputs, units)
CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)

# kernel (..., units, inputs)
TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)

# kernel (..., channels, multiplier)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)

# A depthwise kernel, and a pointwise kernel (..., inputs, units) behind it.
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


def depthwise_part(layer, x):
    """What the depthwise kernel of a separable convolution makes of `x`."""
    return ops.depthwise_conv(
        x,
        ops.cast(layer.depthwise_kernel, x.dtype),
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )
