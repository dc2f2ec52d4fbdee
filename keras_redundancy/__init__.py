"""Measure and remove the redundancy of Keras 3 models.

    import keras_redundancy as kr

    kr.analyze(model, tau=0.5).render()  # what is redundant
    print(kr.plan(model, tau=0.9))  # what would go
    small = kr.prune(model, tau=0.9)  # a smaller, stock Keras model
    small.save("small.keras")

The smaller model shares nothing with the original: either can be trained while
the other is used. Weights that are tied stay tied, and models of your own
classes keep what they are made with; a warning names what cannot be kept.

What else to know about the smaller model:

- A filter of zeros has no direction. Its unit is constant, and goes at any tau
  and first for a ratio or target, where the biases of the layers that read it
  can take the constant. Before a border padded with zeros it goes only where
  another unit is equal in everything else too, or where its constant is zero.
- Two units with filters w and s w, s > 0, are merged with the scale s. That is
  exact through ReLU, LeakyReLU, PReLU, pooling, linear layers, sums and
  factors, and through BatchNormalization up to its shift. Behind other
  activations they are merged without the scale.
- Where the outputs of a unit read different parts of its filter, as in
  transposed convolutions with strides, no bias is right for all outputs:
  constants are predicted from the kept units like everything else.
- Attention is observed from outside: its heads are merged by their filters, and
  data decide nothing about them. What other layers read inside, such as the
  second kernel of a `SeparableConv2D` or the recurrent kernel of an `LSTM`, is
  observed.
- With `optimizer=True`, the optimizer's slots that have the shape of the
  weights are carried over. What Adafactor keeps by rows and columns starts
  afresh, with a warning.
- Refused, with the reason, are: quantized and LoRA-enabled layers; variables
  that the graph or a `Lambda` reads and that are no weights of a layer, since
  the smaller model would share them with the original; and models in which a
  wrapper and the graph share a layer, which a rebuilt model would not.
"""

from keras_redundancy import callbacks as callbacks, deploy as deploy
from keras_redundancy._version import __version__ as __version__
from keras_redundancy.building.stock import (
    LayerForm as LayerForm,
    register_stock_form as register_stock_form,
)
from keras_redundancy.building.stripping import strip as strip
from keras_redundancy.calibration import (
    pink_noise as pink_noise,
    synthetic_images as synthetic_images,
)
from keras_redundancy.channels import (
    CallTrace as CallTrace,
    Channels as Channels,
    functional as functional,
    hidden_widths as hidden_widths,
    register_rule as register_rule,
    trace as trace,
)
from keras_redundancy.constraints import FrobeniusNorm as FrobeniusNorm
from keras_redundancy.evaluation import (
    compare as compare,
    search as search,
    sensitivity as sensitivity,
)
from keras_redundancy.layers import (
    FactorizedConv2D as FactorizedConv2D,
    FactorizedDense as FactorizedDense,
    FrobeniusNormalization as FrobeniusNormalization,
    NoiseOutputs as NoiseOutputs,
)
from keras_redundancy.low_rank.models import (
    apply_rare as apply_rare,
    compact as compact,
    factorize as factorize,
    to_dense as to_dense,
)
from keras_redundancy.mend.distilling import distill as distill
from keras_redundancy.noise_out.correlated import (
    merge_correlated as merge_correlated,
)
from keras_redundancy.numbers.clustering import (
    cluster_filters as cluster_filters,
)
from keras_redundancy.numbers.subspaces import svcca as svcca
from keras_redundancy.planning.absorbing import (
    Affine as Affine,
    Distill as Distill,
    Drop as Drop,
    LeastSquares as LeastSquares,
    Mend as Mend,
    Merge as Merge,
)
from keras_redundancy.planning.calibrating import calibrate as calibrate
from keras_redundancy.planning.method import Method as Method
from keras_redundancy.planning.methods import (
    FPGM as FPGM,
    L1 as L1,
    BatchNormalizationScales as BatchNormalizationScales,
    Clusters as Clusters,
    Greedy as Greedy,
    Pivoted as Pivoted,
    Random as Random,
    Taylor as Taylor,
)
from keras_redundancy.planning.plans import plan as plan, prune as prune
from keras_redundancy.regularizers import RaReRegularizer as RaReRegularizer
from keras_redundancy.reports import plots as plots
from keras_redundancy.reports.analysis import (
    analyze as analyze,
    redundancy as redundancy,
)
from keras_redundancy.reports.difference import difference as difference
from keras_redundancy.reports.flops import flops as flops
from keras_redundancy.training import fit_and_prune as fit_and_prune
