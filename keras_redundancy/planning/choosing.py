"""Make the decision about every space of a model."""

import dataclasses

import numpy as np

from keras_redundancy._shared.arguments import (
    check_count,
    check_option,
    check_seed,
)
from keras_redundancy.build.absorb import Drop, Merge
from keras_redundancy.build.refit import Refit
from keras_redundancy.calibration import Statistics
from keras_redundancy.channels import ChannelGraph
from keras_redundancy.numbers.clustering import LINKAGES
from keras_redundancy.numbers.regression import least_squares, slopes
from keras_redundancy.planning.budgets import Costs, widths_for
from keras_redundancy.planning.criteria import CRITERIA, Compared
from keras_redundancy.planning.decisions import Decision, Plan
from keras_redundancy.planning.idle import (
    Idle,
    idle_by_data,
    idle_by_weights,
)
from keras_redundancy.planning.latency import Stopwatch, least_cut_within
from keras_redundancy.planning.selection import (
    DATA_RANKS,
    RANKS,
    REPRESENTATIVES,
    SELECTORS,
    Selection,
    WithoutIdle,
)

FITS = {"affine": slopes, "least_squares": least_squares}
ABSORBERS = ("merge", "drop", *FITS)
COSTS = {
    "flops": "multiply-adds",
    "params": "parameters",
    "units": "units",
    "latency": "time on this machine",
}

# Relative error for a relative cost: between them everything or nothing goes.
LOW_PRICE, HIGH_PRICE = 1e-12, 1e6

UNSEEN = (
    "all that reads it is inside of layers, where calibration data does not "
    "show it"
)


