"""Compare, select, map, absorb: plans and the models built from them."""

from keras_redundancy.pruning.planning import (
    Decision as Decision,
    Plan as Plan,
    plan as plan,
    prune as prune,
)
