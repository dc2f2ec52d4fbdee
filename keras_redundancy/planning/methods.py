"""Selection methods: which units of a model stay.

A method is an object, made with the options that it takes; strings such as
`select="greedy"` are short names. Write one of your own by giving `scores` to a
subclass of `Method`, or pass a function in its place:

    def spread(units):
        return units.filters.std(axis=0)

    kr.prune(model, spread, ratio=0.3)
"""

from __future__ import annotations  # help() shows the names of types.

import dataclasses

import numpy as np

from keras_redundancy._shared.arguments import Level, check_option
from keras_redundancy._shared.warn import warn
from keras_redundancy.numbers.clustering import LINKAGES
from keras_redundancy.numbers.ranking import (
    Ranking,
    Readout,
    rank_by_outputs,
    rank_by_pivots,
    root_of,
)
from keras_redundancy.numbers.vector_ranking import rank_vectors
from keras_redundancy.planning import selection
from keras_redundancy.planning.method import NO_GRADIENTS, Method

ERRORS = ("outputs", "loss")
# How many distances between units are held at a time.
DISTANCES = 2**24


class _Comparing(Method):
    """A method that looks at nothing but what units are compared by."""

    @property
    def uses_data(self) -> bool:
        return self.criterion == "activations"


@dataclasses.dataclass(frozen=True, repr=False)
class Clusters(_Comparing):
    """Keep one unit of each cluster of similar units.

    The similarity of units i and j is the cosine of their filters,

        cos(i, j) = w_i . w_j / (|w_i| |w_j|),

    and two clusters are merged as long as they are more similar than tau.

    Args:
        tau: the similarity above which units count as redundant, in (0, 1]: a
            number, a mapping or a function, as `plan` takes it. None if
            `ratio` or `target` of `plan` says how many units to remove: the
            package then finds the tau at which that many are redundant.
        linkage: what counts as the similarity of two clusters: the "average"
            of all pairs of their units, or that of the least similar
            ("complete") or the most similar pair ("single").
        keep: which unit of a cluster stays: "medoid", the one most similar to
            the others; "largest", the one with the largest norm; "random"; or
            "mean", the mean of all in place of any of them.
        criterion: what is compared, see `Method`. With "folded", biases and
            all else that belongs to the units of a cluster are compared too.
        seed: the seed of keep="random".

    Source: Ayinde, Inanc and Zurada, Redundant Feature Pruning for
    Accelerated Inference in Deep Neural Networks (2018), method A (average
    linkage, a random unit); RoyChowdhury, Sharma and Learned-Miller,
    Reducing Duplicate Filters in Deep Neural Networks (2017), for connected
    components.
    """

    name = "clusters"
    levels = ("tau", "ratio", "target")
    is_clustering = True
    tau: Level | None = None
    linkage: str = "average"
    keep: str = "medoid"
    criterion: str = "filters"
    seed: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_option("linkage", self.linkage, LINKAGES)
        check_option("keep", self.keep, selection.REPRESENTATIVES)

    def selector(self, units, number):
        seed = _seed(self.seed, number)
        return selection.ByClusters(units, self.linkage, self.keep, seed)


@dataclasses.dataclass(frozen=True, repr=False)
class Random(_Comparing):
    """Keep random units: as many as there are clusters at tau, or a share.

    Args:
        tau: as for `Clusters`: the number of random units is the number of
            clusters that `Clusters` would find at this tau.
        linkage: as for `Clusters`, "average" by default. Only with tau.
        criterion: what is compared to find clusters, see `Method`.
        seed: the seed of the random choice.

    Source: Ayinde, Inanc and Zurada, Redundant Feature Pruning for
    Accelerated Inference in Deep Neural Networks (2018), method B.
    """

    name = "random"
    levels = ("tau", "ratio", "target")
    is_clustering = True
    tau: Level | None = None
    linkage: str | None = None
    criterion: str = "filters"
    seed: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.linkage is not None:
            check_option("linkage", self.linkage, LINKAGES)

    def check(self, how):
        if self.linkage is not None and how != "tau":
            raise ValueError(
                f"linkage={self.linkage!r} would have no effect: Random makes "
                f"clusters to count them at a tau, but received {how}=. Leave "
                "linkage= out, or pass tau=."
            )

    def selector(self, units, number):
        linkage = self.linkage or "average"
        return selection.AtRandom(units, linkage, _seed(self.seed, number))


