"""What all selection methods share, and a function of one's own as a method."""

from __future__ import annotations  # help() shows the names of types.

import dataclasses
from collections.abc import Callable, Mapping
from numbers import Real

import numpy as np

from keras_redundancy._shared.arguments import check_option, check_seed
from keras_redundancy._shared.configured import Configured, name_of
from keras_redundancy._shared.tables import on_one_line
from keras_redundancy.numbers.ranking import Ranking
from keras_redundancy.planning import selection
from keras_redundancy.planning.levels import CHECKS
from keras_redundancy.planning.space_units import SpaceUnits

CRITERIA = ("filters", "folded", "activations")
NO_GRADIENTS = (
    "they do not reach all that its layers read: they end inside of a layer, "
    "such as a recurrent or an attention layer, or at an operation that has "
    "none."
)


@dataclasses.dataclass(frozen=True, repr=False)
class Method(Configured):
    """How the units to keep are chosen: the base of all selection methods.

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
        uses_gradients: whether gradients of the model's answers are computed
            over the data: each of `units.readers` then has a `sensitivity`.
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
    uses_gradients = False
    criterion = "filters"

    def __post_init__(self):
        if isinstance(self.criterion, Real):
            name = type(self).__name__
            raise TypeError(
                f"{name} received the number {self.criterion!r}, but takes "
                "none. Pass it to plan or prune, to say how many units to "
                f"remove: kr.prune(model, kr.{name}(), ratio=0.3)."
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
                method uses data, `units.readers`, one for each layer that
                reads the units. A reader has the `mean` of the units'
                activations, shape (n,), their `covariance`, shape (n, n), and
                the `weights` that the layer reads them with, shape (n,
                outputs). If the units are heads of an attention layer, each
                has `each` numbers there, and n is n * each.
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

    def without_gradients(self, name: str) -> None:
        """Called if gradients, which the method uses, do not reach all
        readers.

        Args:
            name: that of the model.

        Raises:
            ValueError: the method needs the gradients.
        """
        raise ValueError(
            f"{type(self).__name__} needs gradients of the answers of "
            f"{name!r}, but {NO_GRADIENTS} Use kr.Greedy()."
        )

    @property
    def means(self) -> bool:
        """Whether the units that stay are means of clusters."""
        return getattr(self, "keep", None) == "mean"

    def check(self, how: str) -> None:
        """Raise ValueError for an option without effect when `how` says
        how much goes."""


@dataclasses.dataclass(frozen=True, repr=False)
class Scores(Method):
    """Keep units with large scores, by a function of your own.

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
