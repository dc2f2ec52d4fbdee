"""Compare, select, map, absorb: plans and the models built from them."""

from keras_redundancy.pruning.planning import Decision as Decision
from keras_redundancy.pruning.planning import Plan as Plan
from keras_redundancy.pruning.planning import plan as plan
from keras_redundancy.pruning.planning import prune as prune
