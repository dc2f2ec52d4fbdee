"""Layers to train with."""

from keras_redundancy.low_rank.factorized import (
    FactorizedConv2D as FactorizedConv2D,
    FactorizedDense as FactorizedDense,
)
from keras_redundancy.low_rank.frobenius import (
    FrobeniusNormalization as FrobeniusNormalization,
)
from keras_redundancy.noise_out.outputs import NoiseOutputs as NoiseOutputs
