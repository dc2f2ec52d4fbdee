"""Run a model on labels instead of numbers: `trace(model)`."""

import dataclasses

import keras
import numpy as np

from keras_redundancy import _keras_internals as internals
from keras_redundancy.channels import labels
from keras_redundancy.channels.graph import ChannelGraph, build_graph
from keras_redundancy.channels.labels import Channels, Role
from keras_redundancy.channels.rules import apply_rule

MODEL_INPUT = "it is an input of the model"
MODEL_OUTPUT = "it is an output of the model"
OTHER_AXIS = "{name} ({kind}) works on another axis than the channels"
NESTED_ARGUMENTS = (
    "{name} (a model) is called with arguments that are not shaped or "
    "structured like its inputs"
)
UNKNOWN_WEIGHTS = (
    "{name} ({kind}) has the weights {weights}, which the rule for "
    "its class does not know"
)


@dataclasses.dataclass
class Recorder:
    """All that the rules say while a model is traced."""

    store: labels.LabelStore
    accesses: list
    widths: list
    steps: list
    products: list
    opaque: dict


class CallTrace:
    """One call of an operation, seen by its rule.

    A rule reads the labels of what goes in (`inputs`), says what they mean to
    the operation's variables and config, and returns the labels of what comes
    out: one `Channels` or a list of them. Which labels to return:

    | what comes out of channel x     | labels                             |
    |---------------------------------|------------------------------------|
    | f(x) with f(s x) = s f(x), s > 0 | those that went in                 |
    | any other function of x alone   | `tied(ids)`                        |
    | of the x of several inputs      | `tied(ids, other_ids)`             |
    | x, at one of several places     | `copied(ids)` for each place       |
    | x, normalised by the layer      | `normalized(ids, ...)`             |
    | a product with a kernel         | `written_by(kernel, axis)`         |
    | anything else                   | `opaque(reason)`                   |

    Attributes:
        operation: the layer or operation that is called.
        inputs: list of `Channels`, one per input tensor.
        tensors, outputs: `KerasTensor`s of the shapes that go in and out.
        arguments: (args, kwargs) as they were recorded.
    """

    def __init__(self, call, inputs, tensors, outputs, recorder):
        self.operation = call.operation
        self.inputs = inputs
        self.tensors = tensors
        self.outputs = outputs
        self.arguments = call.arguments
        self._recorder = recorder

    @property
    def kind(self) -> str:
        return type(self.operation).__name__

    def labels_on(self, axis: int, index: int = 0) -> np.ndarray:
        """Labels of input `index` on `axis`, which may be negative.

        Where the channels of that tensor are on another axis, they are frozen
        and the axis gets new, frozen labels.
        """
        x, tensor = self.inputs[index], self.tensors[index]
        axis %= len(tensor.shape)
        if x.axis == axis:
            return x.ids
        reason = OTHER_AXIS.format(name=self.operation.name, kind=self.kind)
        self._recorder.store.freeze(x.ids, reason)
        return self.new_frozen(tensor.shape[axis] or 0, reason)

    def new(self, size: int) -> np.ndarray:
        """Labels of a new value of `size` channels."""
        return self._recorder.store.new(size)

    def new_frozen(self, size: int, reason: str) -> np.ndarray:
        ids = self.new(size)
        self._recorder.store.freeze(ids, reason)
        return ids

    def written_by(self, kernel, axis: int) -> np.ndarray:
        """New labels: the units on output axis `axis` of `kernel`."""
        axis %= len(kernel.shape)
        ids = self.new(kernel.shape[axis])
        self._recorder.steps.append(labels.Filtered(ids, kernel, axis))
        self._record(kernel, axis, ids, Role.PRODUCER)
        return ids

    def read_by(self, kernel, axis: int, ids: np.ndarray) -> None:
        """Input axis `axis` of `kernel` reads the channels `ids`."""
        self._record(kernel, axis % len(kernel.shape), ids, Role.CONSUMER)

    def carried_by(self, variable, axis: int, ids: np.ndarray) -> None:
        """`axis` of `variable` holds one entry for each channel of `ids`."""
        if variable is not None:
            axis %= len(variable.shape)
            self._record(variable, axis, ids, Role.CARRIER)

    def counted_in(self, *path, ids: np.ndarray) -> None:
        """Config entry `path` of the operation is the number of `ids`."""
        self._recorder.widths.append(labels.Width(self.operation, path, ids))

    def multiplies(self, kernel, positions: int | None) -> None:
        """The call reads the whole of `kernel` at `positions` positions.

        This is what FLOPs are counted from; None where a spatial size of the
        model is open.
        """
        self._recorder.products.append((self.operation, kernel, positions))

    def tied(self, *values: np.ndarray) -> np.ndarray:
        """Labels of a new value whose channels are tied to all `values`."""
        ids = self.new(len(values[0]))
        for value in values:
            self._recorder.store.tie(ids, value)
        return ids

    def normalized(self, source, gamma, variance, epsilon) -> np.ndarray:
        """Labels of a value scaled per channel by a batch normalisation."""
        ids = self.tied(source)
        self._recorder.steps.append(
            labels.Normalized(ids, source, gamma, variance, epsilon)
        )
        return ids

    def copied(self, source: np.ndarray) -> np.ndarray:
        """Labels of the same channels, seen at another position."""
        ids = self.tied(source)
        self._recorder.steps.append(labels.Copied(ids, source))
        return ids

    def freeze(self, reason: str, *values: np.ndarray) -> None:
        """The channels `values` (default: all inputs) have to stay."""
        for ids in values or [x.ids for x in self.inputs]:
            self._recorder.store.freeze(ids, reason)

    def opaque(self, reason: str) -> list[Channels]:
        """Freeze what goes in and what comes out: the rule for no rule.

        The layer's other calls are frozen with it: they share its weights.
        """
        self.freeze(reason)
        for layer in _with_sublayers(self.operation):
            self._recorder.opaque[id(layer)] = layer, reason
        return [
            _frozen_channels(tensor, reason, self._recorder.store)
            for tensor in self.outputs
        ]

    def _record(self, variable, axis, ids, role):
        self._recorder.accesses.append(
            labels.Access(self.operation, variable, axis, ids, role)
        )


