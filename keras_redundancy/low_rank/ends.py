"""The layers at the ends of a model, whose inputs or units cannot be fused."""

import keras

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import Layers, selected_layers
from keras_redundancy.building.rebuild import require_rebuildable
from keras_redundancy.building.recipe import operations
from keras_redundancy.building.stock import stock_form

# Layers whose units are those of their input: their variables may have several
# axes, but scale and shift only.
PASSED_THROUGH = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
)


def free_vectors(model, is_one, choice: Layers, kind: str) -> list[tuple]:
    """The layers to change, and what of each may be fused.

    Args:
        model: a functional or Sequential model.
        is_one: a function from a layer to whether it is of the right kind.
        choice: the layers that the caller chose, or None for all.
        kind: what the layers are, for the error.

    Returns:
        [(layer, vectors), ...]: "units" for layers that read the model's
        inputs, "inputs" for those that make its outputs, else "both".

    Raises:
        ValueError: no layer is left.
    """
    require_rebuildable(model)
    graph = _keras.flat_graph(model, steps=True)
    calls = [(c.operation, c.reads, c.makes) for c in graph.calls]
    first = _nearest(graph.inputs, calls)
    calls = [(c.operation, c.makes, c.reads) for c in reversed(graph.calls)]
    last = _nearest(graph.outputs, calls)
    found = [x for x in operations(model) if is_one(x)]
    ends = first & last
    found = [layer for layer in found if id(layer) not in ends]
    if not found:
        raise ValueError(
            f"The model {model.name!r} has no {kind}. A layer that both reads "
            "the model's inputs and makes its outputs does not count: neither "
            "its inputs nor its units can be fused."
        )
    if choice is not None:
        chosen = selected_layers(
            choice, found, "layers", _keras.models_around(model)
        )
        found = [layer for layer in found if id(layer) in chosen]
    return [(layer, _vectors(layer, first, last)) for layer in found]


def _vectors(layer, first, last):
    if id(layer) in first:
        return "units"
    return "inputs" if id(layer) in last else "both"


def _nearest(tensors, calls):
    """The ids of the layers with kernels that are nearest to some tensors.

    Beside them, or beyond layers without kernels.

    Args:
        tensors: keys of a model's inputs, or of its outputs.
        calls: (operation, the tensors on the near side of it, those on the far
            side) of each call, the nearest first.
    """
    reached, found = set(tensors), set()
    for operation, near, far in calls:
        if reached & set(near):
            layers = _with_kernels(operation)
            found |= layers
            reached |= set() if layers else set(far)
    return found


def _with_kernels(operation):
    """The ids of a layer with a kernel and of all layers inside it, else none.

    A variable with several axes counts as a kernel, unless it belongs to one
    of `PASSED_THROUGH`, or to a layer that stock models leave out.
    """
    if not isinstance(operation, keras.Layer):
        return set()
    parts = _keras.flat_layers(operation)
    passed = {
        id(variable)
        for part in parts
        if isinstance(part, PASSED_THROUGH) or stock_form(part).is_left_out
        for variable in part.variables
    }
    has_kernel = any(
        len(variable.shape) > 1 and id(variable) not in passed
        for variable in operation.variables
    )
    return set(map(id, parts)) if has_kernel else set()
