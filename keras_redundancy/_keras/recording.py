"""The graph inside a layer: what its `call` records when it runs on symbols."""

import contextlib
import functools
import inspect
import string

import keras
from keras.src import backend
from keras.src.models.functional import Functional
from keras.src.ops.numpy import Reshape

from keras_redundancy._keras.graph import calls
from keras_redundancy._keras.layers import (
    BORDER,
    flat_layers,
    is_stock_class,
    stock_base,
)
from keras_redundancy._keras.opened import (
    Copier,
    RecordingError,
    new_input,
    replaced,
    tensors_in,
    what_and_where,
)
from keras_redundancy._keras.running import without_gradients
from keras_redundancy._keras.tf_functions import tf_functions_recorded
from keras_redundancy._keras.variables import variables_in

NO_TENSORS = "its call returns something else than tensors"


class Weight(keras.layers.Layer):
    """Returns a weight, whatever it is called on.

    In the graph inside of a layer it stands where the `call` of the layer
    reads a weight of its own, so that a rule can say what its axes hold.
    """

    def __init__(self, shape, **kwargs):
        super().__init__(**kwargs)
        self.shape = shape

    @classmethod
    def of(cls, layer, variable, prefix=""):
        """The `Weight` that holds a variable of a layer."""
        new = cls(
            tuple(variable.shape),
            dtype=layer.dtype_policy,
            name=f"{prefix}{prefix and BORDER}{variable.name}_weight",
        )
        new.weight, new.built = variable, True
        return new

    def build(self, shape):
        self.weight = self.add_weight(shape=self.shape, name="weight")

    def call(self, x):
        return keras.ops.convert_to_tensor(self.weight)

    @property
    def weight_policy(self):
        """The dtype policy of what it returns."""
        is_cast = self.weight._autocast
        own = self.weight.dtype
        return self.dtype_policy if is_cast else keras.DTypePolicy(own)

    def compute_output_spec(self, x):
        dtype = self.weight_policy.compute_dtype
        return keras.KerasTensor(self.weight.shape, dtype)

    def get_config(self):
        return {**super().get_config(), "shape": self.shape}


def stand_for_weight(model):
    """`model`, marked as what takes the place of a `Weight`."""
    vars(model)["_stands_for_weight"] = True
    return model


def stands_for_weight(operation) -> bool:
    """Whether an operation takes the place of a `Weight`."""
    return "_stands_for_weight" in vars(operation)


def returns_weight(operation) -> bool:
    """Whether it is a `Weight`, or the layer that stands for one."""
    if isinstance(operation, keras.layers.EinsumDense):
        return operation.equation == scaling_equation(operation.kernel.shape)
    return isinstance(operation, Weight)


def scaling_equation(shape) -> str:
    """That of an `EinsumDense` which returns its kernel if it reads ones."""
    axes = string.ascii_lowercase[: len(shape)]
    return f"{axes[:1]},{axes}->{axes}"