def _with_sublayers(operation):
    if isinstance(operation, keras.Layer):
        return internals.flat_layers(operation)
    return [operation]


def _frozen_channels(tensor, reason, store):
    axis = max(len(tensor.shape) - 1, 0)
    ids = store.new((tensor.shape[axis] if tensor.shape else 0) or 0)
    store.freeze(ids, reason)
    return Channels(ids, axis)


def trace(model) -> ChannelGraph:
    """Find out which channels of a model can only be removed together.

    Args:
        model: a built functional or Sequential `keras.Model`. It is read, not
            run and not changed.

    Returns:
        A `ChannelGraph`: the spaces of the model, with the reason for each
        one that is frozen.

    Raises:
        TypeError: `model` is no Keras model, or a subclassed one.
        ValueError: it is not built, or has quantized or LoRA-enabled layers.
    """
    graph = internals.graph_of(model)
    for layer in internals.flat_layers(model):
        _refuse_rewritten_weights(layer)
    recorder = Recorder(labels.LabelStore(), [], [], [], [], {})
    inputs = [
        _frozen_channels(x, MODEL_INPUT, recorder.store) for x in graph.inputs
    ]
    outputs, _ = _run(graph, inputs, graph.inputs, recorder)
    recorder.store.frozen[:0] = [(x.ids, MODEL_OUTPUT) for x in outputs]
    return build_graph(model, recorder)


