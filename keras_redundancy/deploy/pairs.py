"""Which layer of a tf_keras model is which layer of a Keras 3 model."""

import re
from collections.abc import Iterator

import keras

from keras_redundancy import _keras

# Modules of tfmot, each with what removes the wrappers that it adds.
WRAPPERS = {
    "sparsity": "tfmot.sparsity.keras.strip_pruning(model)",
    "clustering": "tfmot.clustering.keras.strip_clustering(model)",
}

# The attributes with the layers inside of those that wrap more than a `layer`.
INNER = {
    keras.layers.Bidirectional: ("forward_layer", "backward_layer"),
    keras.layers.RNN: ("cell",),
    keras.layers.StackedRNNCells: ("cells",),
}


def layer_names(model) -> dict[int, str]:
    """{id(layer): name} of the layers in a model's flat graph.

    The names are unique, differ from those of the inputs, and can be used by
    tf_keras, which takes no spaces.
    """
    taken = {x.name for x in _keras.graph_of(model).inputs}
    names = {}
    for layer in _keras.flat_graph(model).layers:
        name = base = re.sub(r"[^A-Za-z0-9_.\-]", "_", layer.name)
        number = 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names[id(layer)] = name
    return names


def layer_pairs(model, old) -> Iterator[tuple]:
    """(layer of a Keras model, its counterpart in tf_keras) of all layers.

    What wraps a layer is gone into; what tfmot wraps comes as the wrapper.

    Raises:
        ValueError: `old` has no layer of that name.
    """
    there = {}
    for layer in old.layers:
        inner = layer.layer if wrapper_of_tfmot(layer) else layer
        there[inner.name] = layer
    names = layer_names(model)
    for layer in _keras.flat_graph(model).layers:
        name = names[id(layer)]
        if name not in there and layer.weights:
            raise ValueError(
                f"The layer {layer.name!r} of {model.name!r} is not in the "
                f"tf_keras model {old.name!r}. Pass as like= the model that "
                "was translated. If it has a SeparableConv2D, tfmot quantizes "
                "two other layers in its place, whose weights do not come back."
            )
        if name in there:
            yield from _pairs_inside(layer, there[name])


def _pairs_inside(layer, other):
    if _keras.is_model(layer):
        yield from layer_pairs(layer, other)
        return
    inner = inner_layers(layer)
    if not inner:
        yield layer, other
    for name, part in inner.items():
        parts, others = part, getattr(other, name)
        if not isinstance(part, list):
            parts, others = [part], [others]
        for pair in zip(parts, others, strict=True):
            yield from _pairs_inside(*pair)


def inner_layers(layer) -> dict:
    """{attribute: layer or list of layers} of what a layer wraps."""
    names = INNER.get(type(layer), ())
    if not names and _keras.wraps_one_layer(layer):
        names = ("layer",)
    return {name: getattr(layer, name) for name in names}


def wrapper_of_tfmot(layer) -> str | None:
    """The part of tfmot that a wrapper comes from; None for other layers."""
    path = type(layer).__module__.split(".")
    if path[0] == "tensorflow_model_optimization" and hasattr(layer, "layer"):
        return next(x for x in path if x in (*WRAPPERS, "quantization"))
    return None


def is_quantized(layer) -> bool:
    """Whether `quantize` of Keras 3 made integers of a layer's weights."""
    policy = getattr(layer, "dtype_policy", None)
    return isinstance(policy, keras.dtype_policies.QuantizedDTypePolicy)
