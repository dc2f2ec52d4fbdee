"""Count the redundant units of every layer: `analyze(model, tau)`."""

import dataclasses
import math

import numpy as np

from keras_redundancy import rank
from keras_redundancy.channels import Role, Space, SpaceAxis, trace
from keras_redundancy.channels.spaces import kernel_names
from keras_redundancy.clustering import LINKAGES, check_tau, cluster_filters
from keras_redundancy.flops import multiply_adds
from keras_redundancy.options import (
    Level,
    check_option,
    levels_by_layer,
)
from keras_redundancy.pruning.filters import (
    finite_kernel_matrix,
    joined_filters,
)
from keras_redundancy.similarity import similarity_summary
from keras_redundancy.tables import Rendered, render_table

COLUMNS = {
    "title": "layer",
    "n": "n",
    "n_f": "n_f",
    "n_r": "n_r",
    "mean_similarity": "mean cos",
    "max_similarity": "max cos",
    "effective_rank": "eff. rank",
    "stable_rank": "stable rank",
    "energy_rank": "99 % rank",
    "trace_complexity": "trace c.",
    "parameters": "params",
    "multiply_adds": "multiply-adds",
    "state": "state",
}


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """The redundancy of one layer's units.

    Attributes:
        layer, kind: the layer's name and class.
        part: the names of the kernels, where the layer writes units of
            several kinds, such as the heads and the outputs of an attention.
            Each has a row of its own then.
        tau: the similarity threshold, or None where the layer has none.
        n: units of the layer.
        n_f: clusters of units found at `tau`.
        n_r: redundant units, n - n_f.
        mean_similarity, max_similarity: over all pairs of the layer's
            filters, cosines; None for a single unit.
        effective_rank: exp of the entropy of the singular values.
        stable_rank: squared Frobenius norm over squared spectral norm.
        energy_rank: singular values that hold 99 % of the squared norm.
        trace_complexity: nuclear norm over sqrt(z n).
        parameters: the layer's own weights; None but in its first row.
        multiply_adds: on one sample; None where the input size is open, and
            but in the layer's first row.
        state: "prunable", or why the units have to stay.
    """

    layer: str
    part: str | None
    kind: str
    tau: float | None
    n: int
    n_f: int | None
    n_r: int | None
    mean_similarity: float | None
    max_similarity: float | None
    effective_rank: float
    stable_rank: float
    energy_rank: int
    trace_complexity: float
    parameters: int | None
    multiply_adds: int | None
    state: str

    @property
    def title(self) -> str:
        """The layer's name, with the part that the row is about."""
        return f"{self.layer} ({self.part})" if self.part else self.layer


