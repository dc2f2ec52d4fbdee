"""Classes of operations and layers that Keras does not export."""

from keras.src.applications.convnext import LayerScale as LayerScale
from keras.src.applications.inception_resnet_v2 import (
    CustomScaleLayer as CustomScaleLayer,
)
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as ConvLSTMCell
from keras.src.ops import core, image, math, nn, numpy

core_operations = core
image_operations = image
math_operations = math
nn_operations = nn
numpy_operations = numpy
