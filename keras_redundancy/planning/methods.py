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
from collections.abc import Callable, Mapping
from numbers import Real

import numpy as np

from keras_redundancy._shared.arguments import Level, check_option, check_seed
from keras_redundancy._shared.configured import Configured, name_of
from keras_redundancy._shared.tables import on_one_line
from keras_redundancy.numbers.clustering import LINKAGES
from keras_redundancy.numbers.ranking import (
    Ranking,
    Readout,
    rank_by_outputs,
    rank_by_pivots,
)
from keras_redundancy.numbers.vector_ranking import rank_vectors
from keras_redundancy.planning import selection
from keras_redundancy.planning.levels import CHECKS
from keras_redundancy.planning.space_units import SpaceUnits

CRITERIA = ("filters", "folded", "activations")


@dataclasses.dataclass(frozen=True, repr=False)
class Method(Configured):
    """How the units that stay are chosen: the base of all selection methods.

    A subclass defines `scores`; units with large scores stay:

        class Spread(kr.Method):
            def scores(self, units):
                return units.filters.std(axis=0)

        kr.prune(model, Spread(), ratio=0.3)

    Attributes:
        name: the short name, for `select=`, or None.
        levels: the arguments of `plan` that may say how much goes: some of
            "tau", "ratio", "target" and "correlation".
        needs_data: whether the method needs calibration data.
        uses_data: whether the method uses calibration data if there are any:
            the model is then run over them, and `units.readers` is filled.
        is_clustering: whether the method puts similar units together. All
            that belongs to two such units, such as their biases, then has to
            be similar too.
        criterion: what `units.filters` holds. "filters": the weights as they
            are. "folded": the weights times what a BatchNormalization behind
            them multiplies each filter by. "activations": columns whose
            cosines are the correlations of the units' activations over the
            calibration data.
    """

    name = None
    levels = ("ratio", "target")
    needs_data = False
    uses_data = True
    is_clustering = False
    criterion = "filters"

    def __post_init__(self):
        if isinstance(self.criterion, Real):
            name = type(self).__name__
            raise TypeError(
                f"{name} received the number {self.criterion!r}, but is made "
                "without saying how much goes. Pass that to plan or prune, as "
                f"in kr.prune(model, kr.{name}(), ratio=0.3)."
            )
        check_option("criterion", self.criterion, CRITERIA)
        check_seed(getattr(self, "seed", None))
        for how in ("tau", "correlation"):
            level = getattr(self, how, None)
            # Mappings and functions are checked when the layers are known.
            if level is not None and not isinstance(level, Mapping | Callable):
                CHECKS[how](level)

    def scores(self, units: SpaceUnits):
        """Scores of n units, shape (n,): units with larger scores stay.

        Args:
            units: the n units of one layer, or of several layers that write
                the same channels, as a `SpaceUnits`: `units.filters`, shape
                (z, n), a filter in each column; `units.norms`, shape (n,),
                their Euclidean norms; `units.layers`, the layers; and, if the
                method uses data, in `units.readers` for each layer that reads
                the units their `mean`, shape (n,), their `covariance`, shape
                (n, n), and the `weights` that read them, shape (n, outputs);
                of heads of an attention layer each has `each` numbers there.
        """
        raise NotImplementedError(
            f"{type(self).__name__} chooses no units yet: define "
            "scores(self, units), which returns a number for each unit, larger "
            "for units that are to stay."
        )

    def selector(self, units: SpaceUnits, number: int):
        """The object that chooses among units, as `planning.selection` says.

        A method that defines `scores` need not define this.

        Args:
            units: as for `scores`.
            number: the number of the units' space in the plan, so that random
                choices differ from space to space.
        """
        scores = checked_scores(self.scores(units), units, name_of_scores(self))
        return selection.ByRank(
            units, Ranking(np.argsort(-scores, kind="stable"))
        )

    @property
    def means(self) -> bool:
        """Whether the units that stay are means of clusters."""
        return getattr(self, "keep", None) == "mean"

    def check(self, how: str) -> None:
        """Raise ValueError for an option without effect when `how` says
        how much goes."""


class _Comparing(Method):
    """A method that looks at nothing but what units are compared by."""

    @property
    def uses_data(self) -> bool:
        return self.criterion == "activations"


