"""What happens to every space of a model, and the smaller model."""

import dataclasses
import functools

import keras
import numpy as np

from keras_redundancy._keras.fingerprint import Snapshot
from keras_redundancy._shared.arguments import check_verbose
from keras_redundancy._shared.tables import Rendered, Table, on_one_line
from keras_redundancy.building.absorb import axis_changes
from keras_redundancy.building.apply import removed_groups, smaller_model
from keras_redundancy.channels import ChannelGraph, Space
from keras_redundancy.channels.explanation import Explanation, explain
from keras_redundancy.channels.reasons import code_of
from keras_redundancy.mend.repair import Repair
from keras_redundancy.planning.budgets import Costs
from keras_redundancy.planning.by_hand import the_decision_about, with_units
from keras_redundancy.planning.criteria import Compared
from keras_redundancy.planning.idle import Idle
from keras_redundancy.planning.inlining import ways_of_blocks
from keras_redundancy.planning.selection import Selection

NOTHING_ABOVE = (
    "No unit is removed at this tau. The column max cos of kr.analyze(model) "
    "shows how\nsimilar units are. For a smaller model, lower tau, or pass "
    "ratio= or target=."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """What happens to one space.

    Attributes:
        space: the space.
        tau: the threshold at which its units were chosen; None if no unit is
            removed, for the `reason`, or if a ratio or a target says how many.
        clusters: how many units `tau` asks for, such as the number of
            clusters, n_f; None for a ratio or a target.
        selection: the units that stay, and what they stand for.
        reason: why nothing can be removed, in words, or None.
    """

    space: Space
    tau: float | None
    clusters: int
    selection: Selection
    reason: str | None

    def __repr__(self):
        gone, size = len(self.selection.removed), self.space.size
        remark = f" ({self.remark})" if self.remark else ""
        words = f"{self.space.name}, {gone} of {size} units go{remark}"
        return f"<Decision: {on_one_line(words)}>"

    @property
    def reason_code(self) -> str | None:
        """A short code for the reason, such as "left_out", or None."""
        return code_of(self.reason)

    def to_dict(self) -> dict:
        """What happens to the space, as plain Python objects."""
        return {
            "space": self.space.name,
            "layers": list(map(self.space.called, self.space.producers)),
            "units": self.space.size,
            "tau": self.tau,
            "clusters": None if self.clusters is None else int(self.clusters),
            "kept": self.selection.kept.tolist(),
            "removed": self.selection.removed.tolist(),
            "stands_for": self.selection.stands_for.tolist(),
            "constant": self.selection.idle.tolist(),
            "reason": None if self.reason is None else str(self.reason),
            "reason_code": self.reason_code,
            "inexact": self.space.inexact,
        }

    @property
    def remark(self) -> str:
        """The reason, or a warning about a space that is pruned inexactly."""
        if self.reason is None and self.space.inexact:
            return f"inexact: {self.space.inexact}"
        return self.reason or ""


@dataclasses.dataclass(frozen=True, eq=False)
class Plan(Rendered):
    """Which units of a model to remove, and what their consumers read instead.

    `plan.render()` prints the plan, `plan.apply()` builds the smaller model,
    and `plan["conv1"]` is the `Decision` about the units that the layer of
    that name writes. `without` and `keeping` return new plans, with units
    chosen by hand.

    In print, a row is a space: units that go together, with the layers that
    write them, tau, the number n of units, that of clusters at tau (n_f), how
    many are kept and removed, and why none is removed.

    Attributes:
        graph: the traced model.
        decisions: one for every space that some layer writes.
        keep: "mean" if the units that stay are means of clusters, else
            "medoid".
        absorber: makes the new weights of consumers; see `absorb=` of `plan`.
        repair: the `Repair` of the smaller model, or None.
        latency: the share of the model's time that the smaller one took when
            it was measured, or None.
        optimizer: whether the smaller model goes on with the optimizer's
            state.
        compared: what units were compared by; None if they were not.
        idle: the units that are constant.
        weights: a `Snapshot` of the model that the plan was asked for, whose
            weights must not have changed where the plan is applied; None to
            leave that unchecked.
    """

    graph: ChannelGraph
    decisions: tuple[Decision, ...]
    keep: str
    absorber: object
    repair: Repair | None = None
    latency: float | None = None
    optimizer: bool = False
    compared: Compared | None = None
    idle: Idle = dataclasses.field(default_factory=Idle)
    weights: Snapshot | None = None

    def __copy__(self):
        return self

    def __reduce__(self):
        raise TypeError(
            "A plan belongs to a model in memory, so it cannot be copied or "
            "pickled. Save the smaller model, plan.apply().save(path), or what "
            "the plan says, plan.to_dict()."
        )

    def __getitem__(self, name: str) -> Decision:
        return the_decision_about(self.decisions, name)

    # Otherwise Python would ask for plan[0], plan[1], ...
    __iter__ = __contains__ = None

    def without(self, layer: str, units) -> "Plan":
        """A plan that removes these units too, whatever the method chose.

        Args:
            layer: the name of a layer, or of a space as `render` shows it.
            units: numbers of the layer's units, such as filters of a
                convolution. Units that can only be removed together with them
                are removed too, such as the same channels of a residual stream
                or of a grouped convolution.

        Raises:
            KeyError: there is no such layer.
            TypeError, ValueError: the units are frozen or not planned, have no
                such numbers, or none would be left; or the layer writes units
                of several spaces.

        Example:

            plan = kr.plan(model, ratio=0.3).without("conv1", [3, 7])
        """
        return self._changed(layer, units, stay=False)

    def keeping(self, layer: str, units) -> "Plan":
        """A plan that keeps these units, whatever the method chose.

        Args, Raises: as for `without`.
        """
        return self._changed(layer, units, stay=True)

    def _changed(self, layer, units, stay):
        decisions = with_units(self, layer, units, stay)
        # What was measured was another model.
        return dataclasses.replace(self, decisions=decisions, latency=None)

    def __repr__(self):
        selections = [decision.selection for decision in self.decisions]
        units = sum(len(x.stands_for) for x in selections)
        gone = sum(len(x.removed) for x in selections)
        before, after = self.parameters
        return (
            f"<Plan for {self.graph.model.name!r}: {len(selections)} spaces, "
            f"{gone:,} of {units:,} units go, {before:,} -> {after:,} "
            "parameters>"
        )

    @property
    def removed(self) -> np.ndarray:
        """Whether each group of channels goes, a bool array."""
        return removed_groups(self.graph, self.decisions)

    @property
    def parameters(self) -> tuple[int, int]:
        """Parameters of the model before and after."""
        changes = axis_changes(self.decisions)
        biases = self.absorber.biases_for(self.graph, changes)
        after = self._costs.parameters(self._widths, biases)
        return self.graph.model.count_params(), round(after)

    @property
    def flops(self) -> tuple[int | None, int | None]:
        """Multiply-adds before and after, None where sizes are open."""
        before = self.graph.multiply_adds()
        if before is None:
            return None, None
        return before, round(self._costs.flops(self._widths))

    @functools.cached_property
    def blocks(self) -> dict[str, str]:
        """How layers without a rule that change are made anew, by their names.

        "by its arguments": as a layer of the same class, whose sizes are set
        by arguments of the constructor and by what it reads; "inline": the
        graph inside takes its place. It is inline as well where an argument
        turns out to do more than set a size.
        """
        return ways_of_blocks(self.graph, self.decisions)

    @functools.cached_property
    def _costs(self):
        return Costs(self.graph, [each.space for each in self.decisions])

    @property
    def _widths(self):
        """How many units of each space stay."""
        return [len(decision.selection.kept) for decision in self.decisions]

    def explain(self) -> Explanation:
        """What stays and why: frozen, or left out by the options.

        With the layers that hold it and its share of the parameters.
        """
        reasons = {space: space.frozen for space in self.graph.spaces}
        reasons |= {d.space: d.reason for d in self.decisions}
        return explain(self.graph, reasons)

    def apply(self, *, verbose: bool = False) -> keras.Model:
        """Build the smaller model; the one that was planned on is untouched.

        It may be called from any thread; one model is built at a time.

        Args:
            verbose: whether to draw a progress bar of the kernels that are
                fitted to data, which takes long for large models.

        Returns:
            A new `keras.Model` of stock layers with the weights carried over.
            If the model was compiled, so is the new one, with the same
            arguments and a fresh optimizer, or, if that was asked for, with
            the state of the old one.

        Raises:
            ValueError: the weights of the model have changed since the plan
                was made, or a layer cannot be rebuilt from its config.
            TypeError: `verbose` is no flag.
        """
        check_verbose(verbose)
        if self.weights is not None and not self.weights.is_current:
            raise ValueError(
                f"The weights of {self.graph.model.name!r} have changed since "
                "this plan was made, as by training: which units are redundant "
                "and what is read in their place belong to those of before. "
                "Make the plan again: kr.plan(model, ...)."
            )
        return smaller_model(
            self.graph,
            self.decisions,
            self.keep,
            self.absorber,
            self.repair if self.removed.any() else None,
            self.optimizer,
            verbose,
        )

    def to_dict(self) -> dict:
        """All that is decided, as plain Python objects."""
        return {
            "model": self.graph.model.name,
            "method": repr(self.compared.method) if self.compared else None,
            "decisions": [decision.to_dict() for decision in self.decisions],
            "untouched": [
                {
                    "layer": name,
                    "reason": str(reason),
                    "reason_code": code_of(reason),
                }
                for name, reason in self.graph.untouched
            ],
            "parameters": list(self.parameters),
            "multiply_adds": list(self.flops),
            "latency": self.latency,
        }

    def table(self) -> Table:
        header = ["written by", "n", "kept", "removed", "remark"]
        rows = [
            [
                decision.space.name,
                decision.space.size,
                len(decision.selection.kept),
                len(decision.selection.removed),
                decision.remark,
            ]
            for decision in self.decisions
        ]
        if any(x.tau for x in self.decisions):
            header[1:2] = "tau", "n", "n_f"
            for row, x in zip(rows, self.decisions, strict=True):
                row[1:2] = x.tau, row[1], x.clusters if x.tau else None
        empty = [None] * (len(header) - 2)
        rows += [[name, *empty, why] for name, why in self.graph.untouched]
        title = f"Plan for {self.graph.model.name!r}"
        return Table(title, header, rows, self._summary())

    def _summary(self):
        lines = [_change("parameters", *self.parameters)]
        if any(d.tau for d in self.decisions) and not self.removed.any():
            lines.insert(0, NOTHING_ABOVE)
        if self.flops[0] is not None:
            lines.append(_change("multiply-adds", *self.flops))
        if self.latency is not None:
            saved = 100 * (1 - self.latency)
            lines.append(f"latency, as measured: {saved:.1f} % less")
        if self.repair is not None and self.repair.says:
            lines.append(self.repair.says)
        for way in sorted(set(self.blocks.values())):
            names = [name for name, own in self.blocks.items() if own == way]
            lines.append(f"made anew {way}: {', '.join(names)}")
        return "\n".join(lines)


def _change(what, before, after):
    saved = 100 * (1 - after / before) if before else 0.0
    return f"{what}: {before:,} -> {after:,} ({saved:.1f} % less)"
