"""Layers to train with."""

from keras_redundancy.layers.factorized import (
    FactorizedConv2D as FactorizedConv2D,
    FactorizedDense as FactorizedDense,
)
from keras_redundancy.layers.frobenius import (
    FrobeniusNormalization as FrobeniusNormalization,
)
from keras_redundancy.layers.noise import NoiseOutputs as NoiseOutputs
