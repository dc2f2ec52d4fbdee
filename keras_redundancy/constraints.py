"""Constraints for kernels."""

from keras_redundancy.low_rank.norms import FrobeniusNorm as FrobeniusNorm
