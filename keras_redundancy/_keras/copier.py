"""Copies of graphs in which the graphs inside of layers take their place."""

import contextlib
import functools
import inspect
import itertools

import keras
from keras.src.models.functional import Functional
from keras.src.ops.core import Cast, ConvertToTensor
from keras.src.ops.numpy import Reshape

from keras_redundancy._keras.graph import (
    calls,
    graph_of,
    handed_to,
    is_model,
)
from keras_redundancy._keras.layers import (
    BORDER,
    copy_operation,
    flat_layers,
    stock_base,
)
from keras_redundancy._keras.merging import (
    mergeable_models,
    models_to_merge,
    names_in_one_graph,
    shared_parts,
)
from keras_redundancy._keras.one_sample import OneSample, with_open_batch
from keras_redundancy._keras.opened import (
    Opened,
    RecordingError,
    new_input,
    replaced,
    tensors_in,
    what_and_where,
)
from keras_redundancy._keras.symbols import EachSample, Weight
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
BRANCHES = (
    "its call does something else with training=True, and it holds a layer "
    "that another one holds as well: pass `training` on to layers such as "
    "Dropout, in place of an `if`"
)
CONSTANT = "its call returns something that does not depend on what it reads"


def with_opened(model, opener, shapes: list | None = None):
    """A copy of a model in which the graphs inside of layers take their place.

    It shares its variables with the model, which does not change. The calls
    of nested models that share layers with the graph around them are part of
    that graph, unless Keras saves the whole as such a graph itself. So are
    those inside of layers that hold a layer which another one holds as well:
    `put_in_place` lists them.

    Args:
        model: a functional or Sequential model.
        opener: a function that returns an `Opened`, or None where the layer
            stays. It is given a layer, the arguments of its call, what to put
            before the names of layers inside, and a function that returns the
            first size of each tensor that the call reads, for one sample. It
            is asked once for a layer, but for each call of a layer without
            weights. Where it raises a `RecordingError`, the layer in the copy
            has the attribute `not_opened`, which says why. Copies of layers
            inside have the attribute `blocks`, the names of the layers that
            they are inside of.
        shapes: those of the inputs of the copy, where sizes that the model
            leaves open have to be known. The `InputLayer`s of the copy then
            have the attribute `open_shape`, that of the model.
    """
    copier = Copier(opener, has_known_sizes=shapes is not None)
    copier.go_through(model, models_to_merge(model))
    return copier.model(model, shapes)


