"""Make the decision about every space of a model."""

import dataclasses

import numpy as np

from keras_redundancy._shared.progress import tracked
from keras_redundancy._shared.threads import one_thread
from keras_redundancy.building.absorb import DropAbsorber, axis_changes
from keras_redundancy.building.apply import smaller_model
from keras_redundancy.calibration import Calibration, Statistics
from keras_redundancy.channels import ChannelGraph
from keras_redundancy.channels.filters import norms_along
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.planning import selection
from keras_redundancy.planning.budgets import Costs, widths_for
from keras_redundancy.planning.criteria import Compared
from keras_redundancy.planning.decisions import Decision
from keras_redundancy.planning.idle import Idle
from keras_redundancy.planning.latency import Stopwatch, least_cut_within
from keras_redundancy.planning.levels import COSTS
from keras_redundancy.planning.request import Request
from keras_redundancy.planning.space_units import ALMOST_ONE

UNSEEN = Reason(
    "not_seen_by_data",
    "all that reads it is inside of layers, where calibration data does not "
    "show it",
)


@dataclasses.dataclass(frozen=True)
class Chooser:
    """Makes the decision about every space.

    Attributes:
        graph: the traced model.
        statistics: the statistics of the calibration data, or None.
        request: the checked arguments of `plan`.
        compared: what units are compared by.
        idle: the units that are constant.
    """

    graph: ChannelGraph
    statistics: Statistics | None
    request: Request
    compared: Compared
    idle: Idle

    @classmethod
    def of(
        cls, graph, spaces, data: Calibration | None, request, levels
    ) -> "Chooser":
        """Args:
        graph, request: as the attributes.
        spaces: the spaces whose units may go.
        data: what is known from calibration data, or None.
        levels: the level of each space, or None.
        """
        statistics = data and data.statistics
        method, is_tau = request.method, request.how == "tau"
        exact = is_tau and any(x and x > ALMOST_ONE for x in levels)
        sensitivities = _sensitivities(method, data) if spaces else None
        compared = Compared(
            graph, spaces, method, statistics, exact, sensitivities
        )
        idle = request.absorb.idle_units(graph, spaces, statistics, is_tau)
        return cls(graph, statistics, request, compared, idle)

    @property
    def absorber(self):
        """The object that makes the new kernels and biases of consumers."""
        folded = self.request.method.criterion == "folded"
        return self.request.absorb.absorber(self.statistics, self.idle, folded)

    def decide(self, spaces, levels, reasons):
        """A decision about every space.

        Args:
            spaces: all spaces that some layer writes.
            levels: the level of each space, None where it has a reason.
            reasons: why each space stays as it is, or None.

        Returns:
            (a tuple of the decisions; the measured latency of the smaller
            model as a share of the original's, None if it was not measured).

        Raises:
            OutOfReachError: the target cannot be reached.
            ValueError: the target depends on sizes that are open.
        """
        reasons = [
            reason or self._unseen(space)
            for space, reason in zip(spaces, reasons, strict=True)
        ]
        if self.request.how == "target":
            found, latency = self._for_target(spaces, reasons)
        else:
            found, latency = self._for_levels(spaces, levels, reasons), None
        return tuple(found), latency

    def _for_levels(self, spaces, levels, reasons):
        """The decisions for one level for each space."""
        how, decisions = self.request.how, []
        for number, space in tracked(list(enumerate(spaces)), "space"):
            if reasons[number]:
                decisions.append(_left_alone(space, reasons[number]))
                continue
            level, found = levels[number], None
            selector = self.selector(space, number)
            if how == "ratio":
                wanted = selection.share_left(level, space.size)
            else:
                wanted = found = selector.count_at(level)
            width = self.request.width(wanted, space.size)
            tau = None if how == "ratio" else level
            chosen = selector.choose(width, tau)
            decisions.append(Decision(space, tau, found, chosen, None))
        return decisions

    def _for_target(self, spaces, reasons):
        """The decisions for one depth of all spaces that meets the target."""
        what, share = self.request.level
        budget = _Budget(self, spaces, reasons)
        if what != "latency":
            return budget.decisions(what, share), None
        stopwatch = Stopwatch(
            self.graph.model, self.request.batch_size, self.graph.input_shapes
        )

        def race_with(decisions):
            return stopwatch.race_with(
                smaller_model(self.graph, decisions, "medoid", DropAbsorber())
            )

        def cut_to(left):
            return budget.decisions("flops", left)

        return least_cut_within(share, cut_to, race_with)

    def _unseen(self, space):
        needs = self.request.method.needs_data
        return UNSEEN if needs and not self.statistics.of_space(space) else None

    def selector(self, space, number):
        """The object that chooses among the units of a space."""
        first, stays = self._constant(space)
        if (first | stays).all():
            first[0] = stays[0] = False  # One has to be chosen.
        constant = first | stays
        units = self.compared.units_of(space, np.flatnonzero(~constant))
        with one_thread():
            selector = self.request.method.selector(units, number)
        if not constant.any():
            return selector
        return selection.WithoutConstant(selector, first, stays)

    def _constant(self, space):
        """Of the constant units of a space: which go first, and which stay."""
        if self.request.how != "tau":
            return self.idle.first_of(space).copy(), np.zeros(space.size, bool)
        stays = self.idle.inexact_of(space).copy()
        if stays.any():
            # Zero filters are redundant to exact copies of themselves alone.
            units = self.compared.units_of(space, np.flatnonzero(stays))
            stays[stays] = norms_along(units.filters, -1) > 0
        return self.idle.of(space).copy(), stays


