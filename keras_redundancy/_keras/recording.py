"""The graph inside a layer: what its `call` records when it runs on symbols."""

import contextlib
import functools
import inspect
import traceback

import keras
from keras.src import backend
from keras.src.models.functional import Functional
from keras.src.ops.numpy import Reshape

from keras_redundancy._keras.graph import graph_of, is_model
from keras_redundancy._keras.layers import (
    copy_operation,
    flat_layers,
    is_stock_class,
)
from keras_redundancy._keras.running import without_gradients
from keras_redundancy._keras.walk import Interpreter

# What a copy of a model has of its own: its graph, and what was compiled.
OF_THE_GRAPH = (
    "_inputs",
    "_outputs",
    "_inputs_struct",
    "_outputs_struct",
    "_nodes",
    "_nodes_by_depth",
    "_operations",
    "_operations_by_depth",
    "_layers",
)
COMPILED = ("train_function", "test_function", "predict_function")
ABSTRACT = (keras.Layer, keras.Model, keras.Sequential, keras.layers.Wrapper)


class Opened(Functional):
    """A functional model that computes what a layer does, with its variables.

    Attributes:
        layer: the layer that it takes the place of.
        arguments: (args, kwargs) of the call of the layer that was recorded,
            with the inputs of this model for tensors.
    """

    def arguments_with(self, tensors: list) -> tuple[tuple, dict]:
        """`arguments`, with other tensors for the inputs of the model."""
        return _replaced(self.arguments, self.inputs, tensors)


class RecordingError(Exception):
    """A `call` cannot be recorded: the message says why, and where."""


def recorded(
    layer, args, kwargs, *, batch, as_stock=False, opener=None, prefix=""
):
    """The graph that `layer.call(*args, **kwargs)` records.

    The layers in the graph are copies that share their variables with those
    inside of `layer`, which do not change.

    Args:
        layer: a built layer or model.
        args, kwargs: what it is called with; `KerasTensor`s for tensors.
        batch: the size of the batch while it runs; None leaves it open.
        as_stock: whether the copy of a layer whose class extends one of
            Keras's layers is of Keras's class.
        opener: a function of the graph that returns what `with_opened` takes.
        prefix: what to put before the names of the layers inside.

    Returns:
        An `Opened`.

    Raises:
        RecordingError: the call fails on symbols, changes variables, or returns
            something else than tensors.
    """
    given = tensors_in((args, kwargs))
    inputs = [_new_input(layer, x, batch) for x in given]
    arguments = _replaced((args, kwargs), given, inputs)
    with _undisturbed(layer):
        graph = _recorded(layer, *arguments, inputs)
        copier = _Copier(opener and opener(graph), prefix, as_stock)
        return copier.opened(layer, graph, arguments, given)


def with_opened(model, opener, shapes: list | None = None):
    """A copy of a model in which the graphs inside of layers take their place.

    It shares its variables with the model, which does not change.

    Args:
        model: a functional or Sequential model.
        opener: a function of a layer, of the arguments of its call, and of
            what to put before the names of layers inside, that returns an
            `Opened`, or None where the layer stays. Where it raises a
            `RecordingError`, the layer in the copy has the attribute
            `not_opened`, which says why.
        shapes: those of the inputs of the copy, where sizes that the model
            leaves open have to be known. The `InputLayer`s of the copy then
            have the attribute `open_shape`, that of the model.
    """
    return _Copier(opener).model(model, shapes)


def tensors_in(arguments) -> list:
    """The `KerasTensor`s in a nested structure, each one once."""
    flat = keras.tree.flatten(arguments)
    tensors = [x for x in flat if isinstance(x, keras.KerasTensor)]
    return list({id(x): x for x in tensors}.values())


def _replaced(structure, old, new):
    twins = dict(zip(map(id, old), new, strict=True))
    return keras.tree.map_structure(lambda x: twins.get(id(x), x), structure)


def _new_input(layer, x, batch=None):
    """An input like `x`, of the dtype that the layer casts it to."""
    size = x.shape[0] if batch is None else batch
    is_cast = layer.autocast and backend.is_float_dtype(x.dtype)
    dtype = layer.compute_dtype if is_cast else x.dtype
    shape = (size, *x.shape[1:])
    return keras.Input(batch_shape=shape, dtype=dtype, name=x.name)


