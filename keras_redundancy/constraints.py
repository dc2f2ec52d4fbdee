"""Constraints for kernels."""

from keras_redundancy.low_rank.frobenius import FrobeniusNorm as FrobeniusNorm