@dataclasses.dataclass(frozen=True, repr=False)
class L1(_Comparing):
    """Keep units with large weights: the score is the sum of |w| over a
    filter.

    Args:
        criterion: what is summed in place of the filter, see `Method`.

    Source: Li et al., Pruning Filters for Efficient ConvNets (2017),
    section 3.1.
    """

    name = "l1"
    criterion: str = "filters"

    def scores(self, units):
        return np.abs(units.filters).sum(axis=0)


@dataclasses.dataclass(frozen=True, repr=False)
class FPGM(_Comparing):
    """Keep units far from all others: the score is the sum of |w_i - w_j|.

    A unit near the geometric median of all units can be replaced by others.

    Args:
        criterion: what the distances are measured between, see `Method`.

    Source: He et al., Filter Pruning via Geometric Median for Deep
    Convolutional Neural Networks Acceleration (2019).
    """

    name = "fpgm"
    criterion: str = "filters"

    def scores(self, units):
        rows = units.filters.T
        squares = np.einsum("ij,ij->i", rows, rows)
        step = max(DISTANCES // len(rows), 1)
        sums = []
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            distances = squares + squares[some, None]
            distances -= 2 * rows[some] @ rows.T
            sums.append(np.sqrt(distances.clip(0)).sum(axis=1))
        return np.concatenate(sums)


@dataclasses.dataclass(frozen=True, repr=False)
class Greedy(Method):
    """Keep the units that best predict what all consumers compute.

    A consumer, a layer that reads the units x, computes W^T x. Let P x_kept be
    the least squares prediction of x from the kept units. Its error is E |W^T
    (x - P x_kept)|^2 as a share of E |W^T x|^2, averaged over all consumers.
    Starting with no unit, the method adds one unit at a time, always the one
    with which this error is smallest. It needs calibration data.

    With errors="loss", the error is E (x - P x_kept)^T F (x - P x_kept),
    added up over all consumers, with F the mean of g g^T, where g is the
    gradient by x of the log-probability of an answer drawn from what the
    model returns. For small errors, that is about twice the Kullback-Leibler
    divergence between the answers before and after. Since the errors of
    pruning are not small, F is then averaged with W W^T, scaled so that
    removing all units is the same error by both. This takes a backward pass
    over the data, but no labels.

    Args:
        errors: "outputs" or "loss": what counts as an error.
        correlation: the least correlation between what each consumer computes
            before and after, in (0, 1]: a number, a mapping or a function, as
            `plan` takes it. The share 1 - correlation^2 of the variance may
            be lost. None if `ratio` or `target` of `plan` says how many units
            to remove.

    Warns:
        UserWarning: with errors="loss", gradients do not reach everything that
            consumers read; errors="outputs" is used in its place.

    Source: Natarajan, Sparse Approximate Solutions to Linear Systems (1995);
    Chen, Cowan and Grant, Orthogonal Least Squares Learning Algorithm for
    Radial Basis Function Networks (1991), for the updates; Amari, Natural
    Gradient Works Efficiently in Learning (1998), for Fisher's information F.
    """

    name = "greedy"
    levels = ("correlation", "ratio", "target")
    needs_data = True
    correlation: Level | None = None
    errors: str = "outputs"

    def __post_init__(self):
        super().__post_init__()
        check_option("errors", self.errors, ERRORS)

    @property
    def uses_gradients(self) -> bool:
        return self.errors == "loss"

    def check(self, how):
        if self.uses_gradients and how == "correlation":
            raise ValueError(
                "errors='loss' does not go with correlation=, which limits "
                "the errors of what consumers compute. Pass ratio= or target= "
                "in place of correlation=, or leave errors= out."
            )

    def without_gradients(self, name):
        warn(
            f"{self!r} weighs errors by gradients of the answers of {name!r}, "
            f"but {NO_GRADIENTS} The errors of what the layers compute count, "
            "as with errors='outputs'.",
        )

    def selector(self, units, number):
        readers = units.readers
        if all(reader.sensitivity is not None for reader in readers):
            readouts = [
                Readout(reader.to_predict, root_of(_weighed(reader)))
                for reader in readers
            ]
            ranking = rank_by_outputs(readouts, as_shares=False)
            return selection.ByError(units, ranking)
        readouts = [
            Readout(reader.to_predict, reader.weights, reader.each)
            for reader in readers
        ]
        vectors = any(readout.each > 1 for readout in readouts)
        rank = rank_vectors if vectors else rank_by_outputs
        return selection.ByError(units, rank(readouts))


def _weighed(reader):
    """F of errors="loss" in `Greedy`, shape (n, n)."""
    fisher, weights = reader.sensitivity.fisher, reader.weights
    outputs = weights @ weights.T
    whole = np.vdot(reader.to_predict, outputs)
    if whole <= 0:
        return fisher
    scale = np.vdot(reader.to_predict, fisher) / whole
    return (fisher + scale * outputs) / 2


@dataclasses.dataclass(frozen=True, repr=False)
class Pivoted(Method):
    """Keep the units that span the others: QR with column pivoting.

    Starting with no unit, the method adds one unit at a time: the one whose
    activation the kept units predict worst. The error of a unit
    counts in proportion to the norm of the weights that read the unit. It
    needs calibration data.

    Args:
        correlation: as for `Greedy`.

    Source: Golub, Numerical Methods for Solving Linear Least Squares
    Problems (1965), for the pivots; Chan, Rank Revealing QR Factorizations
    (1987).
    """

    name = "pivoted"
    levels = ("correlation", "ratio", "target")
    needs_data = True
    correlation: Level | None = None

    def selector(self, units, number):
        n, readers = len(units), units.readers
        total, vectors = np.zeros((n, n)), []
        for reader in readers:
            known = reader.to_predict
            strength = np.square(reader.weights).sum(axis=1)
            scale = (np.diag(known) * strength).sum()
            if scale > 0:
                strength = np.sqrt(strength / scale)
                known = known * strength * strength[:, None]
                vectors.append(Readout(known, np.eye(len(known)), reader.each))
        if any(readout.each > 1 for readout in vectors):
            return selection.ByError(units, rank_vectors(vectors))
        for readout in vectors:
            total += readout.covariance
        ranking = rank_by_pivots(total, np.ones(n), len(readers))
        return selection.ByError(units, ranking)


@dataclasses.dataclass(frozen=True, repr=False)
class Taylor(Method):
    """Keep the units that the model's answers depend on most.

    Let s be the first-order change of the log-probability of an answer if the
    unit's activation became 0: the sum of g x over all positions of the
    activation, x being the activation and g the gradient there. The score of a
    unit is the mean of s^2 over the samples, added up over all consumers. The
    answer is drawn from the probabilities that the model returns, so labels
    are not needed. The method needs calibration data, and gradients that reach
    everything that consumers read.

    With `target`, units of all spaces are compared by their scores and by
    what they cost.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning
    (2019); Theis et al., Faster Gaze Prediction with Dense Networks and Fisher
    Pruning (2018), for the cost.
    """

    name = "taylor"
    needs_data = True
    uses_gradients = True

    def selector(self, units, number):
        scores = self.scores(units)
        order = np.argsort(-scores, kind="stable")
        left = scores.sum() - np.append(0, scores[order].cumsum())
        whole = scores.sum() or 1.0
        ranking = Ranking(order, (left / whole).clip(0), whole)
        return selection.ByError(units, ranking)

    def scores(self, units):
        return sum(reader.sensitivity.to_removal for reader in units.readers)


@dataclasses.dataclass(frozen=True, repr=False)
class BatchNormalizationScales(Method):
    """Keep the units that BatchNormalization layers scale up most.

    The score of a unit is the sum of |gamma| over all `BatchNormalization`
    layers that carry the unit. The paper trains with an L1 penalty on gamma;
    without that penalty, the scores say little.

    Source: Liu et al., Learning Efficient Convolutional Networks through
    Network Slimming (2017).
    """

    name = "batch_normalization_scales"
    uses_data = False

    def scores(self, units):
        if not len(units.scales):
            raise ValueError(
                "BatchNormalizationScales ranks units by the scales of "
                f"BatchNormalization layers, but the units of {units.name} "
                "pass through none that has scales. Leave them alone by "
                "skip=, or use another method, such as kr.L1()."
            )
        return np.abs(units.scales).sum(axis=0)


METHODS = (
    Clusters,
    Random,
    L1,
    FPGM,
    Greedy,
    Pivoted,
    Taylor,
    BatchNormalizationScales,
)
BY_NAME = {method.name: method for method in METHODS}


def _seed(seed, number):
    return None if seed is None else [seed, number]
