"""Run a model on labels instead of numbers: `trace(model)`."""

import collections
import dataclasses
import itertools

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy.channels.activations import Behaviours
from keras_redundancy.channels.calls import CallTrace
from keras_redundancy.channels.choices import Pass, best_pass
from keras_redundancy.channels.functional import with_graph
from keras_redundancy.channels.graph import ChannelGraph, build_graph
from keras_redundancy.channels.labels import Channels, LabelStore, Place, Width
from keras_redundancy.channels.opening import has_stand_ins, opened
from keras_redundancy.channels.reasons import Reason, of_call
from keras_redundancy.channels.recorder import (
    Choice,
    Recorder,
    Traced,
    frozen_channels,
)
from keras_redundancy.channels.rules import apply_rule
from keras_redundancy.channels.rules.kernels import READ_KERNELS
from keras_redundancy.channels.rules.registry import MASK
from keras_redundancy.channels.samples import batch_of
from keras_redundancy.channels.tied import borrowed, owners_of

MODEL_INPUT = Reason("model_input", "it is an input of the model")
MODEL_OUTPUT = Reason("model_output", "it is an output of the model")
OTHER_RANK = Reason(
    "other_rank",
    "{name} (a model) is called on tensors with more or fewer axes than its "
    "inputs have",
)
INNER_INPUT = Reason(
    "input_of_inner_model",
    "{name} makes a model of its own, and these channels are an input of that "
    "model",
)
UNKNOWN_WEIGHTS = of_call(
    "unknown_weights",
    "has the weights {weights}, which the rule for its class does not know",
)
LENT = of_call("read_by_another_layer", "reads the weights of this layer too")


def trace(model, *, allow_inexact: bool = False, shapes=None) -> ChannelGraph:
    """Find out which channels of a model can only be removed together.

    Args:
        model: a built `keras.Model`, as for `plan`. It is never
            changed. Activation functions of your own are run on some numbers,
            and `Lambda` layers on symbolic tensors, to find out what they do
            and which variables they read.
        allow_inexact: do not freeze channels over which something is computed,
            as by a LayerNormalization. To remove one of these channels changes
            what the model computes, even if it is an exact copy of another
            one.
        shapes: for a model with open input sizes, the shape of one sample of
            each input, to look inside layers without a rule.

    Returns:
        A `ChannelGraph`: the spaces of the model, with the reason for each
        one that is frozen.

    Raises:
        TypeError: `model` is no Keras model, or a subclassed one whose `call`
            cannot be recorded.
        ValueError: it is not built, or has quantized or LoRA-enabled layers.
    """
    model = opened(with_graph(model), shapes)
    graph = _keras.graph_of(model)
    for layer in _keras.flat_layers(model):
        _refuse_rewritten_weights(layer)
    is_open = shapes is None and has_stand_ins(model)
    behaviours = Behaviours()

    def run(chosen):
        recorder = record(model, graph.inputs, chosen, behaviours)
        if is_open:
            recorder.products[:] = [
                dataclasses.replace(x, positions=None)
                for x in recorder.products
            ]
        said = dataclasses.replace(recorder, store=recorder.store.copy())
        return Pass(recorder, build_graph(model, recorder, False), said)

    best = best_pass(run)
    if allow_inexact:
        return build_graph(model, best.said, True)
    return best.graph


def record(model, tensors, chosen=None, behaviours=None) -> Recorder:
    """What the rules say of a model that is called on these tensors.

    Args:
        model: the model.
        tensors: a `KerasTensor` for each of its inputs, of the shape that is
            asked for.
        chosen, behaviours: those of the `Recorder`.
    """
    flat = _keras.flat_graph(model)
    kernels = _kernels(flat)
    while True:
        recorder = Recorder(
            LabelStore(),
            behaviours=behaviours or Behaviours(),
            owners=owners_of(flat.layers),
            chosen=chosen or {},
            kernels=kernels,
            batch=batch_of(tensors),
        )
        readers = _walk(model, flat, tensors, recorder)
        others = _read_in_other_ways(flat, readers, recorder)
        if not others:
            return recorder
        kernels = kernels - others


def _walk(model, flat, tensors, recorder):
    """Have the rules say all of a model; how often each tensor is read."""
    read = itertools.chain(flat.outputs, *(call.reads for call in flat.calls))
    readers = collections.Counter(read)
    walk = _Trace(recorder, readers)
    inputs = [
        Traced(_input_channels(x, tensor, readers[key], recorder.store), tensor)
        for x, key, tensor in zip(
            _keras.graph_of(model).inputs, flat.inputs, tensors, strict=True
        )
    ]
    outputs = [x.channels.ids for x in walk.run(model, inputs)]
    recorder.store.frozen[:0] = [(ids, MODEL_OUTPUT) for ids in outputs]
    return readers


def _read_in_other_ways(flat, readers, recorder) -> set[int]:
    """Ids of weights that not all of what reads them reads as kernels.

    Their first axes could not be cut for those that do.
    """
    times = collections.Counter()
    for call in flat.calls:
        if isinstance(call.operation, _keras.Weight):
            times[id(call.operation)] += sum(readers[x] for x in call.makes)
    return {
        key
        for key in recorder.kernels & times.keys()
        if recorder.read_as_kernels[key] != times[key]
    }


