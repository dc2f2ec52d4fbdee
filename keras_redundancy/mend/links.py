"""What stands behind a kernel in a model's graph."""

import collections

from keras import layers

from keras_redundancy import _keras
from keras_redundancy.calibration.outputs import LOSSES, kind_made
from keras_redundancy.channels.activations import Behaviours, Kind

# What changes nothing at inference.
IDENTITIES = (
    _keras.core_operations.StopGradient,
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)


class Surroundings:
    """Who makes and who reads each tensor of a model, at any depth.

    A reader or maker is found across the border of a nested model, and each
    call of a nested model by itself.
    """

    def __init__(self, model):
        graph = _keras.flat_graph(model)
        self.calls = graph.calls
        self._calls = {call.key: call for call in graph.calls}
        self._maker = {key: call for call in graph.calls for key in call.makes}
        self._readers = collections.defaultdict(list)
        for call in graph.calls:
            for key in call.reads:
                self._readers[key].append(call)
        for key in graph.outputs:
            self._readers[key].append(None)
        self._behaviours = Behaviours()
        self._classifier = self._find_classifier(model, graph.outputs)

    def calls_of(self, layer) -> list:
        """All calls of a layer."""
        return [call for call in self.calls if call.operation is layer]

    def link(self, call) -> str:
        """What becomes of what a kernel returns: one of four.

        Args:
            call: of a layer that multiplies with a kernel, at any depth.

        Returns:
            "relu"; "softmax" or "sigmoid", in the layer, behind it or in the
            compiled loss, where it is the model's only output; "linear" for
            all else.
        """
        if self._classifier and call.key == self._classifier[0].key:
            return self._classifier[1]
        kind, (made,) = self._kind(call), self._calls[call.key].makes
        if kind is Kind.LINEAR and self._is_read_by_relu(made):
            kind = Kind.RELU
        return "relu" if kind is Kind.RELU else "linear"

    def _is_read_by_relu(self, key):
        readers = self._readers[key]
        return bool(readers) and all(
            reader is not None
            and (
                self._is_relu(reader)
                or (
                    self._is_identity(reader)
                    and self._is_read_by_relu(reader.makes[0])
                )
            )
            for reader in readers
        )

    def _find_classifier(self, model, outputs):
        """(call of the last `Dense`, link), or None."""
        last = self._maker.get(outputs[0])
        if len(outputs) > 1 or last is None:
            return None
        link = kind_made(last)
        if link and type(last.operation) is not layers.Dense:
            # It stands behind the layer with the kernel.
            last = self._maker.get(last.reads[0])
        elif link is None:
            link = _link_of_loss(model)
        if link is None or last is None or not self._is_score(last, link):
            return None
        return last, link

    def _is_score(self, call, link):
        """Whether a `Dense` returns one score for each class, and no more."""
        return (
            type(call.operation) is layers.Dense
            and self._kind(call).value in ("linear", link)
            and len(self._readers[call.makes[0]]) == 1
            and len(call.inputs[0].shape) == 2
        )

    def _kind(self, call):
        """The `Kind` of a layer's activation function, or None."""
        if not hasattr(call.operation, "activation"):
            return None
        function, shape = call.operation.activation, call.outputs[0].shape
        return self._behaviours.of(function, shape).kind

    def _is_relu(self, call):
        """Whether an operation is nothing but a ReLU."""
        operation = call.operation
        if isinstance(operation, layers.ReLU):
            bends = operation.max_value, operation.negative_slope
            return not any(bends) and not operation.threshold
        if isinstance(operation, layers.Activation):
            return self._kind(call) is Kind.RELU
        return isinstance(operation, _keras.nn_operations.Relu)

    def _is_identity(self, call):
        if isinstance(call.operation, layers.Activation):
            return self._kind(call) is Kind.LINEAR
        return isinstance(call.operation, IDENTITIES)


def _link_of_loss(model):
    arguments = _keras.compile_arguments(model) or {}
    name, takes_logits = _keras.loss_function(arguments.get("loss"))
    return LOSSES.get(name) if takes_logits else None
