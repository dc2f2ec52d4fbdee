"""Decide what goes, show it, and build the smaller model."""

import dataclasses
import inspect
import math

import numpy as np

from keras_redundancy.channels import ChannelGraph, Space, trace
from keras_redundancy.channels.explanation import Explanation, explain
from keras_redundancy.channels.labels import Constant
from keras_redundancy.clustering import LINKAGES
from keras_redundancy.flops import multiply_adds
from keras_redundancy.pruning import absorb as absorbing
from keras_redundancy.pruning.filters import compare, require_finite_carriers
from keras_redundancy.pruning.options import (
    Layers,
    Tau,
    check_count,
    check_option,
    check_seed,
    selected_layers,
    taus_by_layer,
)
from keras_redundancy.pruning.rebuild import rebuild, require_rebuildable
from keras_redundancy.pruning.selection import (
    REPRESENTATIVES,
    SELECTORS,
    Selection,
)
from keras_redundancy.tables import Rendered, render_table

ABSORBERS = ("merge", "drop")

LEFT_OUT = "{names} left out by layers=, skip= or tau="
COUPLED = "coupled with {names}, left out by layers=, skip= or tau="


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """What happens to one space.

    Attributes:
        space: the space.
        tau: the threshold its units were clustered at; None where they were
            not, and then `reason` says why.
        clusters: how many clusters were found, n_f.
        selection: the units that stay, and what they stand for.
        reason: why nothing can be removed, in words, or None.
    """

    space: Space
    tau: float | None
    clusters: int
    selection: Selection
    reason: str | None

    @property
    def remark(self) -> str:
        """The reason, or what has to be known of a space that is pruned."""
        if self.reason is None and self.space.inexact:
            return f"inexact: {self.space.inexact}"
        return self.reason or ""


@dataclasses.dataclass(frozen=True, eq=False)
class Plan(Rendered):
    """Which units of a model go, and how their consumers make up for it.

    `plan.render()` shows it, `plan.apply()` builds the smaller model.

    Attributes:
        graph: the traced model.
        decisions: one for every space that some layer writes.
        keep, absorb: the options of `plan`.
    """

    graph: ChannelGraph
    decisions: tuple[Decision, ...]
    keep: str
    absorb: str

    @property
    def removed(self) -> np.ndarray:
        """Whether each group of channels goes, a bool array."""
        gone = np.zeros(self.graph.group.max(initial=-1) + 1, bool)
        for decision in self.decisions:
            gone[decision.space.groups[decision.selection.removed]] = True
        return gone

    @property
    def parameters(self) -> tuple[int, int]:
        """Parameters of the model before and after."""
        before = self.graph.model.count_params()
        variables = {
            id(a.variable): a.variable
            for a in self.graph.axes
            if not isinstance(a.variable, Constant)
        }
        size_of = self._size_after()
        saved = sum(math.prod(v.shape) - size_of(v) for v in variables.values())
        return before, before - saved

    @property
    def flops(self) -> tuple[int | None, int | None]:
        """Multiply-adds before and after, None where sizes are open."""
        after = multiply_adds(
            self.graph, self._size_after(), self._counter_after()
        )
        return multiply_adds(self.graph), after

    def explain(self) -> Explanation:
        """What stays and why: frozen, or left out by the options.

        With the layers that hold it and its share of the parameters.
        """
        reasons = {space: space.frozen for space in self.graph.spaces}
        reasons |= {d.space: d.reason for d in self.decisions}
        return explain(self.graph, reasons)

    def _size_after(self):
        gone = self.removed
        kept = {}
        for axis in self.graph.axes:
            share = kept.setdefault(id(axis.variable), {})
            share[axis.axis] = int((~gone[axis.group]).sum())

        def size_of(variable):
            share = kept.get(id(variable), {})
            return math.prod(
                share.get(axis, size)
                for axis, size in enumerate(variable.shape)
            )

        return size_of

    def apply(self):
        """Build the smaller model; the one that was planned on is untouched.

        Returns:
            A new `keras.Model` of stock layers with the weights carried over.
            If the model was compiled, so is the new one, with the same
            arguments and a fresh optimizer.

        Raises:
            ValueError: a layer cannot be rebuilt from its config.
        """
        changes = absorbing.axis_changes(self.decisions)
        values = absorbing.new_values(
            self.graph, changes, self.keep, self.absorb
        )
        settings = self._settings()
        for axis in self.graph.axes:
            constant = axis.variable
            if isinstance(constant, Constant) and id(constant) in values:
                own = settings.setdefault(id(constant.owner), {})
                own[constant.path] = values[id(constant)]
        return rebuild(self.graph.model, settings, values)

    def _settings(self):
        """{id(owner): {path: count}} of the widths that change."""
        count_of = self._counter_after()
        settings = {}
        for width in self.graph.widths:
            counts = tuple(map(count_of, width.parts))
            changes = counts != tuple(map(len, width.parts))
            if width.whole is not None:
                changes |= count_of(width.whole) < len(width.whole)
            if changes:
                count = counts if isinstance(width.ids, list) else counts[0]
                settings.setdefault(id(width.owner), {})[width.path] = count
        return settings

    def _counter_after(self):
        """A function that counts which of an array of labels stay."""
        kept = ~self.removed[self.graph.group]
        return lambda ids: int(kept[ids].sum())

    def __str__(self):
        rows = [
            (
                decision.space.name,
                decision.tau,
                decision.space.size,
                decision.clusters if decision.tau else None,
                len(decision.selection.kept),
                len(decision.selection.removed),
                decision.remark,
            )
            for decision in self.decisions
        ]
        rows += [
            (name, *[None] * 5, reason) for name, reason in self.graph.untouched
        ]
        title = f"Plan for {self.graph.model.name!r}"
        header = ("written by", "tau", "n", "n_f", "kept", "removed", "remark")
        return render_table(title, header, rows) + self._summary()

    def _summary(self):
        lines = [_change("parameters", *self.parameters)]
        if self.flops[0] is not None:
            lines.append(_change("multiply-adds", *self.flops))
        return "\n".join(lines)


