"""Run a model on labels instead of numbers: `trace(model)`."""

import collections
import dataclasses

import keras

from keras_redundancy import _keras
from keras_redundancy.channels.calls import CallTrace
from keras_redundancy.channels.graph import ChannelGraph, build_graph
from keras_redundancy.channels.labels import Channels, LabelStore, Place, Width
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.channels.recorder import Recorder, frozen_channels
from keras_redundancy.channels.rules import apply_rule
from keras_redundancy.channels.tied import borrowed, owners_of

MODEL_INPUT = Reason(
    "model_input",
    "it is an input of the model",
)
MODEL_OUTPUT = Reason(
    "model_output",
    "it is an output of the model",
)
NESTED_ARGUMENTS = Reason(
    "nested_arguments",
    "{name} (a model) is called with arguments that are not shaped or "
    "structured like its inputs",
)
INNER_INPUT = Reason(
    "input_of_inner_model",
    "{name} makes a model of its own, and these channels are an input of that "
    "model",
)
UNKNOWN_WEIGHTS = Reason(
    "unknown_weights",
    "{name} ({kind}) has the weights {weights}, which the rule for its class "
    "does not know",
)
LENT = Reason(
    "read_by_another_layer",
    "{name} ({kind}) reads the weights of this layer too",
)


def trace(model, *, allow_inexact: bool = False) -> ChannelGraph:
    """Find out which channels of a model can only be removed together.

    Args:
        model: a built functional or Sequential `keras.Model`. It is read and
            not changed. Of the user's own Python code, activation functions
            are run on some numbers, and a `Lambda` on symbols, to see what
            they do and which variables they read.
        allow_inexact: leave spaces prunable that pass through something that
            is computed over all channels, such as a LayerNormalization. Even
            an exact copy of a unit cannot go from them without a change of
            what the model computes.

    Returns:
        A `ChannelGraph`: the spaces of the model, with the reason for each
        one that is frozen.

    Raises:
        TypeError: `model` is no Keras model, or a subclassed one.
        ValueError: it is not built, or has quantized or LoRA-enabled layers.
    """
    graph = _keras.graph_of(model)
    for layer in _keras.flat_layers(model):
        _refuse_rewritten_weights(layer)
    recorder = record(model, graph.inputs)
    return build_graph(model, recorder, allow_inexact)


def record(model, tensors) -> Recorder:
    """What the rules say of a model that is called on these tensors.

    Args:
        model: the model.
        tensors: a `KerasTensor` for each of its inputs, of the shape that is
            asked for.
    """
    graph = _keras.graph_of(model)
    recorder = Recorder(LabelStore(), follow, owners=owners_of(model))
    inputs = [_input_channels(x, recorder.store) for x in graph.inputs]
    outputs, _ = _run(graph, inputs, tensors, recorder)
    recorder.store.frozen[:0] = [(x.ids, MODEL_OUTPUT) for x in outputs]
    return recorder


def _input_channels(x, store):
    channels = frozen_channels(x, MODEL_INPUT, store)
    place = Place((), x, channels.axis, readers=1)
    return dataclasses.replace(channels, place=place)


def _run(graph, inputs, input_tensors, recorder, inside=None, path=()):
    """Labels and shapes of what `graph` makes of these inputs.

    Shapes are those of this call: the sizes that an inner model leaves open
    are known where it is used. `path` is that of the `Place`s of its tensors;
    None where it is inside a layer.
    """
    readers = collections.Counter(map(id, graph.outputs))
    for call in _keras.calls(graph):
        readers.update(map(id, call.inputs))
    values = {
        id(x): _read_here(value, readers[id(x)])
        for x, value in zip(graph.inputs, inputs, strict=True)
    }
    tensors = dict(zip(map(id, graph.inputs), input_tensors, strict=True))
    for x in graph.inputs:
        _count_input(_keras.origin(x), values[id(x)], recorder, inside)
    for call in _keras.calls(graph):
        seen = CallTrace(
            call,
            [values[id(x)] for x in call.inputs],
            [tensors[id(x)] for x in call.inputs],
            _keras.output_tensors(call, tensors),
            recorder,
            inside,
            path,
        )
        results, shapes = follow(seen)
        for x, value, tensor in zip(call.outputs, results, shapes, strict=True):
            place = None
            if path is not None:
                place = Place(path, x, value.axis, readers[id(x)])
            values[id(x)] = dataclasses.replace(value, place=place)
            tensors[id(x)] = tensor
    return (
        [values[id(x)] for x in graph.outputs],
        [tensors[id(x)] for x in graph.outputs],
    )


def _read_here(value, readers):
    """An input of a model is read by that model's calls, not by the model."""
    if value.place is None:
        return value
    readers += value.place.readers - 1
    place = dataclasses.replace(value.place, readers=readers)
    return dataclasses.replace(value, place=place)


def _count_input(layer, value, recorder, inside):
    """An inner model's input has a width of its own in its config.

    Where the model is made by the constructor of another layer, nothing is
    known to set that width.
    """
    if inside is not None and inside.part:
        reason = INNER_INPUT.format(name=inside.call.operation.name)
        recorder.store.freeze(value.ids, reason)
    elif layer.batch_shape[value.axis] is not None:
        path = ("batch_shape", value.axis)
        recorder.widths.append(Width(layer, path, value.ids))


def follow(seen: CallTrace) -> tuple[list[Channels], list]:
    """Labels and shapes of what a call returns."""
    if _keras.is_model(seen.operation):
        return _run_nested(seen)
    return _run_operation(seen), seen.outputs


def _run_nested(seen):
    inner = _keras.graph_of(seen.operation)
    given = keras.tree.flatten(seen.arguments[0])
    args, structure = seen.arguments[0], _keras.input_structure(inner)
    alike = len(args) == 1 and len(given) == len(inner.inputs)
    alike = alike and isinstance(args[0], dict) == isinstance(structure, dict)
    if not alike or any(
        len(x.shape) != len(y.shape)
        for x, y in zip(seen.tensors, inner.inputs, strict=True)
    ):
        return seen.opaque(NESTED_ARGUMENTS), seen.outputs
    path = None
    if seen.path is not None and seen.inside is None:
        path = (*seen.path, id(seen.node))
    return _run(
        inner, seen.inputs, seen.tensors, seen.recorder, seen.inside, path
    )


def _run_operation(seen):
    accesses = seen.recorder.accesses
    before = len(accesses)
    read = borrowed(seen) if seen.inside is None else []
    outputs = apply_rule(seen.operation, seen)
    _note_borrowed(read, seen, accesses[before:])
    if isinstance(outputs, Channels):
        outputs = [outputs]
    _require_as_many(outputs, seen)
    layer = seen.operation
    if isinstance(layer, keras.Layer) and len(accesses) > before:
        known = {id(a.variable) for a in accesses[before:]}
        known |= seen.recorder.kept
        unknown = [v.name for v in layer.weights if id(v) not in known]
        if unknown:
            everything = [x.ids for x in [*seen.inputs, *outputs]]
            weights = ", ".join(unknown)
            seen.freeze(UNKNOWN_WEIGHTS, *everything, weights=weights)
    return outputs


def _note_borrowed(variables, seen, accesses):
    """What a call reads of other layers stays, unless the rule followed it."""
    followed = {id(access.variable) for access in accesses}
    recorder = seen.recorder
    for key in map(id, variables):
        recorder.tied.add(key)
        if key in recorder.owners and key not in followed:
            owner = recorder.owners[key]
            recorder.lent[id(owner)] = owner, seen.say(LENT)


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
