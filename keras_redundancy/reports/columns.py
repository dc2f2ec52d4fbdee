"""The columns of a report: each is a figure of a layer's units.

To add a column, add a line to `LayerReport`: its type, its heading in tables
(None to leave it out of them) and a function of a `MeasuredLayer`. It is then
in `to_dict()`, in tables, pages and files. `kr.analyze(model, columns=...)`
takes columns for one report, without a change here.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from numbers import Real

import numpy as np

from keras_redundancy.channels.units import Units
from keras_redundancy.numbers import rank
from keras_redundancy.numbers.clustering import cluster_filters

Figure = str | int | float | None


@dataclasses.dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """The units of a layer, as the functions of the columns see them.

    Attributes:
        units: the layer, and its kernels.
        filters: shape (z, n), a unit's weights in each column.
        similarity: mean and largest cosine of two different filters; both
            None for a single unit.
        singular_values: of `filters`, descending, shape (min(z, n),).
        parameters, multiply_adds: of the whole layer; None in all rows of the
            layer but the first, so that a column can be summed.
        state: "prunable", or why the units have to stay.
        linkage: how units are clustered.
        tau: the similarity threshold, or None where the layer has none.
    """

    units: Units
    filters: np.ndarray
    similarity: tuple[float | None, float | None]
    singular_values: np.ndarray
    parameters: int | None
    multiply_adds: int | None
    state: str
    linkage: str
    tau: float | None = None

    def at(self, tau: float | None) -> "MeasuredLayer":
        """The same units with another threshold."""
        return dataclasses.replace(self, tau=tau)

    @property
    def n(self) -> int:
        """How many units there are."""
        return self.filters.shape[1]

    @functools.cached_property
    def n_f(self) -> int | None:
        """How many clusters of units there are at `tau`."""
        if self.tau is None:
            return None
        return len(
            np.unique(cluster_filters(self.filters, self.tau, self.linkage))
        )


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure of every layer of a report.

    Attributes:
        name: the field of `LayerReport` and the key in `to_dict()`.
        header: the heading in tables; None for a column that they leave out.
        function: takes a `MeasuredLayer`, returns the figure.
    """

    name: str
    header: str | None
    function: Callable[[MeasuredLayer], Figure]


def column(header: str | None, function: Callable[[MeasuredLayer], Figure]):
    """A field of `LayerReport`: see `Column`."""
    return dataclasses.field(metadata={"header": header, "function": function})


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerReport:
    """The redundancy of one layer's units.

    Attributes:
        layer, kind: the layer's name and class.
        part: the names of the kernels, where the layer writes units of
            several kinds, such as the heads and the outputs of an attention;
            the layer then has a row for each kind.
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
        parameters: weights of the whole layer; None in all rows of the layer
            but the first.
        multiply_adds: of the layer, on one sample; None where the input size
            is open, and in all rows of the layer but the first.
        state: "prunable", or why the units have to stay.
        own: {heading: figure} of the columns that `analyze` was given.
    """

    layer: str = column(None, lambda x: x.units.name)
    part: str | None = column(None, lambda x: x.units.part)
    kind: str = column(None, lambda x: type(x.units.layer).__name__)
    tau: float | None = column(None, lambda x: x.tau)
    n: int = column("n", lambda x: x.n)
    n_f: int | None = column("n_f", lambda x: x.n_f)
    n_r: int | None = column(
        "n_r", lambda x: None if x.n_f is None else x.n - x.n_f
    )
    mean_similarity: float | None = column(
        "mean cos", lambda x: x.similarity[0]
    )
    max_similarity: float | None = column("max cos", lambda x: x.similarity[1])
    effective_rank: float = column(
        "eff. rank", lambda x: rank.effective_rank(x.singular_values)
    )
    stable_rank: float = column(
        "stable rank", lambda x: rank.stable_rank(x.singular_values)
    )
    energy_rank: int = column(
        "99 % rank", lambda x: rank.energy_rank(x.singular_values)
    )
    trace_complexity: float = column(
        "trace c.",
        lambda x: rank.trace_complexity(x.singular_values, x.filters.shape),
    )
    parameters: int | None = column("params", lambda x: x.parameters)
    multiply_adds: int | None = column(
        "multiply-adds", lambda x: x.multiply_adds
    )
    state: str = column("state", lambda x: x.state)
    own: dict[str, Figure] = dataclasses.field(default_factory=dict, hash=False)

    @classmethod
    def columns(cls) -> tuple[Column, ...]:
        """The columns that every report has, in their order in tables."""
        return tuple(
            Column(field.name, **field.metadata)
            for field in dataclasses.fields(cls)
            if field.metadata
        )

    @classmethod
    def of(cls, measured: MeasuredLayer, own: tuple[Column, ...] = ()):
        """The row of a layer, with the columns `own` beside the standard ones.

        Raises:
            TypeError: a function of `own` returned no figure.
        """
        figures = {c.name: c.function(measured) for c in cls.columns()}
        return cls(**figures, own={c.name: _figure(c, measured) for c in own})

    @property
    def title(self) -> str:
        """The layer's name, with the part that the row is about."""
        return f"{self.layer} ({self.part})" if self.part else self.layer

    def to_dict(self) -> dict[str, Figure]:
        """All figures by the names of their columns."""
        return {
            c.name: getattr(self, c.name) for c in self.columns()
        } | self.own

    def cells(self) -> dict[str, Figure]:
        """{heading: figure} of a row of a table; the state is the last one."""
        shown = {
            c.header: getattr(self, c.name) for c in self.columns() if c.header
        }
        state = {"state": shown.pop("state")}
        return {"layer": self.title} | shown | self.own | state


def own_columns(functions: Mapping[str, Callable] | None) -> tuple[Column, ...]:
    """The columns that `analyze` was given: {heading: function}.

    Raises:
        TypeError: it is no mapping of strings to functions.
        ValueError: a heading is that of a standard column.
    """
    if functions is None:
        return ()
    if not isinstance(functions, Mapping) or not all(
        isinstance(name, str) and callable(function)
        for name, function in functions.items()
    ):
        raise TypeError(
            "columns must be a mapping from headings to functions of a "
            f"MeasuredLayer, but received {functions!r}. Pass, for example, "
            "{'largest weight': lambda layer: abs(layer.filters).max()}."
        )
    taken = {"layer"} | {
        x for c in LayerReport.columns() for x in (c.name, c.header)
    }
    for name in functions:
        if name in taken:
            raise ValueError(
                f"columns has {name!r}, which every report has. Choose "
                "another heading."
            )
    return tuple(Column(k, k, function) for k, function in functions.items())


def _figure(column, measured) -> Figure:
    found = column.function(measured)
    if isinstance(found, np.generic) or (
        isinstance(found, np.ndarray) and found.ndim == 0
    ):
        found = found.item()
    if found is not None and not isinstance(found, str | Real):
        raise TypeError(
            f"The column {column.name!r} returned {type(found).__name__} for "
            f"the layer {measured.units.name!r}. Return one number, a "
            "string or None."
        )
    return found
