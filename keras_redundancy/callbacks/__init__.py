"""Callbacks for `fit`."""

from keras_redundancy.callbacks.low_rank import DynamicLowRank as DynamicLowRank
