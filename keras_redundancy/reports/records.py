"""Reports as records: what `analyze` and `redundancy` return."""

import csv
import dataclasses
import json

import numpy as np

from keras_redundancy._shared.files import replaced
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.channels.units import distinct
from keras_redundancy.reports.columns import LayerReport
from keras_redundancy.reports.page import write_page


@dataclasses.dataclass(frozen=True)
class Report(Rendered):
    """The layers of a model and their redundancy.

    Attributes:
        model: the model's name.
        linkage: how units were clustered.
        layers: a `LayerReport` for every layer with a rule and a kernel.
        parameters, multiply_adds: of the whole model; multiply-adds on one
            sample, None where the input size is open.
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
        """One line about the whole model."""
        units = sum(layer.n for layer in self.layers)
        parts = [f"{self.n_r:,} of {units:,} units are redundant"]
        parts.append(f"{self.parameters:,} parameters")
        if self.multiply_adds is not None:
            parts.append(f"{self.multiply_adds:,} multiply-adds per sample")
        return "; ".join(parts)

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts."""
        return {
            "model": self.model,
            "linkage": self.linkage,
            "layers": [layer.to_dict() for layer in self.layers],
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "n_r": self.n_r,
        }

    def to_json(self, path) -> None:
        """Write `to_dict()` to a JSON file. An existing file is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        with replaced(path) as fresh:
            fresh.write_text(json.dumps(self.to_dict(), indent=1))

    def to_csv(self, path) -> None:
        """Write a CSV file: the names of the columns, a line for each layer.

        An existing file is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        rows = [layer.to_dict() for layer in self.layers]
        names = dict.fromkeys(name for row in rows for name in row)
        with replaced(path) as fresh, fresh.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    def to_html(self, path, *, sensitivity=None, difference=None) -> None:
        """Write an HTML page with tables and pictures, in a single file.

        Args:
            path: the file; an existing one is replaced.
            sensitivity: what `kr.sensitivity` returned, to draw its curves.
            difference: what `kr.difference` returned, to draw the widths
                before and after.

        Raises:
            OSError: the file cannot be written.
        """
        write_page(path, self, sensitivity, difference)

    def table(self) -> Table:
        rows = [layer.cells() for layer in self.layers]
        taus = sorted({layer.tau for layer in self.layers if layer.tau})
        shown = ", ".join(f"{tau:g}" for tau in taus[:4])
        title = (
            f"Redundancy of {self.model!r} at tau = {shown} "
            f"({self.linkage} linkage)"
        )
        header = list(rows[0]) if rows else ["layer", "n", "n_f", "n_r"]
        return Table(
            title, header, [list(row.values()) for row in rows], self.summary
        )


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
        """For each tau the share n_r / n, averaged over the layers."""
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