@dataclasses.dataclass(frozen=True, repr=False)
class Clusters(_Comparing):
    """One unit of each cluster of similar units stays.

    Units i and j are as similar as the cosine of their filters,

        cos(i, j) = w_i . w_j / (|w_i| |w_j|),

    and two clusters are merged as long as they are more similar than tau.

    Args:
        tau: the similarity above which units count as redundant, in (0, 1]: a
            number, a mapping or a function, as `plan` takes it. None if
            `ratio` or `target` of `plan` says how much goes: the tau that
            leads there is then found.
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
    """Random units stay: as many as there are clusters at tau, or a share.

    Args:
        tau: as for `Clusters`: as many random units stay as `Clusters` would
            find clusters at this tau.
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
    """Units with large weights stay: the sum of |w| over a unit's filter.

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
    """Units far from all others stay: the sum of |w_i - w_j| over all j.

    Units near the geometric median of all can be replaced by the others.

    Args:
        criterion: what the distances are measured between, see `Method`.

    Source: He et al., Filter Pruning via Geometric Median for Deep
    Convolutional Neural Networks Acceleration (2019).
    """

    name = "fpgm"
    criterion: str = "filters"

    def scores(self, units):
        products = units.filters.T @ units.filters
        squares = np.diag(products)
        distances = squares + squares[:, None] - 2 * products
        return np.sqrt(distances.clip(0)).sum(axis=0)


@dataclasses.dataclass(frozen=True, repr=False)
class Greedy(Method):
    """The units stay that predict best what all consumers compute.

    A consumer, a layer that reads the units x, computes W^T x. Starting from
    none, the method keeps one unit more at a time: the one that makes the
    error of the least squares prediction P x_kept of x smallest, which is
    E |W^T (x - P x_kept)|^2 as a share of E |W^T x|^2, averaged over all
    consumers. It needs calibration data.

    Args:
        correlation: the least correlation between what each consumer computes
            before and after, in (0, 1]: a number, a mapping or a function, as
            `plan` takes it. The share 1 - correlation^2 of the variance may
            be lost. None if `ratio` or `target` of `plan` says how much goes.

    Source: Natarajan, Sparse Approximate Solutions to Linear Systems (1995);
    Chen, Cowan and Grant, Orthogonal Least Squares Learning Algorithm for
    Radial Basis Function Networks (1991), for the updates.
    """

    name = "greedy"
    levels = ("correlation", "ratio", "target")
    needs_data = True
    correlation: Level | None = None

    def selector(self, units, number):
        readouts = [
            Readout(reader.to_predict, reader.weights, reader.each)
            for reader in units.readers
        ]
        vectors = any(readout.each > 1 for readout in readouts)
        rank = rank_vectors if vectors else rank_by_outputs
        return selection.ByError(units, rank(readouts))


@dataclasses.dataclass(frozen=True, repr=False)
class Pivoted(Method):
    """The units stay that span the others: QR with column pivoting.

    Starting from none, the method keeps one unit more at a time: the one whose
    activation is predicted worst from the kept ones. The error of a unit
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
        n = len(units)
        total, vectors = np.zeros((n, n)), []
        for reader in units.readers:
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
        ranking = rank_by_pivots(total, np.ones(n), len(units.readers))
        return selection.ByError(units, ranking)


@dataclasses.dataclass(frozen=True, repr=False)
class Scores(Method):
    """Units with large scores stay, by a function of your own.

    Args:
        function: takes n units, as `Method.scores` does, and returns their
            scores, shape (n,): units with larger scores stay.
        criterion: what `units.filters` holds, see `Method`.
    """

    function: Callable
    criterion: str = "filters"

    def scores(self, units):
        try:
            return self.function(units)
        except Exception as error:
            error.add_note(
                f"{name_of(self.function)} was called with the {len(units)} "
                f"units of {units.name}, which have filters, norms, layers "
                "and, with data=, readers: see help(kr.Method.scores)."
            )
            raise


METHODS = (Clusters, Random, L1, FPGM, Greedy, Pivoted)
BY_NAME = {method.name: method for method in METHODS}


def name_of_scores(method: Method) -> str:
    """The name of the function that returns the scores, for messages."""
    if isinstance(method, Scores):
        return name_of(method.function)
    return f"{type(method).__name__}.scores"


def checked_scores(scores, units: SpaceUnits, name: str) -> np.ndarray:
    """Scores as an array of floats, shape (n,).

    Raises:
        TypeError: they are no numbers.
        ValueError: there is not one for each unit, or some are NaN.
    """
    of_units = f"for the {len(units)} units of {units.name}"
    remedy = (
        "Let it return one number for each unit, larger for units that are to "
        "stay; units are the columns of units.filters, so that the L1 norm is "
        "np.abs(units.filters).sum(axis=0)."
    )
    try:
        found = np.asarray(scores, float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} returned {type(scores).__name__} {of_units}, which are no "
            f"numbers. {remedy}"
        ) from error
    if found.shape != (len(units),):
        what = f"scores of the shape {found.shape}"
        what = "None" if scores is None else what
        raise ValueError(f"{name} returned {what} {of_units}. {remedy}")
    bad = units.numbers[np.isnan(found)]
    if len(bad):
        raise ValueError(
            f"{name} returned NaN {of_units}, for {len(bad)} of them: "
            f"{on_one_line(str(bad.tolist()))}, which cannot be ranked. "
            f"{remedy}"
        )
    return found


def _seed(seed, number):
    return None if seed is None else [seed, number]
