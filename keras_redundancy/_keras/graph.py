"""The graph of one model: its calls, and the tensors between them."""

import dataclasses
import functools
import os
from typing import Any

import keras
from keras.src import backend
from keras.src.models.functional import Functional

from keras_redundancy._shared.tables import shown


def is_model(operation) -> bool:
    """Whether an operation of a graph is itself a model that runs its graph.

    False for a model whose class overrides `call`: that may do anything.
    """
    if isinstance(operation, keras.Sequential):
        return type(operation).call is keras.Sequential.call
    if isinstance(operation, Functional):
        return type(operation).call is Functional.call
    return False


def graph_of(model):
    """The `Functional` object that holds the graph of `model`.

    Raises:
        TypeError: `model` is no Keras model, or one without a graph.
        ValueError: `model` is not built yet.
    """
    if is_model(model) and isinstance(model, keras.Sequential):
        if isinstance(model._functional, Functional):
            return model._functional
        raise ValueError(
            f"The Sequential model {model.name!r} has not been built, so its "
            "layers have no weights and no shapes yet. Add a "
            "keras.Input(shape) as its first element, call it once on data, "
            "or call model.build(input_shape)."
        )
    if is_model(model):
        return model
    if isinstance(model, keras.Model):
        raise TypeError(
            f"The model {model.name!r} is a subclassed model "
            f"({type(model).__name__}): its call() is Python code and has no "
            "graph to follow. Pass what kr.functional(model) returns: a "
            "functional model that computes the same with the same weights."
        )
    hint = ""
    if isinstance(model, str | os.PathLike):
        hint = " Load the file first: keras.models.load_model(path)."
    elif isinstance(model, type):
        hint = " That is a class: pass a built model of it."
    elif isinstance(model, keras.Layer):
        hint = " Wrap it: keras.Sequential([keras.Input(shape), layer])."
    elif type(model).__module__.startswith("tf_keras."):
        hint = (
            " That is a model of tf_keras (Keras 2): save it as .h5, and load "
            "the file by keras.models.load_model."
        )
    raise TypeError(
        "Expected a built keras.Model (functional, Sequential or subclassed), "
        f"but received {type(model).__name__}: {shown(model)}.{hint}"
    )


def graph_beside_call(model):
    """The graph that a model was made with, whatever its `call` does; None."""
    graph = getattr(model, "_functional", model)
    return graph if isinstance(graph, Functional) else None


def input_structure(graph):
    """The inputs of `graph` in the structure the model was made with."""
    return graph._inputs_struct


def output_structure(graph):
    """The outputs of `graph` in the structure the model was made with."""
    return graph._outputs_struct


# --- tensors ----------------------------------------------------------------


def fixed_batch(model) -> int | None:
    """The size of the batches that a model takes; None where it is open."""
    sizes = (x.shape[0] for x in graph_of(model).inputs if x.shape)
    return next((size for size in sizes if size), None)


def needed_batch(model) -> int | None:
    """The only size of batches that a model can be called on; None if any.

    A model whose inputs fix it can mostly be called on other batches as well,
    but not where its code has the size in it, or where states are kept.
    """
    if fixed_batch(model) is None:
        return None
    graph = graph_of(model)
    try:
        twice = graph.compute_output_spec(
            keras.tree.map_structure(_doubled, graph._inputs_struct)
        )
        wanted = [_doubled(x).shape for x in graph.outputs]
        is_any = [x.shape for x in keras.tree.flatten(twice)] == wanted
    except Exception:  # Of any class: the code may be anybody's.
        is_any = False
    has_states = any(
        getattr(layer, "stateful", False)
        for layer in model._flatten_layers(recursive=True)
    )
    return None if is_any and not has_states else fixed_batch(model)


def _doubled(x):
    """A tensor of twice as many samples."""
    first, *shape = x.shape
    return keras.KerasTensor((first and 2 * first, *shape), dtype=x.dtype)


def origin(tensor):
    """The operation that made a `KerasTensor`."""
    return tensor._keras_history.operation