@dataclasses.dataclass(frozen=True)
class Options:
    """How units are chosen and absorbed: options of `plan`.

    None is for what the caller did not say.
    """

    criterion: str | None
    select: str | None
    linkage: str | None
    keep: str | None
    absorb: str | None
    round_to: int
    min_units: int
    seed: int | None
    repair: bool | None
    rounds: int | None

    def resolved(self, how: str, has_data: bool) -> "Options":
        """With defaults in place of None; each known, all fit for another.

        Args:
            how: what says how much goes: "tau", "ratio", "target" or
                "correlation".
            has_data: whether there is data to calibrate on.

        Raises:
            ValueError: an option is unknown, out of range, does not go with
                another, or would have no effect.
        """
        select = "greedy" if has_data else "l1"
        if how == "tau" or self.keep == "mean":
            select = "clusters"
        absorbs = has_data and self.keep != "mean"
        defaults = {
            "criterion": "filters",
            "select": select,
            "linkage": "average",
            "keep": "medoid",
            "absorb": "least_squares" if absorbs else "merge",
            "repair": has_data,
            "rounds": 1,
        }
        given = {
            name: getattr(self, name)
            for name in defaults
            if getattr(self, name) is not None
        }
        options = dataclasses.replace(self, **(defaults | given))
        options._check_each()
        options._check_together(how, has_data)
        options._refuse_what_does_nothing(given, how, has_data)
        return options

    def _check_each(self):
        check_option("criterion", self.criterion, CRITERIA)
        check_option("select", self.select, SELECTORS)
        check_option("linkage", self.linkage, LINKAGES)
        check_option("keep", self.keep, REPRESENTATIVES)
        check_option("absorb", self.absorb, ABSORBERS)
        check_count("round_to", self.round_to)
        check_count("min_units", self.min_units)
        check_count("rounds", self.rounds, least=0)
        check_seed(self.seed)

    def _check_together(self, how, has_data):
        if not has_data and (self.from_data or how == "correlation"):
            options = self.from_data or ["correlation="]
            raise ValueError(
                f"{' and '.join(options)} cannot do without data: pass "
                "data=, some hundred samples like those that the model was "
                "trained on, without targets."
            )
        if how == "tau" and self.select in (*RANKS, *DATA_RANKS):
            instead = "Say with ratio= what share of them goes, or with "
            if self.select in DATA_RANKS:
                instead = "Say with correlation= how well the units that stay "
                instead += "have to tell what consumers compute, or with "
            raise ValueError(
                f"tau does not go with select={self.select!r}, which ranks "
                f"units and knows no similarity. {instead}target= what is to "
                "be left of the model."
            )
        if how == "correlation" and self.select not in DATA_RANKS:
            raise ValueError(
                f"correlation does not go with select={self.select!r}: it is "
                "that of what consumers compute before and after, which "
                "'greedy' and 'pivoted' know. Use one of these, or tau=."
            )
        if self.keep == "mean":
            self._check_means()

    def _check_means(self):
        if self.absorb != "merge":
            raise ValueError(
                f"keep='mean' does not go with absorb={self.absorb!r}: the "
                "mean stands for all units of its cluster, and is none of "
                "those that the consumers read. Use absorb='merge', or "
                "keep='medoid'."
            )
        if self.select != "clusters":
            raise ValueError(
                f"keep='mean' does not go with select={self.select!r}, which "
                "keeps units as they are. Use select='clusters', or another "
                "keep."
            )

    def _refuse_what_does_nothing(self, given, how, has_data):
        """Raise ValueError for an option that was given and has no effect.

        What asks for nothing, such as rounds=0, may be said without need, and
        so may a seed.
        """
        by_rank = f"select={self.select!r} ranks units"
        no_clusters = f"select={self.select!r} makes no clusters"
        is_counted = self.select == "random" and how == "tau"
        clusters = self.select == "clusters"
        needless = {
            "linkage": not clusters and not is_counted and no_clusters,
            "keep": not clusters and no_clusters,
            "criterion": self.select in DATA_RANKS
            and f"{by_rank} by what consumers read of them",
            "repair": not has_data
            and "without data= there is nothing to repair with",
            "rounds": not (has_data and self.repair)
            and "kernels are fitted to data=, with repair=True",
        }
        for name, value in given.items():
            if value and needless.get(name):
                raise ValueError(
                    f"{name}={value!r} would have no effect: "
                    f"{needless[name]}. Leave {name}= out."
                )

    @property
    def from_data(self) -> list[str]:
        """The options that need to know activations."""
        return [
            f"{name}={getattr(self, name)!r}"
            for name, known in (
                ("criterion", ("activations",)),
                ("select", DATA_RANKS),
                ("absorb", FITS),
            )
            if getattr(self, name) in known
        ]

    @property
    def folded(self) -> bool:
        return self.criterion == "folded"

    def idle_units(self, graph, spaces, statistics, how: str) -> Idle:
        """The units that are constant, if what is absorbed makes up for it.

        What is constant over some samples need not be so for others: to be
        redundant at a tau, units have to be constant whatever comes, or all
        of a layer.
        """
        if self.absorb == "drop":
            return Idle()
        idle = idle_by_weights(graph, spaces)
        if self.absorb in FITS:
            whole = how == "tau"
            idle |= idle_by_data(graph, spaces, statistics, whole)
        return idle

    def absorber(self, statistics: Statistics | None, idle: Idle):
        """What makes up for the units that go."""
        if self.absorb in FITS:
            solve = FITS[self.absorb]
            return Refit(statistics, solve, idle.constants, self.folded)
        if self.absorb == "drop":
            return Drop()
        return Merge(idle.constants, self.folded)

    def width(self, wanted: int, size: int) -> int:
        wanted = max(wanted, self.min_units)
        return min(-(-wanted // self.round_to) * self.round_to, size)


@dataclasses.dataclass(frozen=True)
class Chooser:
    """Makes the decision about every space.

    Attributes:
        graph: the traced model.
        statistics: those of the calibration data, or None.
        options: the options of `plan`.
        compared: what units are compared by.
        idle: the units that are constant.
    """

    graph: ChannelGraph
    statistics: Statistics | None
    options: Options
    compared: Compared
    idle: Idle

    def for_levels(self, spaces, reasons, how, levels):
        """With one level for each space that has no reason.

        Args:
            spaces: all spaces that some layer writes.
            reasons: for each why it stays as it is, or None.
            how: "tau", "ratio" or "correlation".
            levels: for each space that has no reason its level.
        """
        decisions = []
        for number, space in enumerate(spaces):
            reason = reasons[number] or self.unseen(space)
            if reason:
                decisions.append(_left_alone(space, reason))
                continue
            level, found = levels[number], None
            selector = self.selector(space, number)
            if how == "ratio":
                wanted = space.size - int(level * space.size + 1e-9)
            else:
                wanted = found = selector.count_at(level)
            width = self.options.width(wanted, space.size)
            tau = None if how == "ratio" else level
            chosen = selector.choose(width, tau)
            decisions.append(Decision(space, tau, found, chosen, None))
        return decisions

    def for_target(self, spaces, reasons, target, batch_size):
        """With one depth for all spaces, so that a target is met.

        Args:
            spaces, reasons: as for `for_levels`.
            target: what is counted, and the share of it that is to be left.
            batch_size: of the samples that a latency is measured with.

        Returns:
            The decisions, and the share of the latency that was measured, or
            None.

        Raises:
            OutOfReachError: so much cannot go.
            ValueError: what is counted depends on open sizes.
        """
        (what, share), budget = target, _Budget(self, spaces, reasons)
        if what != "latency":
            return budget.decisions(what, share), None
        stopwatch = Stopwatch(
            self.graph.model, batch_size, self.graph.input_shapes
        )

        def share_of(decisions):
            cut = Plan(self.graph, tuple(decisions), "medoid", Drop())
            return stopwatch.share(cut.apply())

        def cut_to(left):
            return budget.decisions("flops", left)

        return least_cut_within(share, cut_to, share_of)

    def count_at(self, depth, selector, size, unit_cost):
        """How many of `size` units to keep at a depth in (0, 1].

        Where errors are known, all that is worth a price by its costs, the
        same one everywhere: so no exchange of units between spaces would make
        the sum of errors smaller for these costs, if they did not depend on
        one another.
        """
        if depth == 1:
            return 1
        if self.options.select in DATA_RANKS:
            price = LOW_PRICE ** (1 - depth) * HIGH_PRICE**depth
            return selector.count_for(price * unit_cost)
        if self.options.select == "clusters":
            return selector.count_at(1 - depth)
        return size - int(depth * size + 1e-9)

    def unseen(self, space):
        by_data = self.options.select in DATA_RANKS
        if by_data and not self.statistics.of_space(space):
            return UNSEEN
        return None

    def selector(self, space, number):
        """What chooses among the units of a space."""
        options, idle = self.options, self.idle.of(space)
        if idle.all():
            idle = np.arange(space.size) > 0  # One has to stay.
        units = self.compared.units_of(space, np.flatnonzero(~idle))
        seed = None if options.seed is None else [options.seed, number]
        make = SELECTORS[options.select]
        selector = make(units, options.linkage, options.keep, seed)
        return WithoutIdle(selector, idle) if idle.any() else selector


class _Budget:
    """How many units of all spaces stay for what they cost."""

    def __init__(self, chooser, spaces, reasons):
        self._chooser, self._spaces = chooser, spaces
        self._reasons = [
            reason or chooser.unseen(space)
            for space, reason in zip(spaces, reasons, strict=True)
        ]
        self._selectors = {
            number: chooser.selector(spaces[number], number)
            for number, reason in enumerate(self._reasons)
            if not reason
        }
        self._sizes = np.array([space.size for space in spaces])
        self._costs = Costs(chooser.graph, spaces)

    def decisions(self, what, share):
        """What happens to every space, so that a share of a cost is left."""
        widths = self._widths(what, share)
        return [
            _left_alone(space, self._reasons[n])
            if self._reasons[n]
            else Decision(
                space, None, None, self._selectors[n].choose(widths[n]), None
            )
            for n, space in enumerate(self._spaces)
        ]

    def _widths(self, what, share):
        costs, sizes, options = self._costs, self._sizes, self._chooser.options
        can_go = list(self._selectors)
        cost = {
            "flops": costs.flops,
            "params": costs.parameters,
            "units": lambda widths: widths[can_go].sum(),
        }[what]
        whole = cost(sizes)
        if whole is None:
            raise ValueError(
                "target={'flops': ...} needs to count them, but the model's "
                "input has an open size. Pass input_shape=, the shape of one "
                "sample, or data=, or give a target of params."
            )
        unit_costs = costs.of_units(cost, sizes) / whole

        def widths_at(depth):
            widths = sizes.copy()
            for n, selector in self._selectors.items():
                if depth > 0:
                    wanted = self._chooser.count_at(
                        depth, selector, sizes[n], unit_costs[n]
                    )
                    widths[n] = options.width(wanted, sizes[n])
            return widths

        words = COSTS[what]
        return widths_for(
            widths_at, cost, share * whole, words, options.round_to
        )


def _left_alone(space, reason):
    everyone = np.arange(space.size)
    chosen = Selection(everyone, everyone)
    return Decision(space, None, space.size, chosen, reason)