def _change(what, before, after):
    saved = 100 * (1 - after / before) if before else 0.0
    return f"{what}: {before:,} -> {after:,} ({saved:.1f} % less)"


def plan(
    model,
    tau: Tau,
    *,
    select: str = "clusters",
    linkage: str = "average",
    keep: str = "medoid",
    absorb: str = "merge",
    layers: Layers = None,
    skip: Layers = None,
    round_to: int = 1,
    min_units: int = 1,
    seed: int | None = None,
    allow_inexact: bool = False,
) -> Plan:
    """Decide which units of a model are redundant and can go.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        tau: the cosine similarity, in (0, 1], above which units count as
            redundant; 1 means parallel filters, up to float rounding. A
            number for all layers; a mapping from layer names or regular
            expressions to numbers, which leaves all other layers alone; or a
            callable that takes a layer and returns a number or None. Where
            several layers write the same channels (a residual stream), the
            largest of their thresholds counts, and one layer left out leaves
            the channels alone.
        select: "clusters" keeps one representative of each cluster of
            similar units. "random" keeps as many units, chosen at random.
        linkage: "average", "complete" or "single" (connected components).
        keep: the representative of a cluster: "medoid" (most similar to the
            others), "largest" (norm), "random", or "mean" (a new unit).
        absorb: "merge": what reads a removed unit reads its representative
            instead, scaled by the ratio of the two units' strengths where
            the path between allows it. "drop": it loses those inputs.
        layers: prune these layers only: a name, a regular expression, a list
            of them, or a callable that takes a layer and returns a bool.
        skip: leave these layers alone, given in the same ways.
        round_to: round the number of kept units up to a multiple of this.
        min_units: keep at least this many units of each space.
        seed: for the random choices of `select` and `keep`.
        allow_inexact: prune channels too that pass through something computed
            over all of them, such as a LayerNormalization or a softmax. Even
            an exact copy cannot go from there without a change of what the
            model computes.

    Returns:
        A `Plan`, which can be printed and applied.

    Raises:
        TypeError: the model has no graph to follow, or `tau`, `layers` or
            `skip` is of a wrong type.
        ValueError: the model is not built, has quantized or LoRA-enabled
            layers, weights that are NaN, or a layer that cannot be rebuilt;
            or an option is out of range, unknown or does not fit another.

    Source: similarity, clusters and selection: Ayinde, Inanc and Zurada,
    Redundant Feature Pruning for Accelerated Inference in Deep Neural
    Networks (2018). Merging: RoyChowdhury, Sharma and Learned-Miller,
    Reducing Duplicate Filters in Deep Neural Networks (2017).
    """
    _check_options(select, linkage, keep, absorb, round_to, min_units, seed)
    graph = trace(model, allow_inexact=allow_inexact)
    spaces = [space for space in graph.spaces if space.producers]
    taus, reasons = _thresholds(spaces, tau, layers, skip)
    require_rebuildable(model)
    require_finite_carriers(
        space
        for space, reason in zip(spaces, reasons, strict=True)
        if reason is None
    )

    def decide(number):
        space = spaces[number]
        if reasons[number] is not None:
            return _left_alone(space, reasons[number])
        units = compare(space, taus[number], linkage)
        clusters = len(np.unique(units.labels))
        width = _width(clusters, space.size, round_to, min_units)
        rng = np.random.default_rng(None if seed is None else [seed, number])
        chosen = SELECTORS[select](units, width, keep, rng)
        return Decision(space, taus[number], clusters, chosen, None)

    decisions = tuple(decide(number) for number in range(len(spaces)))
    return Plan(graph, decisions, keep, absorb)


