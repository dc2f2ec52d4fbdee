"""Compare the sizes of two models, layer by layer: `difference`."""

from __future__ import annotations  # help() shows the names of types.

import dataclasses

import keras

from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.building.stripping import stock
from keras_redundancy.channels import trace
from keras_redundancy.channels.units import distinct, written_units


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a layer or a model.

    Attributes:
        units: the number of units of all kernels.
        parameters: the number of all weights.
        multiply_adds: on one sample; None where the input size is open.
    """

    units: int
    parameters: int
    multiply_adds: int | None


@dataclasses.dataclass(frozen=True)
class Difference(Rendered):
    """The sizes of two models, layer by layer.

    Attributes:
        names: the names of the models.
        layers: {name of a layer: (before, after)}, `Sizes` or None where a
            model has no such layer.
        total: (before, after), the `Sizes` of the models.
    """

    names: tuple[str, str]
    layers: dict[str, tuple[Sizes | None, Sizes | None]]
    total: tuple[Sizes, Sizes]

    def __repr__(self):
        before, after = (f"{x.parameters:,}" for x in self.total)
        return (
            f"<Difference of {self.names[0]!r} and {self.names[1]!r}: "
            f"{len(self.layers)} layers, {before} -> {after} parameters>"
        )

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts."""
        return dataclasses.asdict(self)

    def table(self) -> Table:
        header = ["layer", "units", "after", "params", "after"]
        header += ["multiply-adds", "after"]
        pairs = {**self.layers, "the model": self.total}
        rows = [[name, *_cells(*pair)] for name, pair in pairs.items()]
        before, after = self.names
        return Table(f"{before!r} and after it {after!r}", header, rows)


def difference(before: keras.Model, after: keras.Model) -> Difference:
    """Compare two models, such as a model and what `prune` made of it.

    Layers with the same name are compared. Training layers, such as
    `FactorizedDense`, count as the stock layers that `strip` makes of them.

    Args:
        before, after: built `keras.Model`s, as for `plan`.

    Returns:
        A `Difference`: `render()` prints it, `to_dict()` is for programs.

    Raises:
        TypeError: a model has no graph to follow.
        ValueError: one is not built.
    """
    sizes = [_sizes(model) for model in (before, after)]
    names = dict.fromkeys(name for of_model, _ in sizes for name in of_model)
    layers = {
        name: tuple(of_model.get(name) for of_model, _ in sizes)
        for name in names
    }
    total = tuple(of_model for _, of_model in sizes)
    return Difference((before.name, after.name), layers, total)


def _sizes(model):
    """({name: `Sizes`} of the layers with units, `Sizes` of the model)."""
    graph = trace(stock(model))
    units, names = {}, {}
    for written in written_units(graph):
        units.setdefault(written.layer, []).append(len(written.groups))
        names[written.layer] = written.name
    sizes = [
        Sizes(sum(counts), layer.count_params(), graph.multiply_adds(layer))
        for layer, counts in units.items()
    ]
    layers = dict(zip(distinct(names.values()), sizes, strict=True))
    total = Sizes(
        sum(x.units for x in layers.values()),
        graph.model.count_params(),
        graph.multiply_adds(),
    )
    return layers, total


def _cells(before, after):
    fields = [field.name for field in dataclasses.fields(Sizes)]
    return [
        None if sizes is None else getattr(sizes, field)
        for field in fields
        for sizes in (before, after)
    ]
