"""Callbacks for `fit`."""

from keras_redundancy.callbacks.low_rank import DynamicLowRank as DynamicLowRank
from keras_redundancy.callbacks.monitor import (
    RedundancyMonitor as RedundancyMonitor,
)
