"""Layers to train with."""

from keras_redundancy.layers.frobenius import (
    FrobeniusNormalization as FrobeniusNormalization,
)
