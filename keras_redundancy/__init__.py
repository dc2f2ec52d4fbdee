"""Measure and remove the redundancy of Keras 3 models.

    import keras_redundancy as kr

    kr.analyze(model, tau=0.5).render()  # what is redundant
    print(kr.plan(model, tau=0.5))  # what would go
    small = kr.prune(model, tau=0.5)  # a smaller, stock Keras model
    small.save("small.keras")

What there is, with `help(kr.plan)` and so on for each:

- to measure: `analyze`, `redundancy`, `flops`, `difference`, `svcca`,
  `cluster_filters`, and pictures in `plots`;
- to remove units: `prune`, or `plan` first. Methods that choose units are
  `Clusters`, `Random`, `L1`, `FPGM`, `Greedy`, `Pivoted`, `Taylor`,
  `BatchNormalizationScales`, and subclasses of `Method`. What the next layers
  read in place of removed units: `Merge`, `Drop`, `Affine`, `LeastSquares`.
  How the smaller model is fitted afterwards: `Mend`, `Distill`;
- for `data=`: `calibrate`, and without data `synthetic_images`, `pink_noise`;
- to choose how much: `sensitivity`, `search`, `compare`;
- to train: `distill`, `fit_and_prune`; RaRe with `apply_rare`, `factorize`,
  `compact`, `to_dense`, `RaReRegularizer`, `FactorizedDense`,
  `FactorizedConv2D`, `FrobeniusNormalization`, `FrobeniusNorm`; NoiseOut with
  `NoiseOutputs`, `merge_correlated`; `callbacks` for `fit`; and `strip`, which
  takes out what is there for training only;
- for layers and models of your own: `functional`, `trace`, `hidden_widths`,
  `register_rule` with `CallTrace` and `Channels`, `register_stock_form` with
  `LayerForm`;
- to run it elsewhere: `deploy`.

The smaller model shares nothing with the original: either can be trained while
the other is used. Weights that are tied stay tied, and models of your own
classes keep what they are made with; a warning names what cannot be kept.

What else to know about the smaller model:

- A unit whose filter is all zeros returns a constant. It is removed at any
  tau, and before all other units for a ratio or a target, if the biases of the
  layers that read it can take over the constant. Biases of layers that pad
  with zeros cannot: there, the unit is removed only if its constant is 0, or
  if another unit with a filter of zeros equals it in everything else too.
- Of two units with the filters w and s w, s > 0, one is kept, and the layers
  behind read s times that unit in place of the other. That is exact through
  ReLU, LeakyReLU, PReLU, pooling, linear layers, sums and constant factors,
  and through BatchNormalization up to its shift. Behind other activations the
  factor s is left out.
- In a transposed convolution with strides, different outputs are computed with
  different parts of a filter, so that no bias can replace a constant input at
  all of them: constants are predicted from the kept units, like everything
  else.
- With data, the package also observes what kernels read inside a layer: the
  output projection of an attention layer with heads, the second kernel of a
  `SeparableConv2D`, and the recurrent kernel of an `LSTM`.
- With `optimizer=True`, the optimizer's slots that have the shape of the
  weights are carried over. Adafactor's statistics of rows and columns start
  anew, with a warning.
- Some models are refused, with the reason: those with quantized or
  LoRA-enabled layers; those in which the graph or a `Lambda` reads a variable
  that is no weight of a layer, because the smaller model would share it with
  the original; and those in which a layer is used both in a wrapper and in the
  graph, because the smaller model would have two layers there.
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

# Packages that hold the code, whose public names are all here.
_INNER = (
    *("building", "calibration", "evaluation", "low_rank", "mend"),
    *("noise_out", "numbers", "planning", "reports", "training"),
)


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    private = [x for x in globals() if x[0] == "_" and x[:2] != "__"]
    return sorted(globals().keys() - {*private, *_INNER})
