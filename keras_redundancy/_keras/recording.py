"""The graph inside a layer: what its `call` records when it runs on symbols."""

import contextlib
import functools
import inspect

import keras
import numpy as np
from keras.src import backend
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.models.functional import Functional

from keras_redundancy._keras.copier import Copier
from keras_redundancy._keras.graph import calls
from keras_redundancy._keras.layers import (
    BORDER,
    flat_layers,
    is_stock_class,
    stock_base,
)
from keras_redundancy._keras.opened import (
    RecordingError,
    new_input,
    replaced,
    tensors_in,
    what_and_where,
)
from keras_redundancy._keras.running import without_gradients
from keras_redundancy._keras.subscripts import all_subscripts
from keras_redundancy._keras.symbols import CHANGES, Constant, own_weights
from keras_redundancy._keras.tf_functions import tf_functions_recorded
from keras_redundancy._keras.variables import Reads, variables_in

NO_TENSORS = "its call returns something else than tensors"


class _Recording(Reads):
    """The scope of a call that is recorded.

    Attributes:
        symbol: the symbolic tensor that constants in the graph are called on.
    """

    def __init__(self, symbol):
        super().__init__()
        self.symbol = symbol


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
    training=False,
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
        training: the `training` that `call` gets where it takes that. The
            layers in the graph get False even so, unless they are called in
            another way.

    Returns:
        An `Opened`.

    Raises:
        RecordingError: the call fails on symbols, changes variables, reads
            their values, or returns something else than tensors.
    """
    given = tensors_in((args, kwargs))

    def recorded_for(samples, training=training):
        sizes = [n and samples * n for n in rows or [None] * len(given)]
        inputs = [
            new_input(layer, x, n) for x, n in zip(given, sizes, strict=True)
        ]
        arguments = replaced((args, kwargs), given, inputs)
        with _seen_through(layer, is_opened, training):
            return arguments, *_recorded(layer, *arguments, inputs, training)

    def is_opened(part):
        becomes_stock = as_stock and stock_base(type(part))
        return not becomes_stock and through(part)

    parts = flat_layers(layer)[1:]
    with _undisturbed(layer, is_opened) as adding:
        arguments, graph, returned, returns_more = recorded_for(1)
        branches = False
        if any(map(_takes_training, [layer, *filter(is_opened, parts)])):
            branches = _branches(
                graph, lambda: recorded_for(1, not training)[1]
            )
        if training:
            _set_to_inference(graph)
        twice = {}
        if rows is not None:
            with contextlib.suppress(RecordingError):
                twice = _same_calls(graph, recorded_for(2)[1])
        copier = Copier(
            opener and opener(graph), prefix, as_stock, twice, one_sample
        )
        opened = copier.opened(layer, graph, arguments, given)
        ones = rows or [1] * len(given)
        vars(opened).update(
            returned=returned,
            returns_more=returns_more,
            branches=branches,
            adding=list(adding.values()),
            rows=[x.shape[0] or n for x, n in zip(given, ones, strict=True)],
        )
        return opened


def has_state(layer) -> bool:
    """Whether a layer itself, not one inside, has variables or randomness."""
    own = layer._trainable_variables + layer._non_trainable_variables
    return bool(own or layer._seed_generators)


def _same_calls(graph, other) -> dict:
    """{id(node): the same call in another graph}; empty if there are others."""
    both = calls(graph), calls(other)
    first, second = ([type(x.operation) for x in found] for found in both)
    if first != second:
        return {}
    return {id(a.node): b for a, b in zip(*both, strict=True)}


def _takes_training(layer) -> bool:
    own = not is_stock_class(type(layer))
    return own and "training" in inspect.signature(layer.call).parameters


def _branches(graph, record_other) -> bool:
    """Whether another graph, recorded by a function, has other calls."""
    try:
        other = record_other()
    except Exception:  # Such as random numbers, which change variables.
        return True
    return _described(graph) != _described(other)


def _described(graph) -> list:
    """The calls of a graph, the same for two graphs of the same calls."""
    numbers = {id(x): n for n, x in enumerate(graph.inputs)}

    def described(x):
        if isinstance(x, keras.KerasTensor):
            return numbers[id(x)]
        if isinstance(x, keras.Variable):
            return id(x)
        return tuple(x.shape) if hasattr(x, "shape") else repr(x)

    found = []
    for call in calls(graph):
        args, kwargs = call.arguments
        kwargs = {k: x for k, x in kwargs.items() if k != "training"}
        has_weights = getattr(call.operation, "weights", ())
        what = id(call.operation) if has_weights else type(call.operation)
        flat = keras.tree.flatten((args, kwargs))
        found.append((what, [*kwargs], [described(x) for x in flat]))
        for x in call.outputs:
            numbers.setdefault(id(x), len(numbers))
    return [*found, [numbers[id(x)] for x in graph.outputs]]


def _set_to_inference(graph) -> None:
    """Layers in the graph are called with training=False instead of True."""
    for call in calls(graph):
        kwargs = call.node.arguments.kwargs
        if kwargs.get("training") is True:
            call.node.arguments.kwargs = {**kwargs, "training": False}


def _recorded(layer, args, kwargs, inputs, training):
    """The graph of one call, on the layers inside of `layer` themselves.

    Returns:
        The graph; `returned` and `returns_more` of the `Opened`.
    """
    try:
        with (
            _Recording(inputs[0]) as scope,
            own_weights(layer, inputs[0]),
            without_gradients(),
            tf_functions_recorded(),
            all_subscripts(),
        ):
            kwargs = _with_training(layer, kwargs, training)
            outputs = layer.call(*args, **kwargs)
    except RecordingError:
        raise
    except Exception as error:
        raise RecordingError(what_and_where(error)) from error
    if scope.state_mapping:
        raise RecordingError(CHANGES)
    _require_no_values(scope.variables.values())
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
    known = set(map(id, graph.variables))
    read = (x for call in calls(graph) for x in variables_in(call.arguments))
    _require_no_values(x for x in read if id(x) not in known)
    return graph, returned, returns_more


def _require_no_values(variables) -> None:
    """Raise an error if a call reads variables that the graph cannot hold.

    A graph would hold what is computed from their values as a constant, which
    is not trained, and which the smaller model does not share with a layer.
    """
    paths = ", ".join(dict.fromkeys(repr(x.path) for x in variables))
    if paths:
        raise RecordingError(
            f"its call itself computes with variables ({paths}); only layers, "
            "and weights that add_weight() makes, in an attribute each, can "
            "be followed"
        )


@contextlib.contextmanager
def _undisturbed(layer, through):
    """Take away what calls inside of a layer leave on the layers there.

    Meanwhile no two layers have the same name, and those inside of a layer
    that is gone through have its name before theirs. They say what they return
    even where their own `compute_output_spec` fails. An `EinsumDense` does not
    forget the sizes that it is called on. Losses and metrics are left out,
    which are computed beside what a call returns.

    Yields:
        {id: a layer that adds a loss, and would not if its graph took its
        place}, which is filled while calls are recorded.
    """
    parts = flat_layers(layer)
    before = [
        (x, x.name, x._inbound_nodes[:], x._outbound_nodes[:]) for x in parts
    ]
    beside, adding = [], {}
    for part in parts:
        if not is_stock_class(type(part)):
            is_lost = part is layer or through(part)
            lost = adding if is_lost else {}
            beside.append((part, "add_loss", _Noting(lost, part)))
        for metric in part._metrics:
            beside.append((metric, "update_state", _Noting({}, metric)))
            result = functools.partial(_result, metric)
            beside.append((metric, "result", result))
    for owner, name, noting in beside:
        vars(owner)[name] = noting
    _set_names(layer, "", through, set(map(id, parts[:1])), set())
    for part in parts[1:]:
        if isinstance(part, keras.layers.EinsumDense):
            spec = functools.partial(_einsum_spec, part)
            vars(part)["compute_output_spec"] = spec
        elif not is_stock_class(type(part)):
            vars(part)["compute_output_spec"] = functools.partial(_spec, part)
    try:
        yield adding
    finally:
        for part, name, inbound, outbound in before:
            part.name = name
            part._inbound_nodes, part._outbound_nodes = inbound, outbound
            vars(part).pop("compute_output_spec", None)
        for owner, name, _ in beside:
            vars(owner).pop(name, None)


class _Noting:
    """Called in place of a method, it notes whose method that was."""

    def __init__(self, noted, owner):
        self.noted, self.owner = noted, owner

    def __call__(self, *args, **kwargs):
        self.noted[id(self.owner)] = self.owner


def _result(metric):
    """Of a metric, symbols that no output of a graph can be computed from."""
    with keras.StatelessScope():
        found = type(metric).result(metric)
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor(keras.ops.shape(x), x.dtype), found
    )


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
def _seen_through(layer, through, training):
    """Let layers inside record what they call, in place of their own calls.

    Those are the ones that are gone through, and those that return None among
    tensors, which no node can record. Layers with weights record calls on
    arrays as well.
    """

    def calling(function):
        return lambda part, /, *args, **kwargs: function(
            part, training, *args, **kwargs
        )

    parts = [
        x
        for x in flat_layers(layer)[1:]
        if x.weights or not is_stock_class(type(x))
    ]
    classes = list(map(type, parts))
    is_stock = list(map(is_stock_class, classes))
    ways = [
        _call_on_constants if x else _call_inside if through(part) else _call
        for part, x in zip(parts, is_stock, strict=True)
    ]
    for part, cls, way in zip(parts, classes, ways, strict=True):
        call = calling(way)
        part.__class__ = type(cls.__name__, (cls,), {"__call__": call})
    try:
        yield
    finally:
        for part, cls in zip(parts, classes, strict=True):
            part.__class__ = cls


def _call_on_constants(layer, training, /, *args, **kwargs):
    args, kwargs = _with_symbols(layer, args, kwargs)
    return super(type(layer), layer).__call__(*args, **kwargs)


def _with_symbols(layer, args, kwargs):
    """The arguments of a call, with symbols for arrays if there are no others.

    Inside of calls of layers that are recorded as one operation, there are
    tensors of the backend in place of symbols.
    """
    scope = get_stateless_scope()
    is_recorded = isinstance(scope, _Recording) and layer.weights
    if not is_recorded or tensors_in((args, kwargs)):
        return args, kwargs

    def symbol(x):
        if not (isinstance(x, np.ndarray) or keras.ops.is_tensor(x)):
            return x
        return Constant(keras.ops.convert_to_numpy(x))(scope.symbol)

    return keras.tree.map_structure(symbol, (args, kwargs))


def _call_inside(layer, training, /, *args, **kwargs):
    args, kwargs = _with_symbols(layer, args, kwargs)
    if tensors_in((args, kwargs)):
        try:
            return _on_symbols(layer, training, args, kwargs)
        except Exception:  # Its own code fails: then it is one operation.
            return _call(layer, training, *args, **kwargs)
    return super(type(layer), layer).__call__(*args, **kwargs)


def _call(layer, training, /, *args, **kwargs):
    args, kwargs = _with_symbols(layer, args, kwargs)
    if tensors_in((args, kwargs)):
        kwargs = _with_training(layer, kwargs, training)
        made = layer.compute_output_spec(*args, **kwargs)
        if any(x is None for x in keras.tree.flatten(made)):
            return _on_symbols(layer, training, args, kwargs)
    return super(type(layer), layer).__call__(*args, **kwargs)


def _on_symbols(layer, training, args, kwargs):
    """What the `call` of a layer returns, on tensors of its own dtype."""
    args, kwargs = keras.tree.map_structure(
        lambda x: layer.dtype_policy.convert_input(
            x, layer.autocast, layer.input_dtype
        ),
        (args, kwargs),
    )
    with own_weights(layer, tensors_in((args, kwargs))[0], layer.name):
        return layer.call(*args, **_with_training(layer, kwargs, training))


def _with_training(layer, kwargs, training):
    """`kwargs` with `training` if the layer's `call` takes that.

    Keras leaves `training` out as well where a `call` does not take it.
    """
    taken = inspect.signature(layer.call).parameters
    if "training" in taken:
        return {**kwargs, "training": training}
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