class Copier(Interpreter):
    """Makes the same graph of copies of the operations, which share variables.

    The values of this walk are the `KerasTensor`s of the new graph.
    """

    def __init__(
        self,
        opener=None,
        prefix="",
        as_stock=False,
        twice=None,
        one_sample=None,
        has_known_sizes=False,
    ):
        """Args:
        opener, prefix, as_stock: as for `recorded`.
        twice: {id(node): the same call for a batch of two samples}.
        one_sample: a function that returns the first sizes of the inputs for
            one sample; None if each is 1.
        has_known_sizes: whether the copy has sizes that the model leaves open.
        """
        self._has_known_sizes = has_known_sizes
        self._opener, self._prefix = opener, prefix
        self._twice, self._one_sample = twice or {}, one_sample
        self._as_stock, self._made, self._read = as_stock, {}, set()
        self._merged, self._shared = set(), set()
        self._names, self._taken, self._identities = {}, set(), {}
        self._put_in_place, self._graph, self._recorded = [], None, None
        self._sizes, self._samples, self._given = {}, None, {}

    def go_through(self, model, merged):
        """Put the calls of models into the graphs that call them.

        Args:
            model: what is copied.
            merged: nested models. The `Opened`s of layers that hold a layer
                which another one holds as well are gone through, too.
        """
        self._merged |= set(map(id, merged))
        self._shared |= set(map(id, shared_parts(model)))
        self._note_calls_of_models(graph_of(model))

    def _note_calls_of_models(self, graph):
        """Note the shapes that nested models, at any depth, are called on."""
        for call in calls(graph):
            model = call.operation
            if is_model(model):
                shapes = tuple(x.shape for x in handed_to(model, call))
                is_known = id(model) in self._given
                self._given.setdefault(id(model), (model, []))[1].append(shapes)
                if not is_known:
                    self._note_calls_of_models(graph_of(model))

    def run(self, model, inputs, path=()):
        graph = graph_of(model)
        read = itertools.chain(graph.outputs, *(x.inputs for x in calls(graph)))
        self._read |= set(map(id, read))
        self._taken |= {self._name_of(x.operation) for x in calls(graph)}
        around, self._graph = self._graph, graph
        outputs = super().run(model, inputs, path)
        self._graph = around
        return outputs

    def operation(self, old):
        """The copy of an operation; made when first asked for."""
        if _key(old) not in self._made:
            new = copy_operation(old)
            if self._becomes_stock(old):
                new.__class__ = stock_base(type(old))
            self._note(old, new)
        return self._made[_key(old)][1]

    def _becomes_stock(self, old):
        is_layer = isinstance(old, keras.Layer)
        return self._as_stock and is_layer and stock_base(type(old))

    def _name_of(self, old):
        """The name of the copy of an operation."""
        name = self._names.get(id(old), old.name)
        return self._prefix + name if isinstance(old, keras.Layer) else name

    def _note(self, old, new):
        name = self._name_of(old)
        if self._prefix and isinstance(old, keras.Layer):
            parts = name.split(BORDER)[:-1]
            ends = range(1, len(parts) + 1)
            vars(new)["blocks"] = [BORDER.join(parts[:end]) for end in ends]
        if name != old.name:
            new.name = name
        if isinstance(old, keras.Layer) and old.weights:
            vars(new)["_copied_from"] = _copied_from(old)
        self._made[_key(old)] = old, new

    def opened(self, layer, graph, arguments, given):
        """The `Opened` of a graph that a layer recorded on `arguments`."""
        inputs, self._recorded = [new_input(layer, x) for x in given], graph
        self.go_through(graph, mergeable_models(graph))
        ones = [
            y
            for x, y in zip(graph.inputs, inputs, strict=True)
            if x.shape[0] == 1
        ]
        self._samples = next(iter(ones), None)
        try:
            outputs = self._outputs(graph, inputs)
        except Exception as error:
            raise RecordingError(what_and_where(error)) from error
        own = set(map(id, inputs))
        # A call that returns what it was given would be a cycle in a graph.
        outputs = [
            keras.layers.Identity()(x) if id(x) in own else x for x in outputs
        ]
        outputs = keras.tree.pack_sequence_as(graph._outputs_struct, outputs)
        arguments = replaced(arguments, graph.inputs, inputs)
        args, _ = arguments
        # One that is read twice is one input.
        flat = keras.tree.flatten(args)
        each = sum(isinstance(x, keras.KerasTensor) for x in flat)
        is_one = len(args) == 1 and each == len(inputs)
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
                (graph._outputs_struct, self._outputs(graph, inputs)),
            )
        ]
        functional = Functional(*structures, name=graph.name)
        new = copy_operation(old)
        is_merged = any(id(x) in self._merged for x in old.layers)
        if is_merged and graph is not old:
            new.__class__ = Functional  # No Sequential any more.
            vars(new).pop("_functional", None)
        if is_merged or graph is old:
            own = {key: vars(functional)[key] for key in OF_THE_GRAPH}
        else:
            layers = [x._keras_history.operation for x in inputs]
            layers += [self.operation(x) for x in old.layers]
            own = {"_functional": functional, "_layers": layers}
        vars(new).update(own | dict.fromkeys(COMPILED), _opened_from=old)
        vars(new)["_put_in_place"] = self._put_in_place
        if isinstance(old, Opened):
            arguments = replaced(old.arguments, graph.inputs, inputs)
            vars(new)["arguments"] = arguments
        return new

    def _outputs(self, graph, inputs):
        """The outputs of the copy of a graph, which keep their names."""
        if self._merged:
            self._names |= names_in_one_graph(graph, self._merged)
        outputs = self.run(graph, inputs)
        for number, x in enumerate(graph.outputs):
            old = x._keras_history.operation
            if self.model_in(old) or self._is_put_in(old):
                same = self._identities.setdefault(
                    id(old), keras.layers.Identity(name=old.name)
                )
                outputs[number] = same(outputs[number])
        return outputs

    def model_in(self, operation):
        """The model, if its calls are put into the graph around it.

        The copy of any other model is called like a layer.
        """
        is_merged = id(operation) in self._merged or (
            isinstance(operation, Opened) and self._is_shared(operation)
        )
        return operation if is_merged else None

    def _is_shared(self, opened):
        parts = flat_layers(opened)
        return any(id(_copied_from(x)) in self._shared for x in parts)

    def _is_put_in(self, old):
        new = self._made.get(_key(old), (old, None))[1]
        return any(new is x for x in self._put_in_place)

    def _put_in(self, opened, given):
        """The outputs of an `Opened` whose calls are made in its place."""
        if not any(opened is x for x in self._put_in_place):
            self._put_in_place.append(opened)
            self._note_calls_of_models(opened)
        self._names |= {
            id(x): f"{opened.name}{BORDER}{x.name}"
            for x in opened.operations
            if not isinstance(x, keras.Layer)
        }
        given = [
            x if x.dtype == y.dtype else keras.ops.cast(x, y.dtype)
            for x, y in zip(given, opened.inputs, strict=True)
        ]
        return self.run(opened, given)

    def call(self, call, values):
        """The tensors that a call makes in the new graph."""
        old = call.operation
        if _returns_a_weight(call, values):
            return [values[id(call.inputs[0])]]
        args, kwargs = call.fill_in(values)
        if _key(old) not in self._made:
            self._make(call, values)
        elif self._is_opened(old) and not old.weights:
            self._make(call, values)
            new = self.operation(old)
            new.name = _another_name(new.name, self._taken)
            self._taken.add(new.name)
        new = self.operation(old)
        if self._is_opened(old):
            given = [values[id(x)] for x in tensors_in(call.arguments)]
            if self._is_shared(new):
                made = self._put_in(new, given)
            else:
                structure = new._inputs_struct
                made = new(keras.tree.pack_sequence_as(structure, given))
            numbers = zip(new.returned, keras.tree.flatten(made), strict=True)
            found = dict(numbers)
            return [found.get(i, x) for i, x in enumerate(call.outputs)]
        if type(new) is not type(old):
            taken = inspect.signature(new.call).parameters
            kwargs = {k: x for k, x in kwargs.items() if k in taken}
        made = keras.tree.flatten(new(*args, **kwargs))
        if self._samples is not None and self._repeats(call):
            made = [EachSample()([x, self._samples]) for x in made]
        return made

    def _repeats(self, call):
        """Whether a call repeats what it reads, once for each sample."""
        twice = self._twice.get(id(call.node))
        if twice is None:
            return False
        read, made = (
            [(x.shape, y.shape) for x, y in zip(*tensors, strict=True)]
            for tensors in (
                (call.inputs, twice.inputs),
                (call.outputs, twice.outputs),
            )
        )
        return all(a == b for a, b in read) and all(
            a[:1] == (1,) and b == (2, *a[1:]) for a, b in made
        )

    def _is_opened(self, old):
        new = self.operation(old)
        return isinstance(new, Opened) and not isinstance(old, Opened)

    def _make(self, call, values):
        """Note the copy of an operation that is not a plain copy."""
        old = call.operation
        if type(old) is Reshape:
            shape = with_open_batch(call, self._twice.get(id(call.node)))
            self._note(old, Reshape(shape, name=old.name))
        elif is_model(old):
            self._note(old, self.model(old, self._shapes_of(call, values)))
        elif self._opener is not None and not self._becomes_stock(old):
            try:
                opened = self._opened(call, values)
            except RecordingError as error:
                vars(self.operation(old))["not_opened"] = str(error)
                return
            if opened is None:
                return
            missing = set(range(len(call.outputs))) - set(opened.returned)
            if any(id(call.outputs[i]) in self._read for i in missing):
                vars(self.operation(old))["not_opened"] = CONSTANT
            else:
                self._note(old, opened)

    def _shapes_of(self, call, values):
        """Those of the inputs of the copy of a model that is called.

        Sizes that it leaves open stay so, unless all its calls have the same.
        """
        model, shapes = self._given[id(call.operation)]
        is_known = all(None not in x[1:] for found in shapes for x in found)
        if len(shapes) > 1 and not (is_known and len(set(shapes)) == 1):
            return None
        return [values[id(x)].shape for x in handed_to(model, call)]

    def _opened(self, call, values):
        """What the opener makes of a call.

        Where sizes have to be known, layers that will be put in place are
        still recorded on open sizes, if that can be.
        """
        others = self._prefix, functools.partial(self._first_sizes, call)
        opened = self._opener(call.operation, *call.fill_in(values), *others)
        if opened is not None and opened.branches and self._is_shared(opened):
            raise RecordingError(BRANCHES)
        if opened is None or not self._has_known_sizes:
            return opened
        if self._is_shared(opened):
            with contextlib.suppress(RecordingError):
                return self._opener(call.operation, *call.arguments, *others)
        vars(opened)["has_known_sizes"] = True
        return opened

    def _first_sizes(self, call):
        """Those of the tensors that a call reads, for one sample."""
        tensors, graph = tensors_in(call.arguments), self._graph
        sizes = [x.shape[0] if x.shape else 1 for x in tensors]
        if None not in sizes:
            return sizes
        if id(graph) not in self._sizes:
            rows = [1] * len(graph.inputs)
            if graph is self._recorded and self._one_sample is not None:
                rows = self._one_sample()
            self._sizes[id(graph)] = OneSample().run_on(graph, rows).sizes
        return [self._sizes[id(graph)][id(x)] for x in tensors]


def _another_name(name, taken) -> str:
    """The name with a number, so that it is none of those taken."""
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(x for x in numbered if x not in taken)


def _copied_from(layer):
    """The layer that a layer with weights is a copy of, or itself."""
    return vars(layer).get("_copied_from", layer)


def _returns_a_weight(call, values):
    """Whether a call makes a tensor of a weight, of the dtype that it has."""
    if not isinstance(call.operation, Cast | ConvertToTensor):
        return False
    given, made = values[id(call.inputs[0])], call.outputs[0]
    of = given._keras_history.operation
    return isinstance(of, Weight) and given.dtype == made.dtype


def _key(operation):
    """The same for an operation and its copies that share its weights."""
    return id(_copied_from(operation))


def _copied_input(x, shape):
    config = x._keras_history.operation.get_config()
    new = keras.layers.InputLayer(**config | {"batch_shape": tuple(shape)})
    new.output.name = x.name
    if tuple(shape) != tuple(x.shape):
        vars(new)["open_shape"] = tuple(x.shape)
    return new.output
