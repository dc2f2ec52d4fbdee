"""Choose how much to prune: sensitivity, search, compare."""

from keras_redundancy.evaluation.comparison import (
    Comparison as Comparison,
    compare as compare,
)
from keras_redundancy.evaluation.searching import (
    SearchResult as SearchResult,
    search as search,
)
from keras_redundancy.evaluation.sensitivity import (
    Sensitivity as Sensitivity,
    sensitivity as sensitivity,
)
