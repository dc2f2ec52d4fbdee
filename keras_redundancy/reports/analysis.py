"""Count the redundant units of every layer: `analyze(model, tau)`."""

from __future__ import annotations  # help() shows the names of types.

from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared import arguments
from keras_redundancy.building.stripping import stock
from keras_redundancy.channels import trace
from keras_redundancy.channels.units import (
    frozen_reasons,
    state_of,
    written_units,
)
from keras_redundancy.numbers import rank
from keras_redundancy.numbers.clustering import LINKAGES, check_tau
from keras_redundancy.numbers.similarity import similarity_summary
from keras_redundancy.reports.columns import (
    LayerReport,
    MeasuredLayer,
    own_columns,
)
from keras_redundancy.reports.records import Redundancy, Report


def analyze(
    model: keras.Model,
    tau: arguments.Level = 0.5,
    *,
    linkage: str = "average",
    columns: Mapping[str, Callable] | None = None,
) -> Report:
    """Measure how redundant the units of every layer are.

    Each layer is measured by itself: `n_f` is the number of clusters of its
    own filters. `plan(model, tau)` shows what `prune` would remove: it
    compares all layers whose units can only be removed together.

    The columns of the report, for a layer with n units whose filters have z
    weights each:

    - n, n_f, n_r: units, clusters of units, redundant units (n - n_f);
    - mean cos, max cos: the cosine similarity of two filters, over all pairs;
    - eff. rank, stable rank, 99 % rank: how many of min(z, n) directions the
      filters use: the exponential of the entropy of their singular values,
      the sum of squared singular values over the largest square, and how many
      singular values hold 99 % of that sum;
    - trace c. (trace complexity): the sum of singular values over sqrt(z n);
    - params, multiply-adds: of the layer, multiply-adds on one sample;
    - state: "prunable", or why the units have to stay.

    Args:
        model: a built `keras.Model`, as for `plan`.
        tau: the cosine similarity in (0, 1] above which units count as
            redundant: a number, a mapping from layer names or regular
            expressions, or a callable, as for `plan`.
        linkage: "average", "complete" or "single".
        columns: further columns of the report, {heading: function}. The
            function takes a `MeasuredLayer`, whose `filters` is the kernel
            as a matrix of shape (z, n), and returns a number, a string or
            None, such as

                columns={"largest": lambda layer: abs(layer.filters).max()}

    Returns:
        A `Report`: `render()` prints it, `to_dict()` is for programs.

    Raises:
        TypeError, ValueError: as `plan`; or `columns` is no such mapping, or
            names a column that every report has.

    Source: n_f and n_r: Ayinde, Inanc and Zurada, On Correlation of Features
    Extracted by Deep Neural Networks (2019). Rank measures: see
    `keras_redundancy.numbers.rank`.
    """
    return reports(model, [tau], linkage, columns)[0]


def redundancy(
    model: keras.Model,
    taus: Iterable[float] = (0.3, 0.5, 0.7, 0.9),
    *,
    linkage: str = "average",
) -> Redundancy:
    """Count the redundant units of every layer at several thresholds.

    Args:
        model: a built `keras.Model`, as for `plan`.
        taus: cosine similarities in (0, 1] above which units count as
            redundant.
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


def check_taus(taus: Iterable[float], where: str = "taus") -> tuple[float, ...]:
    """The thresholds in ascending order, each of them once.

    Args:
        taus: numbers, or one.
        where: the argument's name, for messages.

    Raises:
        TypeError, ValueError: there is none, or one is not in (0, 1].
    """
    found = arguments.several(where, taus)
    return tuple(sorted({check_tau(x, where) for x in found}))


def reports(
    model,
    taus: Sequence[arguments.Level],
    linkage: str = "average",
    columns: Mapping[str, Callable] | None = None,
) -> list[Report]:
    """A report for each of several tau; the model is traced only once.

    Args and errors: as for `analyze`.
    """
    arguments.check_option("linkage", linkage, LINKAGES)
    own = own_columns(columns)
    graph = trace(stock(model))
    written = written_units(graph)
    layers = [units.layer for units in written]
    around = _keras.models_around(graph.model)
    levels = [
        arguments.levels_by_layer(tau, layers, "tau", check_tau, around)
        for tau in taus
    ]
    measured = _measured(graph, written, linkage)
    totals = graph.model.count_params(), graph.multiply_adds()
    filters = tuple(x.filters for x in measured)
    found = []
    for level in levels:
        rows = (x.at(level[id(x.units.layer)]) for x in measured)
        rows = tuple(LayerReport.of(row, own) for row in rows)
        found.append(Report(model.name, linkage, rows, *totals, filters))
    return found


def _measured(graph, written, linkage):
    """A `MeasuredLayer` for every row of a report, without a tau."""
    reasons, seen, measured = frozen_reasons(graph), set(), []
    for units in written:
        layer = units.layer
        filters = np.array(units.filters())
        is_first = id(layer) not in seen
        seen.add(id(layer))
        measured.append(
            MeasuredLayer(
                units=units,
                filters=filters,
                similarity=similarity_summary(filters),
                singular_values=rank.singular_values(filters),
                parameters=layer.count_params() if is_first else None,
                multiply_adds=(
                    graph.multiply_adds(layer) if is_first else None
                ),
                state=state_of(units, reasons),
                linkage=linkage,
            )
        )
    return measured
