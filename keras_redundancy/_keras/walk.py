"""Go through the graph of a model, and of models in it, call by call."""

import collections
from typing import Any

import keras

from keras_redundancy._keras.graph import calls, graph_of, is_model


class Interpreter:
    """Runs a model's graph on values of any kind: numbers, labels, shapes.

    A subclass says in `call` what a call makes of its inputs; what else it
    can say has a default. Values that nothing reads any more are dropped.

    A tensor's key is `(*path, id(x))` with the recorded `KerasTensor` x. Its
    path is () in the graph of the model itself; in a model inside, it has the
    id of the node of each call on the way there. So a model that is called
    twice has other keys in each call.
    """

    def run(self, model, inputs: list, path: tuple = ()) -> list:
        """What a model makes of its inputs.

        Args:
            model: a functional or Sequential model.
            inputs: a value for each of its input tensors, in order.
            path: that of its tensors.

        Returns:
            A value for each of its output tensors; None for those that were
            not reached because `is_done`.

        Raises:
            TypeError, ValueError: it has no graph, or is not built.
        """
        graph = graph_of(model)
        todo = calls(graph)
        readers = collections.Counter(map(id, graph.outputs))
        for call in todo:
            readers.update(map(id, call.inputs))
        values = {}
        self._keep(graph.inputs, inputs, values, path)
        for call in todo:
            if self.is_done:
                break
            self._keep(
                call.outputs, self.visit(call, values, path), values, path
            )
            readers.subtract(map(id, call.inputs))
            for x in call.inputs:
                if not readers[id(x)]:
                    values.pop(id(x), None)
        return [values.get(id(x)) for x in graph.outputs]

    def _keep(self, tensors, results, values, path):
        for x, value in zip(tensors, results, strict=True):
            values[id(x)] = value
            self.made(x, value, path)

    @property
    def is_done(self) -> bool:
        """Whether to stop before the next call."""
        return False

    def visit(self, call, values: dict, path: tuple) -> list:
        """A value for each output of a call: models inside are gone through.

        Args:
            call: the `Call`.
            values: {id(x): value} of at least all tensors x that it reads.
            path: that of these tensors.
        """
        if is_model(call.operation):
            return self.enter(call, values, path)
        return self.call(call, values, path)

    def enter(self, call, values: dict, path: tuple) -> list:
        """`visit` for the call of a model."""
        args, _ = call.fill_in(values)
        given = keras.tree.flatten(args[0])
        return self.run(call.operation, given, (*path, id(call.node)))

    def call(self, call, values: dict, path: tuple) -> list:
        """`visit` for the call of what is no model."""
        raise NotImplementedError

    def made(self, x, value: Any, path: tuple) -> None:
        """Called for each tensor, inputs included, when its value is known."""