def _run(graph, inputs, input_tensors, recorder):
    """Labels and shapes of what `graph` makes of these inputs.

    Shapes are those of this call: the sizes that an inner model leaves open
    are known where it is used.
    """
    values = dict(zip(map(id, graph.inputs), inputs, strict=True))
    tensors = dict(zip(map(id, graph.inputs), input_tensors, strict=True))
    for x in graph.inputs:
        _count_input(internals.origin(x), values[id(x)], recorder)
    for call in internals.calls(graph):
        seen = CallTrace(
            call,
            [values[id(x)] for x in call.inputs],
            [tensors[id(x)] for x in call.inputs],
            internals.output_tensors(call, tensors),
            recorder,
        )
        if internals.is_model(call.operation):
            results, shapes = _run_nested(seen, recorder)
        else:
            results, shapes = _run_operation(seen, recorder), seen.outputs
        for x, value, tensor in zip(call.outputs, results, shapes, strict=True):
            values[id(x)], tensors[id(x)] = value, tensor
    return (
        [values[id(x)] for x in graph.outputs],
        [tensors[id(x)] for x in graph.outputs],
    )


def _count_input(layer, value, recorder):
    """An inner model's input has a width of its own in its config."""
    if layer.batch_shape[value.axis] is not None:
        path = ("batch_shape", value.axis)
        recorder.widths.append(labels.Width(layer, path, value.ids))


def _run_nested(seen, recorder):
    inner = internals.graph_of(seen.operation)
    given = keras.tree.flatten(seen.arguments[0])
    args, structure = seen.arguments[0], internals.input_structure(inner)
    alike = len(args) == 1 and len(given) == len(inner.inputs)
    alike = alike and isinstance(args[0], dict) == isinstance(structure, dict)
    if not alike or any(
        len(x.shape) != len(y.shape)
        for x, y in zip(seen.tensors, inner.inputs, strict=True)
    ):
        reason = NESTED_ARGUMENTS.format(name=seen.operation.name)
        return seen.opaque(reason), seen.outputs
    return _run(inner, seen.inputs, seen.tensors, recorder)


def _run_operation(seen, recorder):
    before = len(recorder.accesses)
    outputs = apply_rule(seen.operation, seen)
    if isinstance(outputs, Channels):
        outputs = [outputs]
    _require_as_many(outputs, seen)
    layer = seen.operation
    if isinstance(layer, keras.Layer) and len(recorder.accesses) > before:
        known = {id(a.variable) for a in recorder.accesses[before:]}
        unknown = [v.name for v in layer.weights if id(v) not in known]
        if unknown:
            reason = UNKNOWN_WEIGHTS.format(
                name=layer.name, kind=seen.kind, weights=", ".join(unknown)
            )
            seen.freeze(reason)
            seen.freeze(reason, *(out.ids for out in outputs))
    return outputs


def _require_as_many(outputs, seen):
    """Every channel that comes out has a label: a mistake of a rule if not."""
    for out, tensor in zip(outputs, seen.outputs, strict=True):
        size = tensor.shape[out.axis] if tensor.shape else None
        if len(out.ids) != (size or 0):
            raise RuntimeError(
                f"The rule for {seen.kind} gave {len(out.ids)} labels to the "
                f"{size} channels of {seen.operation.name!r} (shape "
                f"{tensor.shape}, axis {out.axis}). Leave the layer's class "
                "out of the model, or correct the rule."
            )


def _refuse_rewritten_weights(layer):
    name = getattr(layer, "name", layer)
    if getattr(layer, "quantization_mode", None):
        raise ValueError(
            f"The layer {name!r} is quantized "
            f"({layer.quantization_mode}): its integer weights cannot be "
            "compared, merged or sliced. Prune the model first, then call "
            "quantize() on the result."
        )
    if getattr(layer, "lora_enabled", False):
        raise ValueError(
            f"The layer {name!r} has LoRA enabled: its kernel is the sum of "
            "a frozen matrix and a trained product. Build the same model "
            "without LoRA, assign this layer's `kernel` (the sum) to it, and "
            "prune that."
        )
