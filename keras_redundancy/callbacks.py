"""Callbacks for `fit`."""

from keras_redundancy.low_rank.dynamic import DynamicLowRank as DynamicLowRank
from keras_redundancy.reports.monitor import (
    RedundancyMonitor as RedundancyMonitor,
)
