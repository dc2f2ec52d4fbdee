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

import numpy as np

from keras_redundancy._shared.arguments import (
    Level,
    check_correlation,
    check_option,
    check_seed,
)
from keras_redundancy._shared.configured import Configured, name_of
from keras_redundancy.numbers.clustering import LINKAGES, check_tau
from keras_redundancy.numbers.ranking import (
    Ranking,
    Readout,
    rank_by_outputs,
    rank_by_pivots,
)
from keras_redundancy.planning.selection import (
    REPRESENTATIVES,
    AtRandom,
    ByClusters,
    ByError,
    ByRank,
)
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
        name: the short name, for `select=`; None without one.
        levels: what may say how much goes: some of "tau", "ratio", "target"
            and "correlation".
        needs_data: whether the method cannot do without calibration data.
        uses_data: whether it looks at activations where there are some, so
            that the model runs over the data and `units.readers` is filled.
        is_clustering: whether similar units are put together, so that all that
            belongs to them, such as their biases, has to be similar too.
        criterion: what `units.filters` holds. "filters": the weights as they
            are. "folded": filters as a BatchNormalization behind makes them.
            "activations": columns whose cosines are the correlations of the
            units' activations over the calibration data.
    """

    name = None
    levels = ("ratio", "target")
    needs_data = False
    uses_data = True
    is_clustering = False
    criterion = "filters"

    def __post_init__(self):
        check_option("criterion", self.criterion, CRITERIA)
        check_seed(getattr(self, "seed", None))

    def scores(self, units: SpaceUnits):
        """How much each of the n units is worth, shape (n,): more stays.

        Args:
            units: what is known of the n units of a space, such as
                `units.filters`, of shape (z, n).
        """
        raise NotImplementedError(
            f"{type(self).__name__} chooses no units yet: define "
            "scores(self, units), which returns a number for each unit, larger "
            "for units that are to stay."
        )

    def selector(self, units: SpaceUnits, number: int):
        """What chooses among the units of a space: see `selection`.

        Args:
            units: what is known of the units.
            number: the number of the space in the plan, so that random choices
                differ from space to space.
        """
        scores = checked_scores(self.scores(units), units, name_of_scores(self))
        return ByRank(units, Ranking(np.argsort(-scores, kind="stable")))

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
    """Clusters of similar units, of which one stays each.

    Units i and j are as similar as the cosine of their filters,

        cos(i, j) = w_i . w_j / (|w_i| |w_j|),

    and clusters are merged as long as two are more similar than tau.

    Args:
        tau: the similarity above which units count as redundant, in (0, 1];
            given as `plan` takes it. None if a ratio or a target says how
            much goes: then the tau that leads there is found.
        linkage: how similar clusters are: "average" of all pairs,
            "complete" (the least similar pair) or "single" (the most similar
            pair: connected components).
        keep: which unit of a cluster stays: "medoid", the most similar to the
            others; "largest", by its norm; "random"; or "mean", a new unit.
        criterion: what is compared, see `Method`. With "folded", units of a
            cluster are alike in all else that carries their channels too.
        seed: of keep="random".

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
        _check_level(self.tau, check_tau)
        check_option("linkage", self.linkage, LINKAGES)
        check_option("keep", self.keep, REPRESENTATIVES)

    def selector(self, units, number):
        seed = _seed(self.seed, number)
        return ByClusters(units, self.linkage, self.keep, seed)


