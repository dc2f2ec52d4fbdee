"""Nested models that share layers with the graph around them.

Keras saves a layer with weights once, but its config in each graph that calls
it: in that of a model, and in that of a model nested in it, or in those of two
nested models. It then makes one layer of each config, and finds no weights for
the second. So what is saved does not open again. It does where the calls of
such nested models are put into the graph around them, so that all calls of a
layer are in one graph.
"""

import keras

from keras_redundancy._keras.graph import calls, graph_of, handed_to, is_model
from keras_redundancy._keras.layers import BORDER, flat_layers
from keras_redundancy._keras.models import rebuildable_class
from keras_redundancy._keras.walk import flat_graph


def sharing_models(model, with_weights: bool = False) -> list:
    """The nested models that call layers that are called outside as well.

    Args:
        model: a functional or Sequential model.
        with_weights: look at layers that have weights only.

    Returns:
        Nested models at any depth, each one once.
    """
    graphs, callers = _callers(model, with_weights)
    found = []
    for nested in list(graphs.values())[1:]:
        own, inside = _callers(nested, with_weights)
        if any(callers[key] - own.keys() for key in inside):
            found.append(nested)
    return found


def mergeable_models(model) -> list:
    """Those of `sharing_models` whose calls can be put into other graphs.

    That cannot be where a call casts or reshapes what the model reads, hands
    it masks, or sets it to training.
    """
    found = {id(x): x for x in sharing_models(model)}
    for caller in [model, *found.values()] if found else []:
        for call in calls(graph_of(caller)):
            if not _is_plain(call):
                found.pop(id(call.operation), None)
    return list(found.values())


def models_to_merge(model) -> list:
    """`mergeable_models` of all models that are saved by constructors.

    Keras opens a model whose class has a constructor of its own by calling
    that. Its graph is saved when a plain model takes its place.

    Args:
        model: a functional or Sequential model, which can have such ones in it.
    """
    graphs, _ = _callers(model, False)
    own = (x for x in graphs.values() if rebuildable_class(x) is not type(x))
    found = [x for each in own for x in mergeable_models(each)]
    return list({id(x): x for x in found}.values())


def shared_parts(model) -> list:
    """The layers with weights that several layers of a graph hold or are."""
    holders, parts = {}, {}
    for layer in flat_graph(model).layers:
        for part in flat_layers(layer):
            if part.weights:
                parts[id(part)] = part
                holders.setdefault(id(part), set()).add(id(layer))
    return [part for key, part in parts.items() if len(holders[key]) > 1]


def names_in_one_graph(model, merged: set) -> dict[int, str]:
    """New names for operations that get into one graph with namesakes.

    Args:
        model: a functional or Sequential model.
        merged: ids of the nested models whose calls get into other graphs.

    Returns:
        {id(operation): its new name}, which starts with that of its model.
    """
    graphs, taken, found = [(model, "")], {}, {}
    for caller, prefix in graphs:  # It grows.
        for call in calls(graph_of(caller)):
            operation, name = call.operation, call.operation.name
            if id(operation) in merged:
                graphs.append((operation, f"{prefix}{name}{BORDER}"))
            while taken.setdefault(name, operation) is not operation:
                name = f"{prefix}{name}"
            if name != operation.name:
                found[id(operation)] = name
    return found


def _callers(model, with_weights):
    """{id(model): model} of a model and those nested in it, and who calls what.

    The second dictionary has, for the id of each layer or nested model, the
    set of the ids of the models whose graphs call it, or a layer it is in.
    """
    graphs, callers = {id(model): model}, {}
    for caller in (waiting := [model]):  # It grows.
        for call in calls(graph_of(caller)):
            layer = call.operation
            if not isinstance(layer, keras.Layer):
                continue
            parts = [layer] if is_model(layer) else flat_layers(layer)
            for part in parts:
                if part.weights or not with_weights:
                    callers.setdefault(id(part), set()).add(id(caller))
            if is_model(layer) and id(layer) not in graphs:
                graphs[id(layer)] = layer
                waiting.append(layer)
    return graphs, callers


def _is_plain(call):
    """Whether the call of a nested model does no more than run its graph."""
    if not is_model(call.operation):
        return True
    handed = handed_to(call.operation, call)
    inputs = graph_of(call.operation).inputs
    return (
        set(map(id, call.inputs)) == set(map(id, handed))
        and not call.arguments[1].get("training")
        and all(
            len(x.shape) == len(y.shape) and x.dtype == y.dtype
            for x, y in zip(handed, inputs, strict=True)
        )
    )
