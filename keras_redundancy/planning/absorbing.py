"""What consumers read in place of the units that go, and what mends the rest.

A consumer is a layer that reads the units x and computes W^T x. The removed
units x_r are predicted from the kept units x_k, x_r ~ A^T x_k + c, so that the
consumer's kernel becomes W_k + A W_r and its bias takes W_r^T c. Each class
here finds A and c in another way; strings such as `absorb="merge"` are short
names of the classes.
"""

import dataclasses

from keras_redundancy._shared.arguments import check_count, check_option
from keras_redundancy._shared.configured import Configured, name_of
from keras_redundancy.building.absorb import DropAbsorber, MergeAbsorber
from keras_redundancy.building.refit import RefitAbsorber
from keras_redundancy.calibration import Statistics
from keras_redundancy.mend.distillable import require_judged
from keras_redundancy.mend.distilling import Training
from keras_redundancy.mend.repair import MEMORY, Repair
from keras_redundancy.numbers.regression import least_squares, slopes
from keras_redundancy.planning.idle import Idle, idle_by_data, idle_by_weights


@dataclasses.dataclass(frozen=True, repr=False)
class Absorb(Configured):
    """What consumers read in place of removed units: the base class.

    Attributes:
        name: the short name, for `absorb=`.
        needs_data: whether calibration data are needed.
    """

    name = None
    needs_data = False

    def idle_units(self, graph, spaces, statistics, whole: bool) -> Idle:
        """The constant units that the biases of their consumers can replace.

        Args:
            graph: the traced model.
            spaces: the spaces whose units may go.
            statistics: the statistics of the calibration data, or None.
            whole: whether units that were constant over the data count only
                where all units of their space were: what is constant over
                some samples need not be constant over others.
        """
        return idle_by_weights(graph, spaces)

    def absorber(self, statistics: Statistics | None, idle: Idle, folded: bool):
        """The object that makes the new kernels and biases of consumers.

        Args:
            statistics: the statistics of the calibration data, or None.
            idle: the units that are constant.
            folded: whether units were compared with what a
                BatchNormalization behind makes of them.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, repr=False)
class Drop(Absorb):
    """Consumers just lose the weights that read the removed units.

    That is as if the removed units returned 0.

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
    """Consumers read one kept unit in place of each removed unit.

    That is the kept unit of the same cluster, or the most similar one. Where
    all layers between allow it (ReLU, linear layers, pooling), it is multiplied
    by the ratio of the strengths of the two units: the norms of their filters,
    times the factors of a BatchNormalization and the like.

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

    Units that calibration data do not show, such as those inside of layers,
    are treated as by `Merge`.
    """

    needs_data = True

    def idle_units(self, graph, spaces, statistics, whole):
        known = idle_by_weights(graph, spaces)
        seen = idle_by_data(graph, spaces, statistics, whole)
        return known.seen_by(seen)

    def absorber(self, statistics, idle, folded):
        return RefitAbsorber(statistics, self.solve, idle.constants, folded)


@dataclasses.dataclass(frozen=True, repr=False)
class Affine(_Fitted):
    """Consumers read a x + b in place of a removed unit; x is a kept unit.

    x is the kept unit whose activations correlate most with those of the
    removed unit over the calibration data; a and b are the slope and the
    intercept of the regression line.

    Source: Babaeizadeh, Smaragdis and Campbell, A Simple yet Effective Method
    to Prune Dense Layers of Neural Networks (NoiseOut, 2016): alpha and beta.
    """

    name = "affine"
    solve = staticmethod(slopes)


@dataclasses.dataclass(frozen=True, repr=False)
class LeastSquares(_Fitted):
    """Consumers read a prediction of each removed unit from all kept ones.

    The removed units x_r are predicted from the kept units x_k as
    A^T x_k + c, by ridge regression on the calibration data. With the
    covariance C and the means of the activations, and with the slopes of
    `Affine` as A_0,

        A = A_0 + (C_kk + ridge I)^-1 (C_kr - C_kk A_0),
        c = mean_r - A^T mean_k,

    where `ridge` is the number with the least error on samples held out.

    Source: Hoerl and Kennard, Ridge Regression: Biased Estimation for
    Nonorthogonal Problems (1970).
    """

    name = "least_squares"
    solve = staticmethod(least_squares)


ABSORBS = (Merge, Drop, Affine, LeastSquares)
BY_NAME = {absorb.name: absorb for absorb in ABSORBS}


