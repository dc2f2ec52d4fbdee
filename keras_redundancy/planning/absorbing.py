"""What consumers read in place of the units that go, and what mends the rest.

A consumer computes W^T x of the units x. Those that go, x_r, are replaced by a
prediction from those that stay, x_r ~ A^T x_k + c, so that the consumer's
kernel becomes W_k + A W_r and its bias takes W_r^T c. What A and c are is said
by one of these objects; strings such as `absorb="merge"` are short names.
"""

import dataclasses

from keras_redundancy._shared.arguments import check_count
from keras_redundancy._shared.configured import Configured
from keras_redundancy.build.absorb import DropAbsorber, MergeAbsorber
from keras_redundancy.build.refit import RefitAbsorber
from keras_redundancy.calibration import Statistics
from keras_redundancy.numbers.regression import least_squares, slopes
from keras_redundancy.planning.idle import (
    Idle,
    idle_by_data,
    idle_by_weights,
)


@dataclasses.dataclass(frozen=True, repr=False)
class Absorb(Configured):
    """What consumers read in place of the units that go.

    Attributes:
        name: the short name, for `absorb=`.
        needs_data: whether it cannot do without calibration data.
    """

    name = None
    needs_data = False

    def idle_units(self, graph, spaces, statistics, whole: bool) -> Idle:
        """The units that are constant, where a bias makes up for them.

        Args:
            graph: the traced model.
            spaces: those that are cut.
            statistics: those of the calibration data, or None.
            whole: whether to count units that were constant over the data
                only where all of their space were. What is constant over some
                samples need not be so for others.
        """
        return idle_by_weights(graph, spaces)

    def absorber(self, statistics: Statistics | None, idle: Idle, folded: bool):
        """What makes the new kernels and biases of consumers.

        Args:
            statistics: those of the calibration data, or None.
            idle: the units that are constant.
            folded: whether units were compared with what a
                BatchNormalization behind makes of them.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, repr=False)
class Drop(Absorb):
    """Consumers lose the inputs that go: A = 0, c = 0.

    Source: Li et al., Pruning Filters for Efficient ConvNets (2017), and most
    others.
    """

    name = "drop"

    def idle_units(self, graph, spaces, statistics, whole):
        return Idle()

    def absorber(self, statistics, idle, folded):
        return DropAbsorber()


@dataclasses.dataclass(frozen=True, repr=False)
class Merge(Absorb):
    """Consumers read the representative of each unit that goes instead.

    A has one entry for each of them: the ratio of the two units' strengths
    where the path between allows it (ReLU, linear, pooling), else 1.

    Source: RoyChowdhury, Sharma and Learned-Miller, Reducing Duplicate
    Filters in Deep Neural Networks (2017); Kim et al., Neuron Merging:
    Compensating for Pruned Neurons (2020), for the ratio.
    """

    name = "merge"

    def absorber(self, statistics, idle, folded):
        return MergeAbsorber(idle.constants, folded)


@dataclasses.dataclass(frozen=True, repr=False)
class _Fitted(Absorb):
    """A and c are fitted to calibration data.

    What calibration data do not show, as inside of layers, is merged.
    """

    needs_data = True

    def idle_units(self, graph, spaces, statistics, whole):
        known = idle_by_weights(graph, spaces)
        return known | idle_by_data(graph, spaces, statistics, whole)

    def absorber(self, statistics, idle, folded):
        return RefitAbsorber(statistics, self.solve, idle.constants, folded)


@dataclasses.dataclass(frozen=True, repr=False)
class Affine(_Fitted):
    """Each unit that goes is predicted from the one most correlated: A has
    one entry for each, the slope of the regression line; c is its intercept.

    Source: Babaeizadeh, Smaragdis and Campbell, A Simple yet Effective Method
    to Prune Dense Layers of Neural Networks (NoiseOut, 2016): alpha and beta.
    """

    name = "affine"
    solve = staticmethod(slopes)


@dataclasses.dataclass(frozen=True, repr=False)
class LeastSquares(_Fitted):
    """Each unit that goes is predicted from all units that stay.

    With the covariance C of the activations and the A of `Affine` as A_0,

        A = A_0 + (C_kk + ridge)^-1 (C_kr - C_kk A_0),
        c = mean_r - A^T mean_k,

    the ridge by generalised cross-validation.

    Source: Hoerl and Kennard, Ridge Regression (1970); Golub, Heath and Wahba,
    Generalized Cross-Validation as a Method for Choosing a Good Ridge
    Parameter (1979).
    """

    name = "least_squares"
    solve = staticmethod(least_squares)


ABSORBS = (Merge, Drop, Affine, LeastSquares)
BY_NAME = {absorb.name: absorb for absorb in ABSORBS}


@dataclasses.dataclass(frozen=True, repr=False)
class Mend(Configured):
    """What mends a smaller model with calibration data after it was built.

    The statistics of every BatchNormalization are estimated anew, and one
    kernel after the other is fitted to return what it did in the original
    model: by least squares, and where a ReLU or a classifier's probabilities
    follow, step by step with these in mind.

    Args:
        rounds: how often all kernels are fitted; 0 leaves that out.

    Source: Jordan et al., REPAIR (2022), for the statistics; He, Zhang and
    Sun, Channel Pruning for Accelerating Very Deep Neural Networks (2017),
    for fitting kernels to what the original returned.
    """

    rounds: int = 1

    def __post_init__(self):
        check_count("rounds", self.rounds, least=0)
