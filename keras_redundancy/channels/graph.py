"""The result of a trace: which channels live where, and go together."""

import dataclasses
import math

import numpy as np

from keras_redundancy._keras import flat_layers, models_around
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.channels.correspondence import colors
from keras_redundancy.channels.explanation import Explanation, explain
from keras_redundancy.channels.labels import Constant
from keras_redundancy.channels.reasons import Reason, code_of
from keras_redundancy.channels.spaces import Space, VariableAxis, find_spaces

ALLOWED = "{reason}; with allow_inexact=True it is pruned all the same"

SEVERAL_WIDTHS = Reason(
    "several_widths",
    "one setting divides these channels and those of another call, which has "
    "more or fewer: use a model or an operation of its own for each call",
)

READ_WHOLE = Reason(
    "read_whole",
    "another call of the layer reads its weights across positions, not "
    "across channels: use a layer of its own for each call",
)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGraph(Rendered):
    """The result of `trace(model)`; `render()` prints its spaces as a table.

    Attributes:
        model: the model that was traced.
        axes: a `VariableAxis` for each labelled axis of each variable.
        spaces: the spaces of the model, in graph order.
        widths: the settings that count channels.
        steps: how values are made from one another, in graph order.
        products: the `Product` of each call that reads a kernel.
        opaque: (operation, reason) of each operation that was not followed.
        group: group of every label, shape (labels,).
        color: color of every label, shape (labels,): labels of two groups
            correspond where they agree.
        tied: ids of the variables that other layers or operations than their
            own layer read too.
        chosen: what the `Recorder` was given as that.
        input_shapes: the shape of a sample of each input that `products` are
            counted for; None for the shapes of the model's inputs.
    """

    model: object
    axes: tuple[VariableAxis, ...]
    spaces: tuple[Space, ...]
    widths: tuple
    steps: tuple
    products: tuple
    opaque: tuple
    group: np.ndarray
    color: np.ndarray
    tied: frozenset = frozenset()
    chosen: dict = dataclasses.field(default_factory=dict)
    input_shapes: tuple | None = None

    @property
    def group_count(self) -> int:
        """The number of groups of channels."""
        return self.group.max(initial=-1) + 1

    @property
    def prunable(self) -> list[Space]:
        """The spaces that are not frozen."""
        return [space for space in self.spaces if not space.frozen]

    def parameters_of(self, *spaces: Space) -> int:
        """How many parameters would go if these spaces lost all units.

        A kernel between two spaces belongs to both: it counts once here, and
        once for each of them alone.
        """
        rest = {}
        for place in (place for space in spaces for place in space.axes):
            variable = place.on.variable
            if not isinstance(variable, Constant):
                _, share = rest.setdefault(id(variable), (variable, {}))
                left = share.setdefault(place.on.axis, len(place.on.group))
                share[place.on.axis] = left - place.positions.size
        total = 0
        for variable, left in rest.values():
            sizes = enumerate(variable.shape)
            kept = math.prod(left.get(axis, size) for axis, size in sizes)
            total += math.prod(variable.shape) - kept
        return total

    def multiply_adds(self, layer=None) -> int | None:
        """Multiply-adds on one sample, or those of one layer.

        None where a spatial size is open.
        """
        total = 0
        for product in self.products:
            if layer is None or product.layer is layer:
                if product.positions is None:
                    return None
                times = 1 if product.per is None else len(product.per)
                size = math.prod(product.kernel.shape)
                total += product.positions * times * size
        return total

    @property
    def untouched(self) -> list[tuple[str, str]]:
        """(name, reason) of layers with weights that were not followed.

        Layers inside of such layers are left out.
        """
        layers = {
            id(operation): (operation.name, reason)
            for operation, reason in self.opaque
            if getattr(operation, "weights", None)
        }
        for operation, _ in self.opaque:
            if id(operation) in layers:
                for inner in flat_layers(operation)[1:]:
                    layers.pop(id(inner), None)
        return list(layers.values())

    def __repr__(self):
        return (
            f"<ChannelGraph of {self.model.name!r}: {len(self.prunable)} of "
            f"{len(self.spaces)} spaces can be pruned>"
        )

    def explain(self) -> Explanation:
        """An `Explanation`: each frozen space, its layers and the reason."""
        return explain(self, {space: space.frozen for space in self.spaces})

    def table(self) -> Table:
        rows = [
            (space.name, space.size, space.frozen or "prunable")
            for space in self.spaces
            if space.producers
        ]
        rows += [(name, None, reason) for name, reason in self.untouched]
        title = f"Channels of {self.model.name!r}"
        return Table(title, ("written by", "units", "state"), rows)


