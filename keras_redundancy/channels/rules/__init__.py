"""One rule per layer family: what a layer does with its channels.

Importing a module of this package registers its rules.
"""

from keras_redundancy.channels.rules import (  # noqa: F401
    attention,
    combinations,
    composite,
    contractions,
    kernels,
    normalization,
    pointwise,
    recurrent,
    reductions,
    shapes,
    slices,
    spatial,
    wrappers,
)
from keras_redundancy.channels.rules.composite import (
    hidden_widths as hidden_widths,
)
from keras_redundancy.channels.rules.registry import (
    apply_rule as apply_rule,
    register_rule as register_rule,
)
