"""Compare, select, map, absorb: plans and the models built from them."""

from keras_redundancy.pruning.calibrating import calibrate as calibrate
from keras_redundancy.pruning.correlated import (
    merge_correlated as merge_correlated,
)
from keras_redundancy.pruning.decisions import (
    Decision as Decision,
    Plan as Plan,
)
from keras_redundancy.pruning.low_rank import (
    apply_rare as apply_rare,
    compact as compact,
    factorize as factorize,
    to_dense as to_dense,
)
from keras_redundancy.pruning.planning import plan as plan, prune as prune
from keras_redundancy.pruning.stripping import strip as strip
