"""Compare, select, map, absorb: plans and the models built from them."""

from keras_redundancy.pruning.decisions import (
    Decision as Decision,
    Plan as Plan,
)
from keras_redundancy.pruning.planning import plan as plan, prune as prune
from keras_redundancy.pruning.stripping import (
    factorize as factorize,
    strip as strip,
)
