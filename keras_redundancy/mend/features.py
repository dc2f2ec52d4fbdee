"""What two models return: their outputs, and features, those of layers."""

import difflib

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_redundancy import _keras
from keras_redundancy.calibration.data import samples_in
from keras_redundancy.calibration.outputs import Output

# What is added to the variance of every channel, as a share of the mean one.
RIDGE = 1e-3
# How many names of layers an error shows.
NAMES = 6


def answers(model, samples: list[NDArray]) -> list[NDArray]:
    """What a model returns for a few samples, an array for each output."""
    count = samples_in(samples)
    size = _keras.needed_batch(model) or count
    found = [
        _of_batch(
            model, [None if x is None else x[n : n + size] for x in samples]
        )
        for n in range(0, count - size + 1, size)
    ]
    return [np.concatenate(x) for x in zip(*found, strict=True)]


def _of_batch(model, samples):
    structure = _keras.input_structure(_keras.graph_of(model))
    x = keras.tree.pack_sequence_as(structure, samples)
    with _keras.without_gradients():
        found = keras.tree.flatten(model(x, training=False))
    return [ops.convert_to_numpy(ops.cast(y, "float32")) for y in found]


def with_features(
    teacher, student, names, samples: list[NDArray]
) -> tuple[keras.Model, keras.Model, list[Output]]:
    """Both models with the outputs of some layers as further outputs.

    The smaller model has fewer channels there: ridge regression finds the
    linear map from its channels to those of the original model that has the
    least squared error on the samples. The map does not change after that.

    Args:
        teacher: the original model.
        student: the smaller one, with layers of the same names.
        names: those of layers whose outputs are compared.
        samples: an array for each input of the models.

    Returns:
        Two models that share the weights of those received, and what their
        further outputs are.

    Raises:
        ValueError: there is no layer of a name, or its output has other
            dimensions in both models.
    """
    more = [[], []]
    for name in names:
        pair = [_output_of(name, model) for model in (teacher, student)]
        for found, tensor in zip(
            more, _channels_last(name, *pair), strict=True
        ):
            found.append(tensor)
    graphs = [_keras.graph_of(model) for model in (teacher, student)]
    wanted, found = (
        answers(_model(graph, tensors), samples)
        for graph, tensors in zip(graphs, more, strict=True)
    )
    more[1] = [
        _mapped(tensor, *values)
        for tensor, *values in zip(more[1], found, wanted, strict=True)
    ]
    models = [
        _model(graph, [*graph.outputs, *tensors])
        for graph, tensors in zip(graphs, more, strict=True)
    ]
    kinds = [
        Output("values", variance=float(np.var(_rows(x), axis=0).mean()))
        for x in wanted
    ]
    return *models, kinds


def _model(graph, outputs):
    """A model with the inputs of a graph, and with other outputs."""
    return keras.Model(_keras.input_structure(graph), outputs)


def _output_of(name, model):
    """The output of a layer, by the name of the layer."""
    layers = {
        layer.name: layer
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    }
    if name in layers:
        return layers[name].output
    similar = difflib.get_close_matches(str(name), layers, NAMES, cutoff=0)
    raise ValueError(
        f"features={name!r}: {model.name!r} has no layer of this name. It has "
        f"{len(layers)} layers, among them {', '.join(map(repr, similar))}. "
        "Pass the names of layers as model.summary() shows them; those in a "
        "model that is itself a layer cannot be compared."
    )


def _channels_last(name, wanted, found):
    """Both tensors with the axis last whose lengths differ, if one does."""
    shapes = tuple(wanted.shape), tuple(found.shape)
    differ = [
        axis
        for axis, lengths in enumerate(zip(*shapes, strict=False))
        if lengths[0] != lengths[1]
    ]
    if len(shapes[0]) != len(shapes[1]) or len(differ) > 1:
        raise ValueError(
            f"features={name!r}: the layer returns {shapes[0]} in the original "
            f"model, but {shapes[1]} in the smaller one, and only the number "
            "of channels may differ. Pass the name of another layer."
        )
    if not differ or differ[0] == len(shapes[0]) - 1:
        return wanted, found
    return [ops.moveaxis(x, differ[0], -1) for x in (wanted, found)]


def _rows(x):
    return x.reshape(-1, x.shape[-1]).astype("float64")


def _mapped(tensor, found, wanted):
    """A tensor of the smaller model, brought to the channels of the other."""
    if found.shape == wanted.shape:
        return tensor
    x, y = _rows(found), _rows(wanted)
    means = x.mean(axis=0), y.mean(axis=0)
    x -= means[0]
    covariance, shared = x.T @ x / len(x), x.T @ y / len(x)
    ridge = RIDGE * max(np.trace(covariance) / len(covariance), 1e-12)
    kernel = np.linalg.solve(
        covariance + ridge * np.eye(len(covariance)), shared
    )
    layer = keras.layers.Dense(kernel.shape[1], trainable=False)
    mapped = layer(tensor)
    layer.set_weights([kernel, means[1] - means[0] @ kernel])
    return mapped
