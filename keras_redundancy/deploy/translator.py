"""The walk that makes a tf_keras model of a Keras 3 model.

Imported only where tf_keras is installed.
"""

import inspect

import keras
import tf_keras

from keras_redundancy import _keras
from keras_redundancy.deploy.pairs import inner_layers, layer_names
from keras_redundancy.deploy.tables import (
    OPERATIONS,
    RefusalError,
    layer_like,
    operation_like,
    refusal,
)


class Translator(_keras.Interpreter):
    """Makes each layer anew in tf_keras, and calls it as it was called.

    The values of this walk are the `KerasTensor`s of tf_keras.
    """

    def __init__(self, model):
        self._model = model
        self._names = layer_names(model)
        self._made = {}

    def translated(self):
        """The tf_keras model, with random weights.

        Raises:
            ValueError: something has no counterpart in tf_keras.
        """
        graph = _keras.graph_of(self._model)
        inputs = [
            tf_keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name)
            for x in graph.inputs
        ]
        outputs = self.run(self._model, inputs)
        _raise_refusals(outputs)
        pack = keras.tree.pack_sequence_as
        return tf_keras.Model(
            pack(_keras.input_structure(graph), inputs),
            pack(_keras.output_structure(graph), outputs),
            name=self._model.name,
        )

    def call(self, call, values):
        try:
            return self._called(call, values)
        except RefusalError as error:
            # What only masks are made of is not missed.
            return [error] * len(call.outputs)

    def _called(self, call, values):
        args, kwargs = call.fill_in(values)
        own_masks = _masks_set_by_keras(call)
        given = {
            key: value
            for key, value in kwargs.items()
            if value is not None and key not in {"training", *own_masks}
        }
        _raise_refusals((args, given))
        function = self._function_of(call.operation)
        known = inspect.signature(getattr(function, "call", function))
        unknown = sorted(set(given) - set(known.parameters))
        if unknown:
            raise refusal(
                call.operation, f"it is called with {unknown}, unknown there."
            )
        try:
            return keras.tree.flatten(function(*args, **given))
        except (TypeError, ValueError) as error:
            raise refusal(call.operation, str(error)[:300]) from error

    def _function_of(self, operation):
        """What to call in tf_keras: a layer made once, or a function."""
        key = id(operation)
        if type(operation) in OPERATIONS or key not in self._names:
            return operation_like(operation)
        if key not in self._made:
            self._made[key] = _layer(operation, self._names[key])
        return self._made[key]


def _masks_set_by_keras(call) -> list[str]:
    """The arguments of a call that tf_keras sets by itself, too."""
    masks = {id(_keras.mask_of(x)) for x in call.inputs}
    return [
        key
        for key, value in call.arguments[1].items()
        if key.endswith("mask")
        and all(id(x) in masks for x in keras.tree.flatten(value))
    ]


def _raise_refusals(values):
    for value in keras.tree.flatten(values):
        if isinstance(value, RefusalError):
            raise value


def _layer(layer, name):
    """An unbuilt layer of tf_keras, with the layers that it wraps."""
    if _keras.is_model(layer):
        return Translator(layer).translated()
    inner = keras.tree.map_structure(
        lambda x: _layer(x, x.name), inner_layers(layer)
    )
    if isinstance(layer, keras.layers.Bidirectional):
        # tf_keras makes both directions of one layer, and names them.
        one = inner["forward_layer"]
        one._name = one.name.removeprefix("forward_")
        inner = {"layer": one}
    return layer_like(layer, name, inner)