@dataclasses.dataclass(frozen=True)
class Report(Rendered):
    """The layers of a model and their redundancy.

    Attributes:
        model: the model's name.
        linkage: how units were clustered.
        layers: a `LayerReport` for every layer with a rule and a kernel.
        parameters, multiply_adds: of the whole model.
    """

    model: str
    linkage: str
    layers: tuple[LayerReport, ...]
    parameters: int
    multiply_adds: int | None

    @property
    def n_r(self) -> int:
        """Redundant units of the model."""
        return sum(layer.n_r or 0 for layer in self.layers)

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts."""
        return dataclasses.asdict(self) | {"n_r": self.n_r}

    def __str__(self):
        rows = [
            [getattr(layer, name) for name in COLUMNS] for layer in self.layers
        ]
        taus = sorted({layer.tau for layer in self.layers if layer.tau})
        shown = ", ".join(f"{tau:g}" for tau in taus[:4])
        title = (
            f"Redundancy of {self.model!r} at tau = {shown} "
            f"({self.linkage} linkage)"
        )
        units = sum(layer.n for layer in self.layers)
        lines = [f"{self.n_r:,} of {units:,} units are redundant"]
        lines.append(f"{self.parameters:,} parameters")
        if self.multiply_adds is not None:
            lines.append(f"{self.multiply_adds:,} multiply-adds per sample")
        table = render_table(title, list(COLUMNS.values()), rows)
        return table + "; ".join(lines)


def analyze(model, tau: Level = 0.5, *, linkage: str = "average") -> Report:
    """Measure how redundant the units of every layer are.

    Each layer is looked at by itself: `n_f` is the number of clusters of its
    own filters. What `prune` would remove, with all that the graph ties
    together, is shown by `plan(model, tau)`.

    Args:
        model: a built functional or Sequential `keras.Model`.
        tau: the cosine similarity in (0, 1] above which units count as
            redundant: a number, a mapping from layer names or regular
            expressions, or a callable, as for `plan`.
        linkage: "average", "complete" or "single".

    Returns:
        A `Report`: `render()` prints it, `to_dict()` is for programs.

    Raises:
        TypeError, ValueError: as `plan`.

    Source: n_f and n_r: Ayinde, Inanc and Zurada, On Correlation of Features
    Extracted by Deep Neural Networks (2019). Rank measures: see `rank`.
    """
    check_option("linkage", linkage, LINKAGES)
    graph = trace(model)
    written = _written_units(graph)
    taus = levels_by_layer(
        tau, [units.layer for units in written], "tau", check_tau
    )
    states, seen, rows = _states(graph), set(), []
    for units in written:
        key = id(units.layer)
        first = key not in seen
        seen.add(key)
        rows.append(
            _layer_report(graph, units, taus[key], linkage, states, first)
        )
    return Report(
        model.name,
        linkage,
        tuple(rows),
        model.count_params(),
        multiply_adds(graph),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Units:
    """Units that a layer writes with one kernel, or with several.

    Attributes:
        layer: the layer.
        places: a `SpaceAxis` for every kernel; row u of its positions is
            where unit u sits.
        part: the kernels' names where the layer writes other units too.
    """

    layer: object
    places: tuple[SpaceAxis, ...]
    part: str | None = None

    @property
    def groups(self) -> np.ndarray:
        """The group of every unit, shape (units,)."""
        place = self.places[0]
        return place.on.group[place.positions[:, 0]]

    def filters(self) -> np.ndarray:
        """Shape (z, n), one column per unit; of several kernels joined."""
        if len(self.places) == 1:
            return finite_kernel_matrix(self.places[0].on)
        return joined_filters(Space(self.groups, self.places, None, None))[0]


def _written_units(graph) -> list[_Units]:
    """What every layer writes, in graph order.

    Kernels of one layer that write one space of units, such as the two of an
    LSTM, or those for queries, keys and values, belong together: a unit is
    what they write of it, an LSTM's with all its gates. A kernel that is
    alone has a unit for every filter.
    """
    together = {}
    for space in graph.spaces:
        for place in space.axes_of(Role.PRODUCER):
            whole = place.positions.size == len(place.on.group)
            key = id(place.on.layer), id(space if whole else place.on)
            together.setdefault(key, []).append(place)
    written = {}
    for places in together.values():
        if len({id(place.on) for place in places}) < len(places):
            places = places[:1]
        if len(places) == 1:
            everything = np.arange(len(places[0].on.group))[:, None]
            places = [SpaceAxis(places[0].on, everything)]
        layer = places[0].on.layer
        written.setdefault(id(layer), []).append(_Units(layer, tuple(places)))
    names = kernel_names(graph.axes)
    units = [
        dataclasses.replace(units, part=_part(units, names))
        if len(of_one) > 1
        else units
        for of_one in written.values()
        for units in of_one
    ]
    return sorted(units, key=lambda u: min(p.on.ids[0, 0] for p in u.places))


def _part(units, names):
    own = names[id(units.layer)]
    return ", ".join(own[id(place.on)] for place in units.places)


def _states(graph):
    """For every group of channels the reason it is frozen, or None."""
    states = {}
    for space in graph.spaces:
        states.update(dict.fromkeys(space.groups.tolist(), space.frozen))
    return states


def _state(units, states):
    reasons = [states[group] for group in units.groups.tolist()]
    frozen = [reason for reason in reasons if reason]
    if not frozen:
        return "prunable"
    if len(frozen) < len(reasons):
        return f"{len(frozen)} units frozen: {frozen[0]}"
    return frozen[0]


def _layer_report(graph, units, tau, linkage, states, first):
    """`first`: whether it is the layer's first row, which has its totals."""
    layer = units.layer
    matrix = units.filters()
    mean, largest = similarity_summary(matrix)
    values = rank.singular_values(matrix)
    n, n_f = matrix.shape[1], None
    if tau is not None:
        n_f = len(np.unique(cluster_filters(matrix, tau, linkage)))
    parameters = sum(math.prod(v.shape) for v in layer.weights)
    return LayerReport(
        layer=layer.name,
        part=units.part,
        kind=type(layer).__name__,
        tau=tau,
        n=n,
        n_f=n_f,
        n_r=None if n_f is None else n - n_f,
        mean_similarity=mean,
        max_similarity=largest,
        effective_rank=rank.effective_rank(values),
        stable_rank=rank.stable_rank(values),
        energy_rank=rank.energy_rank(values),
        trace_complexity=rank.trace_complexity(values, matrix.shape),
        parameters=parameters if first else None,
        multiply_adds=multiply_adds(graph, layer=layer) if first else None,
        state=_state(units, states),
    )
