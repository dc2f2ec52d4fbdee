"""What consumers read in place of the units that go, and what mends the rest.

A consumer computes W^T x of the units x. Those that go, x_r, are replaced by a
prediction from those that stay, x_r ~ A^T x_k + c, so that the consumer's
kernel becomes W_k + A W_r and its bias takes W_r^T c. What A and c are is said
by one of these objects; strings such as `absorb="merge"` are short names.
"""

import dataclasses

from keras_redundancy._shared.arguments import check_count, check_option
from keras_redundancy._shared.configured import Configured, name_of
from keras_redundancy.build.absorb import DropAbsorber, MergeAbsorber
from keras_redundancy.build.refit import RefitAbsorber
from keras_redundancy.calibration import Statistics
from keras_redundancy.mend.repair import MEMORY
from keras_redundancy.numbers.regression import least_squares, slopes
from keras_redundancy.planning.idle import Idle, idle_by_data, idle_by_weights


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

    the ridge being the one with the least error on samples held out.

    Source: Hoerl and Kennard, Ridge Regression: Biased Estimation for
    Nonorthogonal Problems (1970).
    """

    name = "least_squares"
    solve = staticmethod(least_squares)


ABSORBS = (Merge, Drop, Affine, LeastSquares)
BY_NAME = {absorb.name: absorb for absorb in ABSORBS}


@dataclasses.dataclass(frozen=True, repr=False)
class Mend(Configured):
    """What mends a smaller model with calibration data after it was built.

    Both models run side by side, layer by layer, on all samples at once. When
    a layer of the smaller model is reached, the statistics of a
    BatchNormalization are estimated anew, and a kernel is fitted to return
    what it did in the original model: by least squares, and where a ReLU or a
    classifier's probabilities follow, step by step with these in mind. No fit
    is kept that is worse on samples that were held out.

    Args:
        rounds: how often all kernels are fitted; 0 leaves that out.
        memory: bytes that the activations of both models may take at a time.
            Where all samples take more, fewer are used.

    Source: Jordan et al., REPAIR (2022), for the statistics; He, Zhang and
    Sun, Channel Pruning for Accelerating Very Deep Neural Networks (2017),
    for fitting kernels to what the original returned.
    """

    rounds: int = 1
    memory: int = MEMORY

    def __post_init__(self):
        check_count("rounds", self.rounds, least=0)
        check_count("memory", self.memory)


def absorb_of(value, fits: bool) -> tuple[Absorb, str]:
    """What is given as `absorb=` as an object, and as words for messages.

    Args:
        value: an `Absorb`, a short name, or None.
        fits: whether to fit to data by default.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if value is None:
        value = "least_squares" if fits else "merge"
    if isinstance(value, str):
        check_option("absorb", value, BY_NAME)
        return BY_NAME[value](), f"absorb={value!r}"
    if not isinstance(value, Absorb):
        listed = ", ".join(map(repr, BY_NAME))
        hint = ""
        if hasattr(value, "scores"):
            hint = " It chooses units: pass it as the first argument."
        raise TypeError(
            f"absorb says what consumers read in place of the units that go: "
            f"one of {listed} or an object such as kr.Merge(), but received "
            f"{name_of(value)}.{hint}"
        )
    return value, repr(value)


def mend_of(value, given: dict, has_data: bool) -> Mend | None:
    """How to mend, or None for not at all.

    Args:
        value: what is given as `mend=`.
        given: those of `repair=` and `rounds=` that are given.
        has_data: whether there is data to mend with.

    Raises:
        TypeError: it is something else, or said in both ways.
        ValueError: it would have no effect.
    """
    if "rounds" in given:
        check_count("rounds", given["rounds"], least=0)
    if value is not None and given:
        named = " and ".join(f"{name}=" for name in given)
        raise TypeError(
            f"mend={value!r} and {named} say the same thing. Write mend=False, "
            "or mend=kr.Mend(rounds=2)."
        )
    if not isinstance(value, bool | Mend | None):
        raise TypeError(
            "mend is True, False or an object such as kr.Mend(rounds=2), but "
            f"received {name_of(value)}."
        )
    if value is None:
        wanted = given.get("repair", has_data)
        said = f"repair={wanted!r}"
    else:
        wanted, said = value is not False, f"mend={value!r}"
    if wanted and not has_data:
        raise ValueError(
            f"{said} would have no effect: without data= there is nothing to "
            f"repair with. Leave {said.partition('=')[0]}= out."
        )
    if given.get("rounds") and not wanted:
        raise ValueError(
            f"rounds={given['rounds']!r} would have no effect: kernels are "
            "fitted to data=, with repair=True. Leave rounds= out."
        )
    if not wanted:
        return None
    return value if isinstance(value, Mend) else Mend(given.get("rounds", 1))
