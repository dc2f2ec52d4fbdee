"""Measure and remove the redundancy of Keras 3 models.

import keras_redundancy as kr

kr.analyze(model, tau=0.5).render()      # what is redundant
print(kr.plan(model, tau=0.9))           # what would go
small = kr.prune(model, tau=0.9)         # a smaller, stock Keras model
small.save("small.keras")
"""

from keras_redundancy import callbacks as callbacks, plots as plots
from keras_redundancy._version import __version__ as __version__
from keras_redundancy.calibration import pink_noise as pink_noise
from keras_redundancy.channels import (
    CallTrace as CallTrace,
    Channels as Channels,
    hidden_widths as hidden_widths,
    register_rule as register_rule,
    trace as trace,
)
from keras_redundancy.clustering import cluster_filters as cluster_filters
from keras_redundancy.constraints import FrobeniusNorm as FrobeniusNorm
from keras_redundancy.difference import difference as difference
from keras_redundancy.evaluation import (
    compare as compare,
    search as search,
    sensitivity as sensitivity,
)
from keras_redundancy.flops import flops as flops
from keras_redundancy.layers import (
    FactorizedConv2D as FactorizedConv2D,
    FactorizedDense as FactorizedDense,
    FrobeniusNormalization as FrobeniusNormalization,
    NoiseOutputs as NoiseOutputs,
)
from keras_redundancy.pruning import (
    apply_rare as apply_rare,
    calibrate as calibrate,
    compact as compact,
    factorize as factorize,
    merge_correlated as merge_correlated,
    plan as plan,
    prune as prune,
    strip as strip,
    to_dense as to_dense,
)
from keras_redundancy.regularizers import RaReRegularizer as RaReRegularizer
from keras_redundancy.report import (
    analyze as analyze,
    redundancy as redundancy,
)
from keras_redundancy.subspaces import svcca as svcca
from keras_redundancy.training import fit_and_prune as fit_and_prune
