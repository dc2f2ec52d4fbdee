"""The one walk through a model's graph, and the flat list of its calls."""

import collections
import dataclasses
import itertools
from typing import Any

import keras

from keras_redundancy._keras.graph import (
    Call,
    calls,
    graph_of,
    handed_to,
    is_model,
)
from keras_redundancy._keras.layers import wraps_one_layer


class Interpreter:
    """Runs a model's graph on values of any kind: numbers, labels, layers.

    A subclass says in `call` what a call returns for the values that it
    reads. Nested models are gone through, each time that they are called:
    what they are called with, be it one tensor, a list, a dictionary or
    keyword arguments, becomes the values of their inputs. A shared layer is
    called once for each of its calls. Values that no call reads any more are
    dropped.

    A tensor's key is `(*path, id(x))` of the recorded `KerasTensor` x. In the
    graph of the outermost model the path is (); in a nested model it is the
    `key` of the call. So each call of a nested model has keys of its own.

    Example: the names of all layers that lie behind each output.

        class Behind(Interpreter):
            def call(self, call, values):
                names = {call.operation.name}
                for x in call.inputs:
                    names |= values[id(x)]
                return [names] * len(call.outputs)

        Behind().run(model, [set() for _ in model.inputs])
    """

    def run(self, model, inputs: list, path: tuple[int, ...] = ()) -> list:
        """The values of a model's outputs.

        Args:
            model: a functional or Sequential model.
            inputs: a value for each of its input tensors, in order.
            path: that of the keys of its tensors.

        Returns:
            A list; None stands for an output that was not reached before
            `is_done`.

        Raises:
            TypeError, ValueError: the model has no graph, or is not built.
        """
        graph = graph_of(model)
        todo, values = calls(graph, path), {}
        read = itertools.chain(graph.outputs, *(call.inputs for call in todo))
        unread = collections.Counter(map(id, read))
        self._keep(graph.inputs, inputs, values, path)
        for call in todo:
            if self.is_done:
                break
            self._keep(call.outputs, self.visit(call, values), values, path)
            for x in call.inputs:
                unread[id(x)] -= 1
                if not unread[id(x)]:
                    del values[id(x)]
        return [values.get(id(x)) for x in graph.outputs]

    def _keep(self, tensors, results, values, path):
        for x, value in zip(tensors, results, strict=True):
            values[id(x)] = value
            self.made(x, value, path)

    @property
    def is_done(self) -> bool:
        """Whether to stop before the next call."""
        return False

    def visit(self, call: Call, values: dict[int, Any]) -> list:
        """A value for each output of any call, of a nested model as well.

        Args:
            call: the call.
            values: {id(x): value} of at least all tensors x that it reads.
        """
        model = self.model_in(call.operation)
        if model is None:
            return self.call(call, values)
        return self.enter(call, model, values)

    def model_in(self, operation):
        """The model to go through where `operation` is called, or None."""
        return operation if is_model(operation) else None

    def enter(self, call: Call, model, values: dict[int, Any]) -> list:
        """`visit` for a call that goes through a model: run its graph."""
        given = [values[id(x)] for x in handed_to(model, call)]
        return self.run(model, given, call.key)

    def call(self, call: Call, values: dict[int, Any]) -> list:
        """`visit` for any other call: of a layer or an operation."""
        raise NotImplementedError

    def made(self, x, value: Any, path: tuple[int, ...]) -> None:
        """Called for each tensor, inputs included, when its value is known."""


@dataclasses.dataclass(frozen=True)
class FlatCall(Call):
    """A call, and the tensors that it reads and makes in the flat graph.

    Attributes:
        reads, makes: the keys of `inputs` and `outputs`. What a nested model
            is called on has the key of the tensor in the outer graph, and
            what it returns that of the tensor in the nested one.
    """

    reads: tuple = ()
    makes: tuple = ()


@dataclasses.dataclass(frozen=True)
class FlatGraph:
    """All calls of layers and operations, in an order that can be run.

    Attributes:
        calls: a `FlatCall` for each.
        inputs, outputs: the keys of the model's inputs and outputs.
    """

    calls: tuple[FlatCall, ...]
    inputs: tuple
    outputs: tuple

    @property
    def layers(self) -> list:
        """The layers that are called, each one once."""
        called = (call.operation for call in self.calls)
        found = {id(x): x for x in called if isinstance(x, keras.Layer)}
        return list(found.values())


def flat_graph(model, steps: bool = False) -> FlatGraph:
    """The graph of a model without borders: nested models are gone through.

    Args:
        model: a functional or Sequential model.
        steps: go through a model in a `TimeDistributed` too, which calls it
            on each step.

    Raises:
        TypeError, ValueError: the model has no graph, or is not built.
    """
    walk = _Flatten(steps)
    inputs = tuple((id(x),) for x in graph_of(model).inputs)
    outputs = walk.run(model, list(inputs))
    return FlatGraph(tuple(walk.calls), inputs, tuple(outputs))


class _Flatten(Interpreter):
    """A walk whose values are keys: each tensor has that of its first name."""

    def __init__(self, steps):
        self.calls, self._steps = [], steps

    def model_in(self, operation):
        distributed = isinstance(operation, keras.layers.TimeDistributed)
        inner = operation.layer if self._steps and distributed else operation
        return super().model_in(inner)

    def call(self, call, values):
        reads = tuple(values[id(x)] for x in call.inputs)
        makes = tuple(map(call.key_of, call.outputs))
        self.calls.append(FlatCall(call.node, call.path, reads, makes))
        return list(makes)


def layers_made_alone(model) -> list:
    """The layers in graphs, at any depth, that are made anew one by one.

    Those are what the graphs call, and what their wrappers wrap; not what
    other layers make in their constructors.
    """
    found = {}
    for layer in flat_graph(model, steps=True).layers:
        for part in _itself_and_wrapped(layer):
            found[id(part)] = part
    return list(found.values())


def _itself_and_wrapped(layer):
    if is_model(layer):
        return layers_made_alone(layer)
    if not wraps_one_layer(layer):
        return [layer]
    return [layer, *_itself_and_wrapped(layer.layer)]
