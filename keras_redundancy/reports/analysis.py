"""Count the redundant units of every layer: `analyze(model, tau)`."""

import csv
import dataclasses
import json
from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np

from keras_redundancy._shared.arguments import (
    Level,
    check_option,
    levels_by_layer,
)
from keras_redundancy._shared.files import replaced
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.build.stripping import stock
from keras_redundancy.channels import trace
from keras_redundancy.channels.products import multiply_adds
from keras_redundancy.channels.units import (
    distinct,
    frozen_reasons,
    state_of,
    written_units,
)
from keras_redundancy.numbers import rank
from keras_redundancy.numbers.clustering import (
    LINKAGES,
    check_tau,
    cluster_filters,
)
from keras_redundancy.numbers.similarity import similarity_summary
from keras_redundancy.reports.page import write_page

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
        filters: for each of `layers` a matrix with a filter in every column,
            shape (z, n). `to_dict()` leaves them out.
    """

    model: str
    linkage: str
    layers: tuple[LayerReport, ...]
    parameters: int
    multiply_adds: int | None
    filters: tuple = dataclasses.field(repr=False, compare=False)

    def __repr__(self):
        return f"<Report on {self.model!r}: {self.summary}>"

    @property
    def n_r(self) -> int:
        """Redundant units of the model."""
        return sum(layer.n_r or 0 for layer in self.layers)

    @property
    def by_title(self) -> dict[str, tuple[LayerReport, np.ndarray]]:
        """{title of a layer: (its report, its filters)}."""
        titles = distinct(layer.title for layer in self.layers)
        pairs = zip(self.layers, self.filters, strict=True)
        return dict(zip(titles, pairs, strict=True))

    @property
    def summary(self) -> str:
        """What is said of the whole model."""
        units = sum(layer.n for layer in self.layers)
        parts = [f"{self.n_r:,} of {units:,} units are redundant"]
        parts.append(f"{self.parameters:,} parameters")
        if self.multiply_adds is not None:
            parts.append(f"{self.multiply_adds:,} multiply-adds per sample")
        return "; ".join(parts)

    def to_json(self, path) -> None:
        """Write `to_dict()` to a file, which is replaced as a whole.

        Raises:
            OSError: it cannot be written there.
        """
        with replaced(path) as fresh:
            fresh.write_text(json.dumps(self.to_dict(), indent=1))

    def to_csv(self, path) -> None:
        """Write a line for each of `layers`, under the names of its fields.

        Raises:
            OSError: the file cannot be written there.
        """
        names = [field.name for field in dataclasses.fields(LayerReport)]
        with replaced(path) as fresh, fresh.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(map(dataclasses.asdict, self.layers))

    def to_html(self, path, *, sensitivity=None, difference=None) -> None:
        """Write a page with tables and pictures that needs no other file.

        Args:
            path: the file, which is replaced as a whole.
            sensitivity: what `kr.sensitivity` returned, to draw its curves.
            difference: what `kr.difference` returned, to draw the widths
                before and after.

        Raises:
            OSError: it cannot be written there.
        """
        write_page(path, self, COLUMNS, sensitivity, difference)

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts."""
        figures = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "filters"
        }
        layers = list(map(dataclasses.asdict, self.layers))
        return figures | {"layers": layers, "n_r": self.n_r}

    def table(self) -> Table:
        rows = [
            [getattr(layer, name) for name in COLUMNS] for layer in self.layers
        ]
        taus = sorted({layer.tau for layer in self.layers if layer.tau})
        shown = ", ".join(f"{tau:g}" for tau in taus[:4])
        title = (
            f"Redundancy of {self.model!r} at tau = {shown} "
            f"({self.linkage} linkage)"
        )
        return Table(title, list(COLUMNS.values()), rows, self.summary)


