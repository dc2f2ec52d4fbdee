"""The calls of a model's graph, with those of the models inside of it."""

import dataclasses
import itertools
from typing import Any

import keras

from keras_redundancy._keras.graph import (
    calls as calls_of,
    graph_of,
    input_structure,
    is_model,
    wraps_one_layer,
)


@dataclasses.dataclass(frozen=True)
class FlatCall:
    """One call of what is no model, in a model at any depth.

    Attributes:
        operation: what is called; None where a model inside hands on what it
            is given in a way that is not known: all of it to each input.
        inputs, outputs: the numbers of the tensors that it reads and makes.
            A model that is called twice has other tensors in each call.
    """

    operation: Any
    inputs: list[int]
    outputs: list[int]


@dataclasses.dataclass(frozen=True)
class FlatGraph:
    """The calls in an order that can be run, and the ends of the model."""

    calls: list[FlatCall]
    inputs: list[int]
    outputs: list[int]


def flat_graph(model) -> FlatGraph:
    """The graph of a model in which models inside are gone through.

    So are those in a `TimeDistributed`, which calls them on each step.

    Raises:
        TypeError, ValueError: the model has no graph, or is not built.
    """
    numbers, calls = itertools.count(), []

    def run(graph, inputs):
        tensors = dict(zip(map(id, graph.inputs), inputs, strict=True))
        for call in calls_of(graph):
            given = [tensors[id(x)] for x in call.inputs]
            inner = _inner_model(call.operation)
            if inner is None:
                made = [next(numbers) for _ in call.outputs]
                calls.append(FlatCall(call.operation, given, made))
            else:
                inner = graph_of(inner)
                if not _is_called_as_made(call, inner):
                    each = [next(numbers) for _ in inner.inputs]
                    calls.append(FlatCall(None, given, each))
                    given = each
                made = run(inner, given)
            tensors |= zip(map(id, call.outputs), made, strict=True)
        return [tensors[id(x)] for x in graph.outputs]

    graph = graph_of(model)
    inputs = [next(numbers) for _ in graph.inputs]
    return FlatGraph(calls, inputs, run(graph, inputs))


def layers_made_alone(model) -> list:
    """The layers in graphs, at any depth, that are made anew one by one.

    Those are what the graphs call, and what their wrappers wrap; not what
    other layers make in their constructors.
    """
    found = {}
    for call in flat_graph(model).calls:
        for layer in _itself_and_wrapped(call.operation):
            found[id(layer)] = layer
    return list(found.values())


def _itself_and_wrapped(operation):
    if is_model(operation):
        return layers_made_alone(operation)
    if not isinstance(operation, keras.Layer):
        return []
    if not wraps_one_layer(operation):
        return [operation]
    return [operation, *_itself_and_wrapped(operation.layer)]


def _inner_model(operation):
    if isinstance(operation, keras.layers.TimeDistributed):
        operation = operation.layer
    return operation if is_model(operation) else None


def _is_called_as_made(call, inner):
    """Whether a model is given one tensor for each of its inputs, in order."""
    args, _ = call.arguments
    structure = input_structure(inner)
    return (
        len(args) == 1
        and len(call.inputs) == len(inner.inputs)
        and isinstance(args[0], dict) == isinstance(structure, dict)
    )