def prune(model, tau: Tau, **options):
    """Remove the redundant units of a model: `plan(...).apply()`.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        tau: the cosine similarity above which units count as redundant.
        **options: those of `plan`.

    Returns:
        A new, smaller `keras.Model` of stock layers. `save` it, and
        `keras.models.load_model` opens it where this package is absent.

    Raises:
        TypeError, ValueError: as `plan` and `Plan.apply`.

    Example:

        small = keras_redundancy.prune(model, tau=0.9)
        small.save("small.keras")
    """
    return plan(model, tau, **options).apply()


# So that help(prune) and editors list the options.
prune.__signature__ = inspect.signature(plan).replace(return_annotation=object)


def _check_options(select, linkage, keep, absorb, round_to, min_units, seed):
    check_option("select", select, SELECTORS)
    check_option("linkage", linkage, LINKAGES)
    check_option("keep", keep, REPRESENTATIVES)
    check_option("absorb", absorb, ABSORBERS)
    check_count("round_to", round_to)
    check_count("min_units", min_units)
    check_seed(seed)
    if keep == "mean" and absorb == "drop":
        raise ValueError(
            "keep='mean' does not go with absorb='drop': the mean stands for "
            "all units of its cluster, but dropping leaves the consumers with "
            "the inputs of one. Use absorb='merge', or keep='medoid'."
        )
    if keep == "mean" and select == "random":
        raise ValueError(
            "keep='mean' does not go with select='random', which keeps units "
            "as they are. Use select='clusters', or another keep."
        )


def _thresholds(spaces, tau, layers, skip):
    """Threshold and reason of every space: one of the two is None."""
    producers = {id(p): p for space in spaces for p in space.producers}
    producers = list(producers.values())
    by_layer = taus_by_layer(tau, producers)
    chosen = set(by_layer)
    if layers is not None:
        chosen = selected_layers(layers, producers, "layers")
    chosen -= selected_layers(skip, producers, "skip")
    taus, reasons = [], []
    for space in spaces:
        out = [
            layer.name
            for layer in space.producers
            if id(layer) not in chosen or by_layer[id(layer)] is None
        ]
        reason = space.frozen
        if out and reason is None:
            everything = len(out) == len(space.producers)
            words = LEFT_OUT if everything else COUPLED
            reason = words.format(names=", ".join(out[:3]))
        reasons.append(reason)
        values = [by_layer[id(layer)] for layer in space.producers]
        taus.append(None if reason else max(values))
    return taus, reasons


def _left_alone(space, reason):
    everyone = np.arange(space.size)
    chosen = Selection(everyone, everyone)
    return Decision(space, None, space.size, chosen, reason)


def _width(clusters, size, round_to, min_units):
    wanted = max(clusters, min_units)
    return min(-(-wanted // round_to) * round_to, size)
