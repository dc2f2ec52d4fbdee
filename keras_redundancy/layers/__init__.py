"""Layers to train with."""

from keras_redundancy.layers.factorized import (
    FactorizedDense as FactorizedDense,
)
from keras_redundancy.layers.frobenius import (
    FrobeniusNormalization as FrobeniusNormalization,
)