@dataclasses.dataclass(frozen=True, repr=False)
class Random(_Comparing):
    """Units at random: as many as there are clusters at tau, or a share.

    Args:
        tau: as for `Clusters`; only the number of clusters counts.
        linkage: as for `Clusters`, by default "average"; for tau alone.
        criterion: what is compared, see `Method`.
        seed: of the random choice.

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
        _check_level(self.tau, check_tau)
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
        return AtRandom(units, linkage, _seed(self.seed, number))


@dataclasses.dataclass(frozen=True, repr=False)
class L1(_Comparing):
    """Units with large weights stay: the sum of |w| over a unit's filter.

    Args:
        criterion: whose sums are taken, see `Method`.

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

    Units near the geometric median of all are predicted by the others.

    Args:
        criterion: what distances are between, see `Method`.

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
    """Units stay that predict best what all consumers compute.

    A consumer computes W^T x of the units x. One unit after the other is
    added: the one that makes the error of the least squares prediction
    smallest, E |W^T (x - P x_kept)|^2 as a share of E |W^T x|^2, the mean over
    all consumers. It needs calibration data.

    Args:
        correlation: the least correlation between what each consumer computes
            before and after, in (0, 1], given as `plan` takes it: the share
            1 - correlation^2 of its variance may be lost. None if a ratio or
            a target says how much goes.

    Source: Natarajan, Sparse Approximate Solutions to Linear Systems (1995);
    Chen, Cowan and Grant, Orthogonal Least Squares Learning Algorithm for
    Radial Basis Function Networks (1991), for the updates.
    """

    name = "greedy"
    levels = ("correlation", "ratio", "target")
    needs_data = True
    correlation: Level | None = None

    def __post_init__(self):
        super().__post_init__()
        _check_level(self.correlation, check_correlation)

    def selector(self, units, number):
        readouts = [
            Readout(reader.to_predict, reader.weights)
            for reader in units.readers
        ]
        return ByError(units, rank_by_outputs(readouts))


@dataclasses.dataclass(frozen=True, repr=False)
class Pivoted(Method):
    """Units stay that span the others: QR with column pivoting.

    One unit after the other is added: the one whose activation the kept ones
    predict worst, weighed by how strongly it is read. It needs calibration
    data.

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

    def __post_init__(self):
        super().__post_init__()
        _check_level(self.correlation, check_correlation)

    def selector(self, units, number):
        n = len(units)
        total = np.zeros((n, n))
        for reader in units.readers:
            known = reader.to_predict
            strength = np.square(reader.weights).sum(axis=1)
            scale = (np.diag(known) * strength).sum()
            if scale > 0:
                strength = np.sqrt(strength / scale)
                total += known * strength * strength[:, None]
        ranking = rank_by_pivots(total, np.ones(n), len(units.readers))
        return ByError(units, ranking)


@dataclasses.dataclass(frozen=True, repr=False)
class Scores(Method):
    """Units with large scores stay, by a function of your own.

    Args:
        function: takes what is known of the n units of a space, a
            `SpaceUnits`, and returns their scores, shape (n,): more stays.
        criterion: what `units.filters` holds, see `Method`.
    """

    function: Callable
    criterion: str = "filters"

    def scores(self, units):
        return self.function(units)


METHODS = (Clusters, Random, L1, FPGM, Greedy, Pivoted)
BY_NAME = {method.name: method for method in METHODS}


def name_of_scores(method: Method) -> str:
    """What a method's scores are returned by, for messages."""
    if isinstance(method, Scores):
        return name_of(method.function)
    return f"{type(method).__name__}.scores"


def checked_scores(scores, units: SpaceUnits, name: str) -> np.ndarray:
    """Scores as an array of floats, shape (n,).

    Raises:
        TypeError, ValueError: they are no numbers, not one for each unit, or
            NaN.
    """
    remedy = (
        "return one number for each unit, larger for units that are to stay; "
        "units are the columns of units.filters, so that the L1 norm is "
        "np.abs(units.filters).sum(axis=0)."
    )
    try:
        found = np.asarray(scores, float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} returned {type(scores).__name__} for the {len(units)} "
            f"units of {units.name}, which are no numbers. Let it {remedy}"
        ) from error
    if found.shape != (len(units),):
        raise ValueError(
            f"{name} returned scores of the shape {found.shape} for the "
            f"{len(units)} units of {units.name}. Let it {remedy}"
        )
    bad = np.flatnonzero(np.isnan(found))
    if len(bad):
        shown = ", ".join(map(str, units.numbers[bad[:5]]))
        raise ValueError(
            f"{name} returned NaN for {len(bad)} of the {len(units)} units of "
            f"{units.name} ({shown}{', ...' * (len(bad) > 5)}), which cannot "
            f"be ranked. Let it {remedy}"
        )
    return found


def _check_level(level, check):
    """Mappings and functions are checked when the layers are known."""
    if level is not None and not isinstance(level, Mapping | Callable):
        check(level)


def _seed(seed, number):
    return None if seed is None else [seed, number]