def recorded(
    layer,
    args,
    kwargs,
    *,
    rows,
    through,
    as_stock=False,
    opener=None,
    prefix="",
    one_sample=None,
):
    """The graph that `layer.call(*args, **kwargs)` records.

    The layers in the graph are copies that share their variables with those
    inside of `layer`, which do not change.

    Args:
        layer: a built layer or model.
        args, kwargs: what it is called with; `KerasTensor`s for tensors.
        rows: the first size of each of these tensors for a batch of one
            sample, on which it runs; None leaves batches open.
        through: a function of a layer inside that says whether what it calls
            is recorded in place of its own call. A layer with variables of
            its own has to be left in one piece.
        as_stock: whether the copy of a layer whose class extends one of
            Keras's layers is of Keras's class.
        opener: a function of the graph that returns what `with_opened` takes.
        prefix: what to put before the names of the layers inside.
        one_sample: a function that returns `rows`, also where these are None;
            each is 1 without it.

    Returns:
        An `Opened`.

    Raises:
        RecordingError: the call fails on symbols, changes variables, or returns
            something else than tensors.
    """
    given = tensors_in((args, kwargs))

    def recorded_for(samples):
        sizes = [n and samples * n for n in rows or [None] * len(given)]
        inputs = [
            new_input(layer, x, n) for x, n in zip(given, sizes, strict=True)
        ]
        arguments = replaced((args, kwargs), given, inputs)
        with _seen_through(layer, is_opened):
            return arguments, *_recorded(layer, *arguments, inputs)

    def is_opened(part):
        becomes_stock = as_stock and stock_base(type(part))
        return not becomes_stock and through(part)

    with _undisturbed(layer, is_opened):
        arguments, graph, returned, returns_more = recorded_for(1)
        twice = {}
        if rows is not None and (of_one := _reshapes(graph)):
            of_two = _reshapes(recorded_for(2)[1])
            if len(of_one) == len(of_two):
                nodes = (id(x.node) for x in of_one)
                twice = dict(zip(nodes, of_two, strict=True))
        copier = Copier(
            opener and opener(graph), prefix, as_stock, twice, one_sample
        )
        opened = copier.opened(layer, graph, arguments, given)
        ones = rows or [1] * len(given)
        vars(opened).update(
            returned=returned,
            returns_more=returns_more,
            rows=[x.shape[0] or n for x, n in zip(given, ones, strict=True)],
        )
        return opened


def has_state(layer) -> bool:
    """Whether a layer itself, not one inside, has variables or randomness."""
    own = layer._trainable_variables + layer._non_trainable_variables
    return bool(own or layer._seed_generators)


def _reshapes(graph):
    return [x for x in calls(graph) if type(x.operation) is Reshape]


def _recorded(layer, args, kwargs, inputs):
    """The graph of one call, on the layers inside of `layer` themselves.

    Returns:
        The graph; `returned` and `returns_more` of the `Opened`.
    """
    try:
        with (
            keras.StatelessScope() as scope,
            _own_weights(layer, inputs[0]),
            without_gradients(),
            tf_functions_recorded(),
        ):
            outputs = layer.call(*args, **_for_inference(layer, kwargs))
    except Exception as error:
        raise RecordingError(what_and_where(error)) from error
    if scope.state_mapping:
        raise RecordingError("its call changes variables")
    flat = keras.tree.flatten(outputs)
    returned = [
        i for i, x in enumerate(flat) if isinstance(x, keras.KerasTensor)
    ]
    if not returned:
        raise RecordingError(NO_TENSORS)
    returns_more = len(returned) < len(flat)
    if returns_more:
        outputs = [flat[number] for number in returned]
    try:
        graph = Functional(inputs, outputs)
    except ValueError as error:
        raise RecordingError(what_and_where(error)) from error
    _require_own_variables(layer, graph)
    return graph, returned, returns_more


def _require_own_variables(layer, graph):
    own = set(map(id, layer.variables))
    for call in calls(graph):
        for variable in variables_in(call.arguments):
            if id(variable) not in own:
                raise RecordingError(
                    f"its call reads {variable.path!r}, which is no weight of "
                    f"{layer.name}"
                )


@contextlib.contextmanager
def _own_weights(layer, x, prefix=""):
    """Put symbols in the place of the weights that a layer itself holds."""
    own = set(map(id, layer._trainable_variables))
    before = {k: v for k, v in vars(layer).items() if id(v) in own and v.shape}
    made = {id(v): Weight.of(layer, v, prefix)(x) for v in before.values()}
    vars(layer).update({key: made[id(v)] for key, v in before.items()})
    try:
        yield
    finally:
        vars(layer).update(before)


