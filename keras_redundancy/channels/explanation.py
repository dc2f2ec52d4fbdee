"""Why channels have to stay: `graph.explain()` and `plan.explain()`."""

import dataclasses
import math

from keras_redundancy._shared.tables import Rendered, Table, on_one_line
from keras_redundancy.channels.labels import Constant
from keras_redundancy.channels.reasons import code_of
from keras_redundancy.channels.spaces import Space

SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A space that pruning leaves alone, or a layer that was not followed.

    Attributes:
        layers: names of the layers that hold the units, producers first.
        units: the number of units; None for a layer that was not followed.
        parameters: the number of parameters that would go with all units. A
            kernel between two spaces counts for both.
        share: `parameters` divided by the parameters of the model.
        reason: why the units stay, in words.
        code: a short code for the reason, such as "model_output".
    """

    layers: tuple[str, ...]
    units: int | None
    parameters: int
    share: float
    reason: str
    code: str

    def __repr__(self):
        why = on_one_line(f"{_shortened(self.layers)}: {self.reason}")
        return f"<Frozen: {self.share:.1%} of the parameters, {why}>"


@dataclasses.dataclass(frozen=True)
class Explanation(Rendered):
    """What stays of a model and why; `render()` prints it as a table.

    Attributes:
        model: the model's name.
        frozen: a `Frozen` for each space and layer that stays, the largest
            share first.
        prunable: the share of the parameters that lie in prunable spaces.
    """

    model: str
    frozen: tuple[Frozen, ...]
    prunable: float

    def __repr__(self):
        return (
            f"<Explanation of {self.model!r}: {len(self.frozen)} spaces and "
            f"layers stay, {self.prunable:.1%} of the parameters lie in others>"
        )

    def to_dict(self) -> dict:
        """All of it as plain Python numbers, strings, lists and dicts."""
        return {
            "model": self.model,
            "prunable": self.prunable,
            "frozen": [
                dataclasses.asdict(entry) | {"layers": list(entry.layers)}
                for entry in self.frozen
            ],
        }

    def table(self) -> Table:
        rows = [
            (
                _shortened(entry.layers),
                entry.units,
                f"{100 * entry.share:.1f} %",
                entry.reason,
            )
            for entry in self.frozen
        ]
        header = ("held by", "units", "parameters", "why it stays")
        title = f"What stays of {self.model!r}"
        share = f"{100 * self.prunable:.1f} %"
        below = f"{share} of the parameters lie in prunable spaces."
        return Table(title, header, rows, below)


def _shortened(names):
    rest = len(names) - SHOWN
    shown = " + ".join(names[:SHOWN])
    return shown + (f" + {rest} more" if rest > 0 else "")


def explain(graph, reasons: dict[Space, str | None]) -> Explanation:
    """An `Explanation` of a traced model.

    Args:
        graph: a `ChannelGraph`.
        reasons: for each of its spaces why it stays, or None.
    """
    total = max(graph.model.count_params(), 1)

    def entry(layers, units, parameters, reason):
        share = parameters / total
        return Frozen(
            tuple(layers), units, parameters, share, reason, code_of(reason)
        )

    frozen = [
        entry(_layers(space), space.size, graph.parameters_of(space), reason)
        for space, reason in reasons.items()
        if reason
    ]
    counted = {id(axis.variable) for axis in graph.axes}
    for operation, reason in graph.opaque:
        weights = getattr(operation, "weights", ())
        own = {id(v): v for v in weights if id(v) not in counted}
        counted |= own.keys()
        count = sum(math.prod(variable.shape) for variable in own.values())
        if count:
            frozen.append(entry([operation.name], None, count, reason))
    frozen.sort(key=lambda entry: -entry.parameters)
    open_spaces = [space for space, reason in reasons.items() if not reason]
    prunable = graph.parameters_of(*open_spaces) / total
    return Explanation(graph.model.name, tuple(frozen), prunable)


def _layers(space):
    """Names of the layers that hold a space, its producers first."""
    others = [
        axis.on.layer
        for axis in space.axes
        if not isinstance(axis.on.variable, Constant)
    ]
    names = [layer.name for layer in [*space.producers, *others]]
    return list(dict.fromkeys(names))
