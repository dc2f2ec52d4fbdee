"""Compare, select, map, absorb: plans and the models built from them."""

from keras_redundancy.pruning.plan import Decision as Decision
from keras_redundancy.pruning.plan import Plan as Plan
from keras_redundancy.pruning.plan import plan as plan
from keras_redundancy.pruning.plan import prune as prune