@contextlib.contextmanager
def _undisturbed(layer, through):
    """Take away what calls inside of a layer leave on the layers there.

    Meanwhile no two layers have the same name, and those inside of a layer
    that is gone through have its name before theirs. They say what they return
    even where their own `compute_output_spec` fails. An `EinsumDense` does not
    forget the sizes that it is called on.
    """
    parts = flat_layers(layer)
    before = [
        (x, x.name, x._inbound_nodes[:], x._outbound_nodes[:]) for x in parts
    ]
    _set_names(layer, "", through, set(map(id, parts[:1])), set())
    for part in parts[1:]:
        if isinstance(part, keras.layers.EinsumDense):
            spec = functools.partial(_einsum_spec, part)
            vars(part)["compute_output_spec"] = spec
        elif not is_stock_class(type(part)):
            vars(part)["compute_output_spec"] = functools.partial(_spec, part)
    try:
        yield
    finally:
        for part, name, inbound, outbound in before:
            part.name = name
            part._inbound_nodes, part._outbound_nodes = inbound, outbound
            vars(part).pop("compute_output_spec", None)


def _set_names(layer, prefix, through, seen, names):
    for part in flat_layers(layer, recursive=False)[1:]:
        if id(part) in seen:
            continue
        seen.add(id(part))
        name = prefix + part.name.removeprefix(layer.name + BORDER)
        while name in names:
            name += "_"
        names.add(name)
        part.name = name
        inner = name + BORDER if through(part) else ""
        _set_names(part, inner, through, seen, names)


@contextlib.contextmanager
def _seen_through(layer, through):
    """Let layers inside record what they call, in place of their own calls.

    Those are the ones that are gone through, and those that return None among
    tensors, which no node can record.
    """
    parts = [x for x in flat_layers(layer)[1:] if not is_stock_class(type(x))]
    classes = list(map(type, parts))
    for part, cls in zip(parts, classes, strict=True):
        call = _call_inside if through(part) else _call
        part.__class__ = type(cls.__name__, (cls,), {"__call__": call})
    try:
        yield
    finally:
        for part, cls in zip(parts, classes, strict=True):
            part.__class__ = cls


def _call_inside(layer, *args, **kwargs):
    if tensors_in((args, kwargs)):
        try:
            return _on_symbols(layer, args, kwargs)
        except Exception:  # Its own code fails: then it is one operation.
            return _call(layer, *args, **kwargs)
    return super(type(layer), layer).__call__(*args, **kwargs)


def _call(layer, *args, **kwargs):
    if tensors_in((args, kwargs)):
        kwargs = _for_inference(layer, kwargs)
        made = layer.compute_output_spec(*args, **kwargs)
        if any(x is None for x in keras.tree.flatten(made)):
            return _on_symbols(layer, args, kwargs)
    return super(type(layer), layer).__call__(*args, **kwargs)


def _on_symbols(layer, args, kwargs):
    """What the `call` of a layer returns, on tensors of its own dtype."""
    args, kwargs = keras.tree.map_structure(
        lambda x: layer.dtype_policy.convert_input(
            x, layer.autocast, layer.input_dtype
        ),
        (args, kwargs),
    )
    with _own_weights(layer, tensors_in((args, kwargs))[0], layer.name):
        return layer.call(*args, **_for_inference(layer, kwargs))


def _for_inference(layer, kwargs):
    """`kwargs` with training=False if the layer's `call` takes that.

    Keras leaves `training` out as well where a `call` does not take it.
    """
    taken = inspect.signature(layer.call).parameters
    if "training" in taken:
        return {**kwargs, "training": False}
    if any(x.kind is x.VAR_KEYWORD for x in taken.values()):
        return kwargs
    return {k: x for k, x in kwargs.items() if k != "training"}


def _spec(layer, *args, **kwargs):
    try:
        return type(layer).compute_output_spec(layer, *args, **kwargs)
    except Exception:
        return backend.compute_output_spec(layer.call, *args, **kwargs)


def _einsum_spec(layer, x):
    kernel = keras.KerasTensor(layer.kernel.shape, layer.compute_dtype)
    made = keras.ops.einsum(layer.equation, x, kernel)
    return keras.KerasTensor(made.shape, layer.compute_dtype)