def _with_open_batch(call):
    """The shape that a `Reshape` makes, whatever the size of the batch."""
    old, made = call.operation.newshape, call.outputs[0].shape
    from_one = call.inputs[0].shape[0] == made[0] == 1
    is_known = from_one and old[0] == 1 and None not in made
    return (-1, *made[1:]) if is_known else old


def _recorded(layer, args, kwargs, inputs):
    """The graph of one call, on the layers inside of `layer` themselves."""
    if "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": False}
    try:
        with (
            keras.StatelessScope() as scope,
            _seen_through(layer),
            without_gradients(),
        ):
            outputs = layer.call(*args, **kwargs)
    except Exception as error:
        raise RecordingError(what_and_where(error)) from error
    if scope.state_mapping:
        raise RecordingError("its call changes variables")
    flat = keras.tree.flatten(outputs)
    if not flat or not all(isinstance(x, keras.KerasTensor) for x in flat):
        raise RecordingError("its call returns something else than tensors")
    try:
        return Functional(inputs, outputs)
    except ValueError as error:
        raise RecordingError(what_and_where(error)) from error


def what_and_where(error):
    """What a call raised, and the line of code that is not a library's."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    libraries = ("/keras/src/", "/tensorflow/", "/jax/", "/jax/_src/")
    own = [x for x in frames if not any(y in x.filename for y in libraries)]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    text = " ".join(str(error).split())
    return f"its call raises {type(error).__name__}{where}: {text[:200]}"


@contextlib.contextmanager
def _undisturbed(layer):
    """Take away what calls inside of a layer leave on the layers there.

    Meanwhile the layers have names of which no two are the same, and say what
    they return even where their own `compute_output_spec` fails.
    """
    parts = flat_layers(layer)
    before = [
        (x, x.name, x._inbound_nodes[:], x._outbound_nodes[:]) for x in parts
    ]
    names = set()
    for part in parts[1:]:
        while part.name in names:
            part.name += "_"
        names.add(part.name)
        if not is_stock_class(type(part)):
            vars(part)["compute_output_spec"] = functools.partial(_spec, part)
    try:
        yield
    finally:
        for part, name, inbound, outbound in before:
            part.name = name
            part._inbound_nodes, part._outbound_nodes = inbound, outbound
            vars(part).pop("compute_output_spec", None)


@contextlib.contextmanager
def _seen_through(layer):
    """Let layers that return None among tensors record what they call.

    No node can record such a call.
    """
    parts = [x for x in flat_layers(layer)[1:] if not is_stock_class(type(x))]
    classes = list(map(type, parts))
    for part, cls in zip(parts, classes, strict=True):
        part.__class__ = type(cls.__name__, (cls,), {"__call__": _call})
    try:
        yield
    finally:
        for part, cls in zip(parts, classes, strict=True):
            part.__class__ = cls


def _call(layer, *args, **kwargs):
    if tensors_in((args, kwargs)):
        made = layer.compute_output_spec(*args, **kwargs)
        if any(x is None for x in keras.tree.flatten(made)):
            return layer.call(*args, **kwargs)
    return super(type(layer), layer).__call__(*args, **kwargs)


def _spec(layer, *args, **kwargs):
    try:
        return type(layer).compute_output_spec(layer, *args, **kwargs)
    except Exception:
        return backend.compute_output_spec(layer.call, *args, **kwargs)


class _Copier(Interpreter):
    """Makes the same graph of copies of the operations, which share variables.

    The values of this walk are the `KerasTensor`s of the new graph.
    """

    def __init__(self, opener=None, prefix="", as_stock=False):
        self._opener, self._prefix = opener, prefix
        self._as_stock, self._made = as_stock, {}

    def operation(self, old):
        """The copy of an operation; made when first asked for."""
        if id(old) not in self._made:
            new = copy_operation(old)
            if self._becomes_stock(old):
                new.__class__ = _stock_base(type(old))
            self._note(old, new)
        return self._made[id(old)][1]

    def _becomes_stock(self, old):
        is_layer = isinstance(old, keras.Layer)
        return self._as_stock and is_layer and _stock_base(type(old))

    def _note(self, old, new):
        if self._prefix and isinstance(old, keras.Layer):
            new.name = self._prefix + old.name
        self._made[id(old)] = old, new

    def opened(self, layer, graph, arguments, given):
        """The `Opened` of a graph that a layer recorded on `arguments`."""
        inputs = [_new_input(layer, x) for x in given]
        try:
            outputs = self.run(graph, inputs)
        except Exception as error:
            raise RecordingError(what_and_where(error)) from error
        own = set(map(id, inputs))
        # A call that returns what it was given would be a cycle in a graph.
        outputs = [
            keras.layers.Identity()(x) if id(x) in own else x for x in outputs
        ]
        outputs = keras.tree.pack_sequence_as(graph._outputs_struct, outputs)
        arguments = _replaced(arguments, graph.inputs, inputs)
        args, kwargs = arguments
        is_one = len(args) == 1 and not tensors_in(kwargs)
        new = Opened(args[0] if is_one else inputs, outputs, name=layer.name)
        # Past Keras's tracking: they are no part of the model.
        vars(new).update(layer=layer, arguments=arguments)
        return new

    def model(self, old, shapes=None):
        """The copy of a model, on new inputs."""
        graph = graph_of(old)
        shapes = [x.shape for x in graph.inputs] if shapes is None else shapes
        inputs = list(map(_copied_input, graph.inputs, shapes))
        structures = [
            keras.tree.pack_sequence_as(structure, flat)
            for structure, flat in (
                (graph._inputs_struct, inputs),
                (graph._outputs_struct, self.run(old, inputs)),
            )
        ]
        functional = Functional(*structures, name=graph.name)
        new = copy_operation(old)
        if graph is old:
            own = {key: vars(functional)[key] for key in OF_THE_GRAPH}
        else:
            layers = [x._keras_history.operation for x in inputs]
            layers += [self.operation(x) for x in old.layers]
            own = {"_functional": functional, "_layers": layers}
        vars(new).update(own | dict.fromkeys(COMPILED))
        return new

    def model_in(self, operation):
        """None: a copy of a model is called like a layer, not gone through."""

    def call(self, call, values):
        """The tensors that a call makes in the new graph."""
        old = call.operation
        args, kwargs = call.fill_in(values)
        if id(old) not in self._made:
            self._make(call, args, kwargs)
        new = self.operation(old)
        if isinstance(new, Opened) and not isinstance(old, Opened):
            given = [values[id(x)] for x in tensors_in(call.arguments)]
            structure = new._inputs_struct
            args = (keras.tree.pack_sequence_as(structure, given),)
            kwargs = {}
        elif type(new) is not type(old):
            taken = inspect.signature(new.call).parameters
            kwargs = {k: x for k, x in kwargs.items() if k in taken}
        return keras.tree.flatten(new(*args, **kwargs))

    def _make(self, call, args, kwargs):
        """Note the copy of an operation that is not a plain copy."""
        old = call.operation
        if type(old) is Reshape:
            self._note(old, Reshape(_with_open_batch(call), name=old.name))
        elif is_model(old):
            given = tensors_in((args, kwargs))[: len(graph_of(old).inputs)]
            self._note(old, self.model(old, [x.shape for x in given]))
        elif self._opener is not None and not self._becomes_stock(old):
            try:
                opened = self._opener(old, args, kwargs, self._prefix)
            except RecordingError as error:
                vars(self.operation(old))["not_opened"] = str(error)
            else:
                if opened is not None:
                    self._note(old, opened)


def _copied_input(x, shape):
    config = x._keras_history.operation.get_config()
    new = keras.layers.InputLayer(**config | {"batch_shape": tuple(shape)})
    new.output.name = x.name
    if tuple(shape) != tuple(x.shape):
        vars(new)["open_shape"] = tuple(x.shape)
    return new.output


def _stock_base(cls):
    """The class of Keras that a class of layers extends, or None."""
    first = next(base for base in cls.__mro__ if is_stock_class(base))
    return None if first is cls or first in ABSTRACT else first