@dataclasses.dataclass(frozen=True)
class Redundancy(Rendered):
    """Redundant units by threshold.

    Attributes:
        reports: a `Report` for each tau, in ascending order.
    """

    reports: tuple[Report, ...]

    def __repr__(self):
        first, last = self.taus[0], self.taus[-1]
        return (
            f"<Redundancy of {self.reports[0].model!r} at {len(self.taus)} "
            f"thresholds, tau = {first:g} to {last:g}>"
        )

    @property
    def taus(self) -> tuple[float, ...]:
        """The thresholds."""
        return tuple(report.layers[0].tau for report in self.reports)

    def shares(self) -> list[float]:
        """For each tau n_r / n, the mean over the layers."""
        return [
            float(np.mean([layer.n_r / layer.n for layer in report.layers]))
            for report in self.reports
        ]

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts."""
        return {
            "taus": list(self.taus),
            "shares": self.shares(),
            "reports": [report.to_dict() for report in self.reports],
        }

    def table(self) -> Table:
        first = self.reports[0]
        header = ["layer", "n", *(f"n_r at {tau:g}" for tau in self.taus)]
        rows = [
            [layers[0].title, layers[0].n, *(layer.n_r for layer in layers)]
            for layers in zip(*(x.layers for x in self.reports), strict=True)
        ]
        units = sum(layer.n for layer in first.layers)
        rows.append(["all", units, *(x.n_r for x in self.reports)])
        shares = (f"{share:.1%}" for share in self.shares())
        rows.append(["mean share", None, *shares])
        title = f"Redundant units of {first.model!r} ({first.linkage} linkage)"
        return Table(title, header, rows)


def redundancy(
    model,
    taus: Iterable[float] = (0.3, 0.5, 0.7, 0.9),
    *,
    linkage: str = "average",
) -> Redundancy:
    """How many units are redundant, by the threshold that makes them so.

    Args:
        model: a built functional or Sequential `keras.Model`.
        taus: thresholds in (0, 1].
        linkage: "average", "complete" or "single".

    Returns:
        A `Redundancy`: `render()` prints it, `to_dict()` is for programs.

    Raises:
        TypeError, ValueError: as `analyze`; or `taus` is empty, or the model
            has no layer with units.

    Source: Ayinde, Inanc and Zurada, On Correlation of Features Extracted by
    Deep Neural Networks (2019), which averages n_r over layers.
    """
    found = reports(model, check_taus(taus), linkage)
    if not found[0].layers:
        raise ValueError(
            f"The model {model.name!r} has no layer with a kernel, so there "
            "are no units to compare."
        )
    return Redundancy(tuple(found))


def check_taus(taus: Iterable[float]) -> tuple[float, ...]:
    """Different thresholds, ascending.

    Raises:
        TypeError, ValueError: there is none, or one is not in (0, 1].
    """
    if isinstance(taus, Real):
        taus = [taus]
    if not isinstance(taus, Iterable) or isinstance(taus, str):
        raise TypeError(
            f"tau has to be a number or several, but received {taus!r}. Pass "
            "a list such as [0.5, 0.7, 0.9]."
        )
    found = sorted({check_tau(tau) for tau in taus})
    if not found:
        raise ValueError(
            "There is no tau to compare units at. Pass one or more numbers in "
            "(0, 1], such as [0.5, 0.7, 0.9]."
        )
    return tuple(found)


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
    return reports(model, [tau], linkage)[0]


def reports(
    model, taus: Sequence[Level], linkage: str = "average"
) -> list[Report]:
    """As `analyze`, for each of several tau: all else is measured once."""
    check_option("linkage", linkage, LINKAGES)
    graph = trace(stock(model))
    written = written_units(graph)
    layers = [units.layer for units in written]
    taus = [levels_by_layer(tau, layers, "tau", check_tau) for tau in taus]
    reasons, seen = frozen_reasons(graph), set()
    rows, filters = [[] for _ in taus], []
    for units in written:
        matrix = np.array(units.filters())
        filters.append(matrix)
        measured = _measured(graph, units, matrix, reasons)
        key = id(units.layer)
        if key in seen:
            measured["parameters"] = measured["multiply_adds"] = None
        seen.add(key)
        for of_tau, tau in zip(rows, taus, strict=True):
            found = _clustered(matrix, tau[key], linkage)
            of_tau.append(LayerReport(**measured, **found))
    totals = graph.model.count_params(), multiply_adds(graph)
    return [
        Report(model.name, linkage, tuple(of_tau), *totals, tuple(filters))
        for of_tau in rows
    ]


def _clustered(matrix, tau, linkage):
    if tau is None:
        return {"tau": None, "n_f": None, "n_r": None}
    n_f = len(np.unique(cluster_filters(matrix, tau, linkage)))
    return {"tau": tau, "n_f": n_f, "n_r": matrix.shape[1] - n_f}


def _measured(graph, units, matrix, reasons):
    """What a `LayerReport` holds of a layer, but for its clusters."""
    layer = units.layer
    mean, largest = similarity_summary(matrix)
    values = rank.singular_values(matrix)
    return {
        "layer": layer.name,
        "part": units.part,
        "kind": type(layer).__name__,
        "n": matrix.shape[1],
        "mean_similarity": mean,
        "max_similarity": largest,
        "effective_rank": rank.effective_rank(values),
        "stable_rank": rank.stable_rank(values),
        "energy_rank": rank.energy_rank(values),
        "trace_complexity": rank.trace_complexity(values, matrix.shape),
        "parameters": layer.count_params(),
        "multiply_adds": multiply_adds(graph, layer=layer),
        "state": state_of(units, reasons),
    }
