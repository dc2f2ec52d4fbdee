"""Regularizers for kernels."""

from keras_redundancy.low_rank.rare import RaReRegularizer as RaReRegularizer
