"""What stands before and behind a kernel in a model's graph."""

import keras
from keras import layers

from keras_redundancy import _keras_internals as internals

# The probabilities that losses make of logits.
LOSSES = {
    "categorical_crossentropy": "softmax",
    "sparse_categorical_crossentropy": "softmax",
    "binary_crossentropy": "sigmoid",
}
# What changes nothing at inference.
IDENTITIES = (
    internals.core_operations.StopGradient,
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
    """Of the calls of a model's graph, and of the graphs of models in it."""

    def __init__(self, model):
        self._readers, self._maker = {}, {}
        self._scan(internals.graph_of(model))
        self._classifier = self._find_classifier(model)

    def _scan(self, graph):
        for call in internals.calls(graph):
            for x in call.inputs:
                self._readers.setdefault(id(x), []).append(call)
            for x in call.outputs:
                self._maker[id(x)] = call
            if internals.is_model(call.operation):
                inner = internals.graph_of(call.operation)
                if id(inner.inputs[0]) not in self._readers:
                    self._scan(inner)
        for x in graph.outputs:
            self._readers.setdefault(id(x), []).append(None)

    def link(self, call) -> str:
        """What becomes of what a kernel returns: one of four.

        Args:
            call: of a layer that multiplies with a kernel.

        Returns:
            "relu"; "softmax" or "sigmoid", in the layer, behind it or in the
            compiled loss, where it is the model's only output; "linear" for
            all else.
        """
        if self._classifier and call.node is self._classifier[0].node:
            return self._classifier[1]
        if _activation(call.operation) == "linear":
            only_relu = self._is_read_by_relu(call.outputs[0])
            return "relu" if only_relu else "linear"
        return "relu" if _is_relu(call.operation) else "linear"

    def before(self, call):
        """The call of a `Dense` of which this one reads the ReLU, or None.

        Nothing else reads it.
        """
        x, is_cut = call.inputs[0], False
        while len(self._readers[id(x)]) == 1 and id(x) in self._maker:
            maker = self._maker[id(x)]
            operation = maker.operation
            is_cut |= _is_relu(operation)
            if type(operation) is layers.Dense:
                known = _activation(operation) in ("linear", "relu")
                return maker if is_cut and known else None
            if not _is_relu(operation) and not _is_identity(operation):
                return None
            x = maker.inputs[0]
        return None

    def _is_read_by_relu(self, x):
        readers = self._readers.get(id(x), [None])
        return all(
            reader is not None
            and (
                _is_relu(reader.operation)
                or (
                    _is_identity(reader.operation)
                    and self._is_read_by_relu(reader.outputs[0])
                )
            )
            for reader in readers
        )

    def _find_classifier(self, model):
        """(call of the last `Dense`, link), or None."""
        outputs = internals.graph_of(model).outputs
        last = self._maker.get(id(outputs[0]))
        if len(outputs) > 1 or last is None:
            return None
        link = _link_of(last.operation)
        if link and type(last.operation) is not layers.Dense:
            # It stands behind the layer with the kernel.
            last = self._maker.get(id(last.inputs[0]))
        elif link is None:
            link = _link_of_loss(model)
        if link is None or last is None or not self._is_score(last, link):
            return None
        return last, link

    def _is_score(self, call, link):
        """Whether a `Dense` returns one score for each class, and no more."""
        return (
            type(call.operation) is layers.Dense
            and _activation(call.operation) in ("linear", link)
            and len(self._readers[id(call.outputs[0])]) == 1
            and len(call.inputs[0].shape) == 2
        )


def _activation(layer):
    activation = getattr(layer, "activation", None)
    return activation and keras.activations.serialize(activation)


def _is_relu(operation):
    if isinstance(operation, layers.ReLU):
        bends = operation.max_value, operation.negative_slope
        return not any(bends) and not operation.threshold
    return (
        isinstance(operation, internals.nn_operations.Relu)
        or _activation(operation) == "relu"
    )


def _is_identity(operation):
    if isinstance(operation, layers.Activation):
        return _activation(operation) == "linear"
    return isinstance(operation, IDENTITIES)


def _link_of(operation):
    """The probabilities that an operation makes of what it is given."""
    if isinstance(operation, layers.Softmax):
        return "softmax" if operation.axis in (-1, 1) else None
    name = None
    if type(operation) in (layers.Dense, layers.Activation):
        name = _activation(operation)
    return name if name in ("softmax", "sigmoid") else None


def _link_of_loss(model):
    arguments = internals.compile_arguments(model) or {}
    name, takes_logits = internals.loss_function(arguments.get("loss"))
    return LOSSES.get(name) if takes_logits else None
