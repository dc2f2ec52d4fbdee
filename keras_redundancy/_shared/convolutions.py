"""The convolution layers of Keras, by how their kernels are laid out."""

from keras import layers

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
