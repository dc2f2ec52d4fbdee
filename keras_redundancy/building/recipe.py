"""The recipe of a new model: what differs from the model it is made like."""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_redundancy import _keras
from keras_redundancy.building import stock
from keras_redundancy.building.faults import words_of


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayerRecipe:
    """How a layer, or another operation of a graph, is made anew.

    Attributes:
        layer: the layer of the old model.
        form: the `LayerForm` of the new one; None for the layer's own class
            or, in the recipe of a stock model, for its stock form.
        settings: {path: value}: entries of its config that change, such as
            {("units",): 7}.
        values: (variable, value) for each of its variables that changes: an
            array, or a function that returns one when it is needed.
    """

    layer: Any
    form: stock.LayerForm | None = None
    settings: Mapping[tuple, Any] = dataclasses.field(default_factory=dict)
    values: tuple[tuple, ...] = ()

    def __repr__(self):
        parts = [f"{type(self.layer).__name__} {self.layer.name!r}"]
        if self.form is not None and self.form.takes_place_of(self.layer):
            parts.append(f"becomes {self.form}")
        parts += [f"{words_of(self.settings)}"] if self.settings else []
        parts += [f"{len(self.values)} variables"] if self.values else []
        return f"<LayerRecipe: {', '.join(parts)}>"

    @property
    def is_changed(self) -> bool:
        is_other = self.form.changes(self.layer)
        return bool(is_other or self.settings or self.values)


@dataclasses.dataclass(frozen=True, eq=False)
class CallRecipe:
    """What changes about one call in a graph.

    Attributes:
        node: the node that records the call.
        arguments: {path: value}: its arguments that change, such as
            {("args", 1, 3, "stop"): 7}.
    """

    node: Any
    arguments: Mapping[tuple, Any]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Recipe:
    """How a new model is made like an old one: see `Recipe.of`, `rebuild`.

    Attributes:
        model: the old model, which is not changed.
        layers: the `LayerRecipe` of each layer and operation, in the order of
            the graph: what is inside of a model or wrapper comes before it.
        calls: the calls that change.
    """

    model: Any
    layers: tuple[LayerRecipe, ...]
    calls: tuple[CallRecipe, ...] = ()

    def __post_init__(self):
        # Keras's variables, and layers of users, need not be hashable.
        index = {
            "_layers": {id(x.layer): x for x in self.layers},
            "_calls": {id(x.node): x.arguments for x in self.calls},
            "_values": {
                id(variable): value
                for x in self.layers
                for variable, value in x.values
            },
        }
        for name, entries in index.items():
            object.__setattr__(self, name, entries)

    @classmethod
    def of(
        cls,
        model,
        changes: Iterable[LayerRecipe] = (),
        calls: Iterable[CallRecipe] = (),
        is_stock: bool = False,
    ) -> "Recipe":
        """The recipe of a copy of `model`, but for some changes.

        Args:
            model: a functional or Sequential model.
            changes: the `LayerRecipe`s of layers that change.
            calls: the calls that change.
            is_stock: whether layers for training become stock layers.

        Raises:
            ValueError: a change is of a layer that is not in the graph.
        """
        changed = {id(x.layer): x for x in changes}
        layers = [
            _completed(changed.pop(id(x), None) or LayerRecipe(x), is_stock)
            for x in operations(model)
        ]
        known = {id(x.layer) for x in layers}
        left = [x.layer for x in changed.values()]
        left += [x.node.operation for x in calls]
        for operation in left:
            if id(operation) not in known:
                raise ValueError(
                    f"{operation.name!r} is not in the graph of "
                    f"{model.name!r}, or is made by a layer around it, so it "
                    "cannot be changed by itself."
                )
        return cls(model, tuple(layers), tuple(calls))

    def __repr__(self):
        count = sum(x.is_changed for x in self.layers)
        return (
            f"<Recipe for {self.model.name!r}: {count} of {len(self.layers)} "
            f"layers and operations change, {len(self.calls)} calls>"
        )

    def __getitem__(self, layer) -> LayerRecipe:
        return self._layers[id(layer)]

    def with_layer(self, layer: LayerRecipe) -> "Recipe":
        """The same recipe, which is about one more layer."""
        return dataclasses.replace(self, layers=(*self.layers, layer))

    def of_part(self, model) -> "Recipe":
        """The recipe of a nested model by itself."""
        layers = tuple(self[x] for x in operations(model))
        nodes = [call.node for call in _keras.calls(_keras.graph_of(model))]
        calls = tuple(CallRecipe(x, self.arguments(x)) for x in nodes)
        return Recipe(model, layers, calls)

    def arguments(self, node) -> Mapping[tuple, Any]:
        """The arguments that change in the call that `node` records."""
        return self._calls.get(id(node), {})

    def value(self, variable):
        """What the counterpart of a variable of the old model holds."""
        return stock.value_of(self._values.get(id(variable), variable))


def _completed(recipe, is_stock):
    """With the form and the settings that a copy or a stock layer has."""
    layer, settings = recipe.layer, recipe.settings
    form = recipe.form
    if form is None:
        form = stock.stock_form(layer) if is_stock else stock.LayerForm(layer)
    if is_stock and is_configured(layer) and not form.is_left_out:
        with contextlib.suppress(Exception):  # Whatever its own code raises.
            own = stock.stock_settings(_keras.get_config(layer))
            settings = own | {**settings}
    return dataclasses.replace(recipe, form=form, settings=settings)


def is_configured(operation) -> bool:
    """Whether it is a layer that is made from its config."""
    return (
        isinstance(operation, keras.Layer)
        and type(operation) is not keras.layers.Lambda
        and not _keras.is_model(operation)
    )


def own_variables(layer) -> list:
    """The variables of a layer; of a wrapper, without those of the inner."""
    if not _keras.wraps_one_layer(layer):
        return layer.variables
    inner = {id(variable) for variable in layer.layer.variables}
    return [v for v in layer.variables if id(v) not in inner]


def operations(model) -> list:
    """All layers and operations that a recipe is about, `model` as the last.

    In the order of the graph, at any depth: what is inside of a model or a
    wrapper comes before it.
    """
    found = {}
    for operation in _keras.graph_of(model).operations:
        for x in _itself_and_inner(operation):
            found.setdefault(id(x), x)
    return [*found.values(), model]


def _itself_and_inner(operation):
    if _keras.is_model(operation):
        return operations(operation)
    if _keras.wraps_one_layer(operation):
        return [*_itself_and_inner(operation.layer), operation]
    return [operation]