def node_of(tensor):
    """The node that records the call which made a `KerasTensor`."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def mask_of(tensor):
    """The mask that a layer set for a tensor that it returned, or None."""
    return backend.get_keras_mask(tensor)


def with_mask(tensor, mask):
    """The tensor, with a mask for the layers that it is passed on to."""
    if mask is not None:
        backend.set_keras_mask(tensor, mask)
    return tensor


# --- calls ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an operation in a model's graph.

    Attributes:
        node: Keras's record of the call.
        path: ids of the nodes that call the nested models around it, the
            outermost first; () for a call in the graph of the model itself.
        key: `path` and the id of the node. If a nested model is called, this
            is the path of the calls in its graph.
        inputs, outputs: flat lists of the `KerasTensor`s that the call read
            and made.
    """

    node: Any
    path: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[int, ...]:
        return *self.path, id(self.node)

    def key_of(self, x) -> tuple[int, ...]:
        """The key of one of its `KerasTensor`s: see `Interpreter`."""
        return *self.path, id(x)

    @property
    def operation(self):
        return self.node.operation

    @property
    def inputs(self) -> list:
        return self.node.input_tensors

    @property
    def outputs(self) -> list:
        return self.node.outputs

    @property
    def arguments(self) -> tuple[tuple, dict]:
        """The positional and keyword arguments as they were recorded."""
        return self.node.arguments.args, self.node.arguments.kwargs

    def fill_in(self, tensors: dict[int, Any]) -> tuple[tuple, dict]:
        """The arguments with each `KerasTensor` x replaced by tensors[id(x)].

        The nested structure that the operation was called with is kept.
        """
        return self.node.arguments.fill_in(tensors)


@dataclasses.dataclass(frozen=True)
class ImaginedCall:
    """A `Call` that no graph records: one that a layer makes of another."""

    operation: Any
    inputs: list
    outputs: list
    arguments: tuple[tuple, dict]
    node: None = None
    path: tuple[int, ...] = ()
    key: tuple[int, ...] = ()


def imagined_call(layer, tensors: list) -> ImaginedCall:
    """The call `layer(*tensors)` of a built layer on `KerasTensor`s."""
    outputs = keras.tree.flatten(layer.compute_output_spec(*tensors))
    return ImaginedCall(layer, tensors, outputs, (tuple(tensors), {}))


def calls(graph, path: tuple[int, ...] = ()) -> list[Call]:
    """The calls of `graph`, inputs excluded, in an order that can be run.

    A nested model is one call here. `Interpreter` and `flat_graph` go through
    it.

    Args:
        graph: what `graph_of` returns.
        path: that of the calls.
    """
    by_depth = graph._nodes_by_depth
    return [
        Call(node, path)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def replace_arguments(node, function) -> None:
    """Replace each x among a call's arguments by function(x)."""
    arguments = node.arguments
    arguments.args, arguments.kwargs = keras.tree.map_structure(
        function, (arguments.args, arguments.kwargs)
    )


def run_for_inference(operation, args, kwargs):
    """What an operation of a graph returns when the model predicts."""
    if "training" in getattr(operation, "_call_context_args", ()):
        kwargs = {**kwargs, "training": False}
    return operation(*args, **kwargs)


def output_tensors(call, tensors: dict) -> list:
    """`KerasTensor`s of what a call returns for the inputs `tensors`.

    Args:
        call: a `Call` or an `ImaginedCall`.
        tensors: {id(x): tensor} for every recorded input x.

    Returns:
        The recorded outputs where the inputs have the recorded shapes, else
        new ones that belong to no graph.
    """
    if call.node is None:
        return call.outputs
    given = [tensors[id(x)] for x in call.inputs]
    # An EinsumDense returns the sizes that it was built with, open ones too.
    forgets = (
        isinstance(call.operation, keras.layers.EinsumDense)
        and _has_open_size(call.outputs)
        and not _has_open_size(given)
    )
    alike = all(
        x.shape == y.shape for x, y in zip(given, call.inputs, strict=True)
    )
    if alike and not forgets:
        return call.outputs
    args, kwargs = call.fill_in(tensors)
    spec_of = call.operation.compute_output_spec
    if forgets:
        spec_of = functools.partial(
            backend.compute_output_spec, call.operation.call
        )
    return keras.tree.flatten(spec_of(*args, **kwargs))


def _has_open_size(tensors):
    return any(None in x.shape[1:] for x in tensors)


# --- calls of models --------------------------------------------------------


def handed_to(model, call) -> list:
    """The `KerasTensor` that a call hands to each input of a nested model.

    Other tensors among the arguments of the call, such as masks, are left out.
    """
    graph = graph_of(model)
    args, kwargs = call.arguments
    given = args[0] if args else kwargs["inputs"]
    is_by_name = not isinstance(input_structure(graph), dict)
    if isinstance(given, dict) and is_by_name:
        given = [given[x.name] for x in graph.inputs]
    return keras.tree.flatten(given)[: len(graph.inputs)]


def standardized_inputs(model, inputs, training=None, mask=None) -> list:
    """The tensors that a model's graph runs on where the model is called.

    They have the order, dtypes and ranks of the model's inputs, and the masks
    that the model was called with.

    Args:
        model: a functional or Sequential model.
        inputs, training, mask: the arguments of its call.

    Raises:
        TypeError, ValueError: the structure of `inputs` does not fit.
    """
    tensors = graph_of(model)._standardize_inputs(inputs)
    masks = [] if mask is None else keras.tree.flatten(mask)
    for x, own in zip(tensors, masks, strict=False):
        if own is not None:
            backend.set_keras_mask(x, own)
    return tensors