def build_graph(model, recorder, allow_inexact: bool) -> ChannelGraph:
    """Solve the ties of a recorded trace and sort the groups into spaces."""
    store = recorder.store
    _freeze_opaque(recorder)
    if not allow_inexact:
        store.frozen += [
            (ids, Reason(code_of(reason), ALLOWED.format(reason=reason)))
            for ids, reason in store.inexact
        ]
    accesses = _calls_together(recorder.accesses, store)
    widths = _calls_together(recorder.widths, store)
    group = store.groups()
    color = colors(store, group)
    axes = tuple(_variable_axis(calls, group, color) for calls in accesses)
    cuts = [
        (group[ids], color[ids])
        for calls in widths
        if calls[0].divides
        for ids in calls[0].parts
    ]
    return ChannelGraph(
        model=model,
        axes=axes,
        spaces=find_spaces(axes, cuts, store, group, models_around(model)),
        widths=tuple(map(_one_width, widths)),
        steps=tuple(recorder.steps),
        products=tuple(recorder.products),
        opaque=tuple(recorder.opaque.values()),
        group=group,
        color=color,
        tied=frozenset(recorder.tied),
        chosen=recorder.chosen,
    )


def _freeze_opaque(recorder):
    """Freeze all channels of variables whose use is not known everywhere.

    These are the variables of layers that were not followed in some call, and
    variables that another layer reads in an unknown way, or that another call
    does not read by channels.
    """
    variables = {
        id(variable): reason
        for operation, reason in (
            *recorder.lent.values(),
            *recorder.opaque.values(),
        )
        for variable in getattr(operation, "weights", ())
    }
    read_whole = set()
    for access in recorder.accesses:
        if id(access.variable) in variables:
            reason = variables[id(access.variable)]
            recorder.store.freeze(access.ids, reason)
        if id(access.variable) in recorder.whole:
            recorder.store.freeze(access.ids, READ_WHOLE)
            read_whole.add(id(access.layer))
    for width in recorder.widths:
        if id(width.owner) in read_whole:
            for ids in width.parts:
                recorder.store.freeze(ids, READ_WHOLE)
        if id(width.owner) in recorder.opaque:
            _, reason = recorder.opaque[id(width.owner)]
            for ids in width.parts:
                recorder.store.freeze(ids, reason)


def _calls_together(entries, store):
    """Entries with the same key, made by several calls: tie their labels."""
    by_key = {}
    for entry in entries:
        by_key.setdefault(entry.key, []).append(entry)
    for first, *others in by_key.values():
        for other in others:
            for a, b in zip(first.parts, other.parts, strict=True):
                if len(a) == len(b):
                    store.tie(a, b)
                else:
                    for ids in (*first.everything, *other.everything):
                        store.freeze(ids, SEVERAL_WIDTHS)
    return list(by_key.values())


def _one_width(calls):
    """The entry for all calls: it is written anew for any of them."""
    wholes = [call.whole for call in calls if call.whole is not None]
    if len(wholes) < 2:
        return calls[0]
    return dataclasses.replace(calls[0], whole=np.concatenate(wholes))


def _variable_axis(calls, group, color):
    first = calls[0]
    ids = np.stack([call.ids for call in calls])
    key = color[ids[0]]
    if len(ids) > 1:
        _, key = np.unique(color[ids], axis=1, return_inverse=True)
    return VariableAxis(
        first.layer,
        first.variable,
        first.axis,
        first.role,
        ids,
        group[first.ids],
        key.reshape(-1),
        tuple(call.read for call in calls),
    )