def _sensitivities(method, data):
    """How answers depend on what is read, where the method asks for it."""
    if not method.uses_gradients:
        return None
    if data.sensitivities is None:
        method.without_gradients(data.model.name)
    return data.sensitivities


class _Budget:
    """How many units of each space stay, so that a cost is met."""

    def __init__(self, chooser, spaces, reasons):
        self._request, self._spaces = chooser.request, spaces
        self._reasons = reasons
        self._selectors = {
            number: chooser.selector(spaces[number], number)
            for number in tracked(
                [n for n, reason in enumerate(reasons) if not reason], "space"
            )
        }
        self._sizes = np.array([space.size for space in spaces])
        self._costs = Costs(chooser.graph, spaces)
        self._graph, self._absorber = chooser.graph, chooser.absorber

    def decisions(self, what, share):
        """The decisions that leave this share of a cost.

        Biases that are made for consumers cost parameters too, and which ones
        are made depends on the units that go.
        """
        made = 0.0
        while True:
            found = self._decided(self._widths(what, share, made))
            needed = self._made(found) if what == "params" else 0.0
            if needed <= made:
                return found
            made = needed

    def _made(self, decisions):
        """The parameters of the biases that are made."""
        changes = axis_changes(decisions)
        biases = self._absorber.biases_for(self._graph, changes)
        widths = [len(each.selection.kept) for each in decisions]
        return self._costs.of_biases(widths, biases)

    def _decided(self, widths):
        return [
            _left_alone(space, self._reasons[n])
            if self._reasons[n]
            else Decision(
                space, None, None, self._selectors[n].choose(widths[n]), None
            )
            for n, space in enumerate(self._spaces)
        ]

    def _widths(self, what, share, made):
        costs, sizes, request = self._costs, self._sizes, self._request
        can_go = list(self._selectors)
        cost = {
            "flops": costs.flops,
            "params": lambda widths: costs.parameters(widths) + made,
            "units": lambda widths: widths[can_go].sum(),
        }[what]
        whole = cost(sizes)
        if whole is None:
            raise ValueError(
                "target={'flops': ...} counts multiply-adds, which cannot be "
                "counted here: an input of the model has an open size. Pass "
                "input_shape=, the shape of one sample, or data=, or "
                "target={'params': ...} instead."
            )
        whole -= made
        unit_costs = costs.of_units(cost, sizes) / (whole or 1)
        errors = sum(selector.error for selector in self._selectors.values())
        unit_costs *= errors or 1

        def widths_at(depth):
            widths = sizes.copy()
            for n, selector in self._selectors.items():
                wanted = sizes[n]
                if depth == 1:
                    wanted = 1
                elif depth > 0:
                    wanted = selector.count_at_depth(
                        depth, sizes[n], unit_costs[n]
                    )
                widths[n] = request.width(wanted, sizes[n])
            return widths

        words = COSTS[what]
        return widths_for(
            widths_at, cost, share * whole, words, request.round_to
        )


def _left_alone(space, reason):
    everyone = selection.Selection(np.arange(space.size))
    return Decision(space, None, space.size, everyone, reason)