def _kernels(flat) -> set[int]:
    """Ids of what returns weights that products and convolutions alone read."""
    others = set()
    for call in flat.calls:
        if not isinstance(call.operation, READ_KERNELS):
            others.update(call.reads)
    return {
        id(call.operation)
        for call in flat.calls
        if _keras.returns_weight(call.operation)
        and others.isdisjoint(call.makes)
    }


def _input_channels(x, tensor, readers, store):
    """Those of the input `x`, as many as the `tensor` in its place has."""
    channels = frozen_channels(tensor, MODEL_INPUT, store)
    place = Place((), x, channels.axis, readers)
    return dataclasses.replace(channels, place=place)


class _Trace(_keras.Interpreter):
    """A walk whose values are `Traced`: labels, and shapes of this call.

    The sizes that a nested model leaves open are known where it is called.

    Attributes:
        recorder: notes what the rules say.
        inside: the `Inside` of the layer whose call this walk is part of;
            None in the graph of the model itself.
    """

    def __init__(self, recorder, readers=None, inside=None):
        """`readers`: {key of a tensor: how many calls read it}."""
        self.recorder, self.inside, self._readers = recorder, inside, readers

    def into(self, inside) -> "_Trace":
        """The walk through what a layer calls inside its own call."""
        return _Trace(self.recorder, inside=inside)

    def run(self, model, inputs, path=()):
        for x, value in zip(_keras.graph_of(model).inputs, inputs, strict=True):
            self._count_input(_keras.origin(x), value.channels)
        return super().run(model, inputs, path)

    def _count_input(self, layer, channels):
        """The input of a nested model has a width of its own in its config.

        Where the constructor of another layer makes the model, nothing is
        known to set that width.
        """
        if self.inside is not None and self.inside.part:
            name = self.inside.call.operation.name
            reason = INNER_INPUT.format(name=name)
            self.recorder.store.freeze(channels.ids, reason)
        elif layer.batch_shape[channels.axis] is not None:
            path = ("batch_shape", channels.axis)
            self.recorder.widths.append(Width(layer, path, channels.ids))

    def enter(self, call, model, values):
        handed = _keras.handed_to(model, call)
        seen = self._seen(call, values)
        shapes = (values[id(x)].tensor.shape for x in handed)
        ranks = (len(x.shape) for x in _keras.graph_of(model).inputs)
        if list(map(len, shapes)) != list(ranks):
            return self._traced(call, seen, seen.opaque(OTHER_RANK))
        handed = set(map(id, handed))
        for x in call.inputs:
            if id(x) not in handed:
                seen.freeze(MASK, values[id(x)].channels.ids)
        return super().enter(call, model, values)

    def call(self, call, values):
        seen = self._seen(call, values)
        return self._traced(call, seen, _by_rule(seen))

    def _seen(self, call, values):
        return CallTrace(call, [values[id(x)] for x in call.inputs], self)

    def _traced(self, call, seen, outputs):
        outputs = [
            dataclasses.replace(value, place=self._place(call, x, value.axis))
            for x, value in zip(call.outputs, outputs, strict=True)
        ]
        return list(map(Traced, outputs, seen.outputs, seen.samples))

    def _place(self, call, x, axis):
        if self.inside is not None:
            return None  # The rule may have returned what it was given.
        return Place(call.path, x, axis, self._readers[call.key_of(x)])


def _by_rule(seen):
    """What the rule says that a call of a layer or an operation returns."""
    accesses = seen.recorder.accesses
    before = len(accesses)
    read = borrowed(seen) if seen.inside is None else []
    outputs = apply_rule(seen.operation, seen)
    _note_borrowed(read, seen, accesses[before:])
    if isinstance(outputs, Channels):
        outputs = [outputs]
    _require_channels(outputs, seen)
    outputs = _on_batch_axes(outputs, seen)
    _require_as_many(outputs, seen)
    if seen.options > 1:
        ids = np.concatenate([x.ids for x in outputs])
        seen.recorder.choices.append(Choice(seen.operation, seen.options, ids))
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


def _require_channels(outputs, seen):
    """A rule returns `Channels` for each tensor: a mistake of it if not."""
    is_list = isinstance(outputs, list | tuple)
    if (
        not is_list
        or len(outputs) != len(seen.outputs)
        or not all(isinstance(x, Channels) for x in outputs)
    ):
        raise TypeError(
            f"The rule for {seen.kind} returned {outputs!r} for "
            f"{seen.operation.name!r}, but it has to return the Channels of "
            f"what comes out, of {len(seen.outputs)} tensors: "
            "return Channels(ids, axis), or a list of them for several."
        )


def _on_batch_axes(outputs, seen):
    """`outputs`, with the `batch` of what goes in where their axis is open."""
    kinds = [x.batch for x in [*outputs, *seen.inputs] if x.batch]
    if not kinds:
        return outputs
    return [
        dataclasses.replace(
            out,
            batch=(out.batch or kinds[0])
            if len(out.ids) and tensor.shape[out.axis] is None
            else None,
        )
        for out, tensor in zip(outputs, seen.outputs, strict=True)
    ]


def _require_as_many(outputs, seen):
    """Every channel that comes out has a label: a mistake of a rule if not."""
    for out, tensor in zip(outputs, seen.outputs, strict=True):
        if out.batch:
            continue
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