@dataclasses.dataclass(frozen=True, repr=False)
class Mend(Configured):
    """How a smaller model is mended with calibration data.

    Both models run side by side, layer by layer, on all samples at once. The
    statistics of each BatchNormalization of the smaller model are estimated
    anew, and each kernel is fitted to return what the same kernel returns in
    the original model: by least squares, or, if a ReLU or a softmax follows,
    iteratively, so that the outputs of that activation match. Both kernels of
    a recurrent layer are fitted to the inputs of the original layer's gates. A
    fit that is worse on held-out samples (in a recurrent layer: over all
    steps) is discarded.

    Args:
        rounds: how often all kernels are fitted; 0 leaves the fitting out.
        memory: how many bytes the activations of both models, and what a
            kernel is fitted to, may take at a time. Where all samples would
            take more, fewer are used.

    Source: Jordan et al., REPAIR (2022), for the statistics; He, Zhang and
    Sun, Channel Pruning for Accelerating Very Deep Neural Networks (2017),
    for fitting kernels to what the original returned.
    """

    rounds: int = 1
    memory: int = MEMORY

    def __post_init__(self):
        check_count("rounds", self.rounds, least=0)
        check_count("memory", self.memory)

    def repair(self, data, batch_size: int) -> Repair:
        """What mends a model with these samples."""
        return Repair(data, batch_size, self.rounds, self.memory)


@dataclasses.dataclass(frozen=True, repr=False)
class Distill(Mend, Training):
    """A smaller model is mended and then distilled: see `distill`.

        half = kr.prune(
            model,
            target={"flops": 0.5},
            data=images,
            mend=kr.Distill(epochs=16, learning_rate=1e-3),
        )

    All samples are kept in memory, as arrays. For data without an end,
    `steps=` limits their number.

    Args:
        rounds, memory: as for `Mend`.
        epochs, learning_rate, batch_size, temperature, outputs, held_out,
            patience, augment, seed, batch_statistics, features: as for
            `distill`.
    """

    def __post_init__(self):
        Mend.__post_init__(self)
        Training.__post_init__(self)
        require_judged(self.patience, self.held_out, None)

    def repair(self, data, batch_size):
        mend = Mend.repair(self, data, batch_size)
        return dataclasses.replace(mend, training=self)


def absorb_of(value, fits: bool) -> tuple[Absorb, str]:
    """The object for what is given as `absorb=`, and words for messages.

    Args:
        value: an `Absorb`, a short name, or None.
        fits: whether the default is to fit to data.

    Raises:
        TypeError: `value` is something else.
        ValueError: there is no such short name.
    """
    if value is None:
        value = "least_squares" if fits else "merge"
    if isinstance(value, str):
        check_option("absorb", value, BY_NAME)
        return BY_NAME[value](), f"absorb={value!r}"
    if not isinstance(value, Absorb):
        listed = ", ".join(map(repr, BY_NAME))
        hint = ""
        if isinstance(value, type) and issubclass(value, Absorb):
            hint = f" That is a class: pass an object, {value.__name__}()."
        elif hasattr(value, "scores"):
            hint = f" {value!r} chooses units: pass it as the first argument."
        raise TypeError(
            "absorb= says what consumers (the layers that read the units) read "
            f"in place of removed units, but received {name_of(value)}. Pass "
            f"one of {listed}, or an object such as kr.Merge().{hint}"
        )
    return value, repr(value)


def mend_of(value, given: dict, has_data: bool) -> Mend | None:
    """How to mend the smaller model; None leaves it as it is.

    Args:
        value: what is given as `mend=`.
        given: {"repair": ..., "rounds": ...}, each only if it is given.
        has_data: whether there are data to mend with.

    Raises:
        TypeError: `value` is something else, or is given beside `given`.
        ValueError: what is asked for would have no effect.
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
            "mend is True, False or an object such as kr.Mend(rounds=2) or "
            f"kr.Distill(), but received {name_of(value)}. Leave it out to "
            "mend with data=."
        )
    if value is None:
        wanted = given.get("repair", has_data)
        said = f"repair={wanted!r}"
    else:
        wanted, said = value is not False, f"mend={value!r}"
    if wanted and not has_data:
        raise ValueError(
            f"{said} would have no effect: without data= there is nothing to "
            f"mend with. Pass data=, or leave {said.partition('=')[0]}= out."
        )
    if given.get("rounds") and not wanted:
        raise ValueError(
            f"rounds={given['rounds']!r} would have no effect: it says how "
            "often kernels are fitted to data=. Pass data= and no "
            "repair=False, or leave rounds= out."
        )
    if not wanted:
        return None
    return value if isinstance(value, Mend) else Mend(given.get("rounds", 1))
