"""The one module that touches what Keras does not export.

Keras has no public way to walk the graph of a model. Everything this package
needs for it is here, and `tests/test_keras_internals.py` is its contract:
when a Keras release changes one of these attributes, that test says which.
"""

import contextlib
import dataclasses
import functools
import inspect
import itertools
from typing import Any

import keras
from keras.src import backend
from keras.src.applications.convnext import LayerScale as LayerScale
from keras.src.applications.inception_resnet_v2 import (
    CustomScaleLayer as CustomScaleLayer,
)
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as ConvLSTMCell
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.ops import core, image, math, nn, numpy
from keras.src.ops.operation import Operation
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers.data_adapters import get_data_adapter

core_operations = core
image_operations = image
math_operations = math
nn_operations = nn
numpy_operations = numpy


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an operation in a model's graph.

    `inputs` and `outputs` are the flat lists of `KerasTensor`s that the call
    read and made.
    """

    node: Any

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
    """A `Call` that stands in no graph: one that a layer makes of another."""

    operation: Any
    inputs: list
    outputs: list
    arguments: tuple[tuple, dict]
    node: None = None


def imagined_call(layer, tensors: list) -> ImaginedCall:
    """The call `layer(*tensors)` of a built layer on `KerasTensor`s."""
    outputs = keras.tree.flatten(layer.compute_output_spec(*tensors))
    return ImaginedCall(layer, tensors, outputs, (tuple(tensors), {}))


def is_model(operation) -> bool:
    """Whether an operation of a graph is itself a model that runs its graph.

    A model with a `call` of its own does something else with it.
    """
    if isinstance(operation, keras.Sequential):
        return type(operation).call is keras.Sequential.call
    if isinstance(operation, Functional):
        return type(operation).call is Functional.call
    return False


def wraps_one_layer(operation) -> bool:
    """Whether it is made as `Class(layer, **config)`, like TimeDistributed."""
    wrapper = keras.layers.Wrapper
    return (
        isinstance(operation, wrapper)
        and type(operation).from_config.__func__ is wrapper.from_config.__func__
    )


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
            "graph to follow. Make a functional model of it: inputs = "
            "keras.Input(shape), then keras.Model(inputs, "
            "<what call() does, written on inputs>), and copy the weights "
            "with set_weights()."
        )
    raise TypeError(
        "Expected a keras.Model (functional or Sequential), but received "
        f"{type(model).__name__}: {model!r}. For a saved model, pass what "
        "keras.models.load_model(path) returns."
    )


def calls(graph) -> list[Call]:
    """The calls of `graph`, inputs excluded, in an order that can be run."""
    by_depth = graph._nodes_by_depth
    return [
        Call(node)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def calls_at_any_depth(model) -> list[Call]:
    """The calls in the graph of `model`, with those of nested models."""
    found = []
    for call in calls(graph_of(model)):
        if is_model(call.operation):
            found += calls_at_any_depth(call.operation)
        else:
            found.append(call)
    return found


def leaves(model) -> list:
    """The layers of the graph, at any depth, that are no models with one."""
    found = {}
    for operation in graph_of(model).operations:
        if is_model(operation):
            found |= {id(x): x for x in leaves(operation)}
        elif isinstance(operation, keras.Layer):
            found[id(operation)] = operation
    return list(found.values())


def variables_in(arguments) -> list:
    """The variables in a nested structure of arguments."""
    flat = keras.tree.flatten(arguments)
    return [x for x in flat if isinstance(x, keras.Variable)]


class _Reads(keras.StatelessScope):
    """Notes the variables whose values are asked for."""

    def __init__(self):
        super().__init__()
        self.variables = {}

    def get_current_value(self, variable):
        self.variables[id(variable)] = variable
        return super().get_current_value(variable)


def variables_read(layer, args, kwargs) -> list:
    """The variables that `layer.call(*args, **kwargs)` reads.

    Args:
        layer: a built layer.
        args, kwargs: what it is called with; `KerasTensor`s for tensors.
    """
    reads = _Reads()
    flat = keras.tree.flatten((args, kwargs))
    symbolic = [isinstance(x, keras.KerasTensor) for x in flat]

    def call(*tensors):
        # All else is held here: JAX takes no variables as arguments.
        rest = iter(tensors)
        given = [
            next(rest) if is_symbolic else x
            for x, is_symbolic in zip(flat, symbolic, strict=True)
        ]
        args_and_kwargs = keras.tree.pack_sequence_as((args, kwargs), given)
        with reads:
            return layer.call(*args_and_kwargs[0], **args_and_kwargs[1])

    # A call that can only run on numbers is known as far as it came.
    with contextlib.suppress(Exception):
        backend.compute_output_spec(call, *itertools.compress(flat, symbolic))
    return list(reads.variables.values())


def is_random_state(variable) -> bool:
    """Whether it is the state of a `keras.random.SeedGenerator`."""
    return variable.name == "seed_generator_state"


def node_of(tensor):
    """The node that records the call which made a `KerasTensor`."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def replace_arguments(node, function) -> None:
    """Put function(x) in the place of each x among a call's arguments."""
    arguments = node.arguments
    arguments.args, arguments.kwargs = keras.tree.map_structure(
        function, (arguments.args, arguments.kwargs)
    )


def run_for_inference(operation, args, kwargs):
    """What an operation of a graph returns when the model predicts."""
    if "training" in getattr(operation, "_call_context_args", ()):
        kwargs = {**kwargs, "training": False}
    return operation(*args, **kwargs)


def mask_of(tensor):
    """The mask that a layer set for what it returned, or None."""
    return getattr(tensor, "_keras_mask", None)


def standardized_inputs(graph, x) -> list:
    """What a model is given, as a list in the order of `graph.inputs`.

    Raises:
        ValueError: the structure is not that of the inputs.
    """
    return graph._standardize_inputs(x)


def numpy_batches(data, batch_size: int) -> tuple:
    """The batches of what `predict` takes, and how many there are.

    Returns:
        (an iterator of x, (x,), (x, y) or (x, y, weights); their number, or
        None where it is not known).

    Raises:
        TypeError, ValueError: `data` is of no kind that Keras takes.
    """
    adapter = get_data_adapter(data, batch_size=batch_size)
    return _one_pass(adapter), adapter.num_batches


def _one_pass(adapter):
    """A pass that ends the threads that made its batches when it ends."""
    adapter.on_epoch_begin()
    try:
        yield from adapter.get_numpy_iterator()
    finally:
        adapter.on_epoch_end()


def output_tensors(call, tensors: dict) -> list:
    """`KerasTensor`s of what a call returns for the inputs `tensors`.

    Args:
        call: a `Call`.
        tensors: {id(x): tensor} for every recorded input x.

    Returns:
        The recorded outputs where the inputs have the recorded shapes, else
        new ones, wired to no graph.
    """
    given = [tensors[id(x)] for x in call.inputs]
    # It answers with the sizes that it was made with, open ones as well.
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


def input_structure(graph):
    """The inputs of `graph` in the structure the model was made with."""
    return graph._inputs_struct


def output_structure(graph):
    """The outputs of `graph` in the structure the model was made with."""
    return graph._outputs_struct


def origin(tensor):
    """The operation that made a `KerasTensor`."""
    return tensor._keras_history.operation


def trusting_own_objects():
    """A scope in which configs of live objects may hold Python functions."""
    return SafeModeScope(False)


def copy_operation(operation):
    """A copy of an operation without weights, not wired to any graph.

    `copy.copy` would save and load it, which not all operations can.
    """
    clone = object.__new__(type(operation))
    vars(clone).update(vars(operation))
    clone._inbound_nodes = []
    clone._outbound_nodes = []
    return clone


def returning_sequences(layer):
    """A recurrent layer that runs the cell of `layer`, as it does.

    It returns what the cell returned at every step, and nothing else; where a
    step is masked, what it returned before.
    """
    copy = copy_operation(layer)
    vars(copy).update(
        return_sequences=True, return_state=False, zero_output_for_mask=False
    )
    return copy


def has_config(operation) -> bool:
    """Whether `operation` can be made anew with other settings.

    Layers always count: those that cannot be are refused before.
    """
    own = type(operation).get_config is not Operation.get_config
    return own or operation._auto_config is not None


def lambda_output_shape(layer):
    """The `output_shape` that a `Lambda` layer was made with."""
    return layer._output_shape


def flat_layers(model, recursive: bool = True) -> list:
    """`model` and all its layers at any depth, the outer before the inner.

    Those right inside of it alone where `recursive` is False.
    """
    return model._flatten_layers(recursive=recursive)


def rebuildable_class(model) -> type:
    """The class to rebuild `model` with, which may be a plain one.

    A subclass that is made like its base, as `Class(inputs, outputs)` or
    `Class(layers)`, keeps its class, and with it a custom `train_step`.
    """
    cls = type(model)
    if isinstance(model, keras.Sequential):
        alike = cls.__init__ is keras.Sequential.__init__
    else:
        alike = functional_like_constructor(cls)
    return cls if alike else plain_class(model)


def plain_class(model) -> type:
    """The class of Keras that the class of `model` extends."""
    is_sequential = isinstance(model, keras.Sequential)
    return keras.Sequential if is_sequential else keras.Model


def is_stock_class(cls) -> bool:
    """Whether it comes with Keras or with this package."""
    return cls.__module__.split(".")[0] in ("keras", "keras_redundancy")


def has_own_config(cls) -> bool:
    """Whether a class of models has a `get_config` of the user's own."""
    own = (keras.Model.get_config, Functional.get_config)
    return cls.get_config not in (*own, keras.Sequential.get_config)


# What Keras sets on a model later than in its constructor.
SET_LATER = {
    "_compile_config",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
    "_functional",
    "_jax_state",
    "_jax_state_synced",
    "history",
    "optimizer",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
}


def own_attributes(model) -> dict:
    """{name: value} of the attributes of a model that Keras did not set."""
    known = _attributes_of_all_models() | SET_LATER
    return {key: x for key, x in vars(model).items() if key not in known}


@functools.cache
def _attributes_of_all_models():
    x = keras.Input((1,), name="plain_input")
    return set(vars(keras.Model(x, x, name="plain")))


def compile_arguments(model) -> dict | None:
    """What `model.compile` was called with, or None if it never was."""
    if not model.compiled or not hasattr(model, "_compile_config"):
        return None
    return dict(model._compile_config.config)


def loss_function(loss) -> tuple[str | None, bool]:
    """The name of the function that a loss computes; does it take logits?"""
    function = getattr(loss, "fn", None)
    settings = getattr(loss, "_fn_kwargs", {})
    return getattr(function, "__name__", None), settings.get(
        "from_logits", False
    )


def compile_is_overridden(model) -> bool:
    """Whether the class of `model` has a `compile` of its own."""
    return type(model).compile is not keras.Model.compile


def attention_projections(layer) -> dict:
    """The `EinsumDense` layers inside an attention layer with heads.

    Returns:
        {"query": ..., "key": ..., "value": ..., "output": ...}, and "gate"
        where the layer has one.
    """
    projections = {
        "query": layer._query_dense,
        "key": layer._key_dense,
        "value": layer._value_dense,
    }
    if hasattr(layer, "_gate_dense"):
        projections["gate"] = layer._gate_dense
    return projections | {"output": layer._output_dense}


# What the optimizers of Keras keep in lists by these names; what they keep in
# others, such as momenta, is linear in the gradients.
SLOT_KINDS = {
    "_velocities": "square",
    "_velocity_hats": "square",
    "_accumulators": "square",
    "_accumulated_grads": "square",
    "_accumulated_delta_vars": "square",
    "_v": "square",
    "_u": "size",
    "adam_velocities": "square",
    "_model_variables_moving_average": "weights",
}


def _inner(optimizer):
    """The one that keeps slots: one that scales losses holds another one."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _is_schedule_free(optimizer):
    return isinstance(optimizer, keras.optimizers.ScheduleFreeAdamW)


def slots(optimizer, variable) -> list[tuple]:
    """What an optimizer keeps for a variable that it trains.

    Returns:
        [(slot variable, kind), ...]: "linear" in gradients, a "square" of
        them, a "size", the root of one, or averages of "weights"; none if the
        optimizer is None or does not train the variable.
    """
    optimizer = _inner(optimizer)
    trained = getattr(optimizer, "_trainable_variables", [])
    places = [i for i, x in enumerate(trained) if x is variable]
    found = []
    for name, kept in vars(optimizer).items() if places else ():
        if (
            isinstance(kept, list)
            and name not in ("_trainable_variables", "_variables")
            and len(kept) == len(trained)
            and isinstance(kept[places[0]], keras.Variable)
        ):
            kind = SLOT_KINDS.get(name, "linear")
            if name == "_momentums" and _is_schedule_free(optimizer):
                kind = "weights"
            found.append((kept[places[0]], kind))
    return found


def averages_weights(optimizer) -> bool:
    """Whether `fit` ends with other weights than those of its last step."""
    optimizer = _inner(optimizer)
    return getattr(optimizer, "use_ema", False) or _is_schedule_free(optimizer)


def number_of_batches(x, y, options: dict) -> int | None:
    """How many steps an epoch of `Model.fit` has; None if that is open.

    Args:
        x, y: what it is given.
        options: its other arguments.
    """
    steps = options.get("steps_per_epoch")
    if steps is not None or inspect.isgenerator(x):
        return steps  # Keras would read the first batches of a generator.
    split = options.get("validation_split") or 0
    try:
        adapter = get_data_adapter(x, y, batch_size=options.get("batch_size"))
        count = adapter.num_batches
    except (TypeError, ValueError):
        return None  # `fit` says what is wrong.
    if count is None or not split:
        return count
    kept = int(len(keras.tree.flatten(x)[0]) * (1 - split))
    return -(-kept // (options.get("batch_size") or 32))


def counters(optimizer) -> list:
    """What an optimizer keeps for no variable alone, such as iterations."""
    inner = _inner(optimizer)
    kept_for_one = {
        id(slot)
        for variable in inner._trainable_variables
        for slot, _ in slots(inner, variable)
    }
    return [v for v in optimizer.variables if id(v) not in kept_for_one]


def copy_weight_decay(old, new, variables: list[tuple]) -> None:
    """Leave alone what another optimizer's weight decay leaves alone.

    Args:
        old, new: optimizers of the same class.
        variables: [(variable of old, its counterpart in new), ...].
    """
    old, new = _inner(old), _inner(new)
    if not hasattr(old, "_exclude_from_weight_decay"):
        return
    new._exclude_from_weight_decay_pattern = (
        old._exclude_from_weight_decay_pattern
    )
    new._exclude_from_weight_decay = {
        new._var_key(target)
        for source, target in variables
        if old._var_key(source) in old._exclude_from_weight_decay
    }
    new._exclude_from_weight_decay_cache = {}


def resize(variable, value, optimizer=None) -> None:
    """Give a variable a value of another shape, in place.

    What holds it, such as a layer, an optimizer and a file, goes on with it.
    Functions that were compiled with it have to be made anew: see
    `forget_functions`.

    Args:
        variable: a `keras.Variable` on one device.
        value: an array.
        optimizer: one that trains it, or None.
    """
    optimizer = _inner(optimizer)
    indices = getattr(optimizer, "_trainable_variables_indices", {})
    excluded = getattr(optimizer, "_exclude_from_weight_decay", set())
    # On TensorFlow the key of a variable is that of its value.
    key = optimizer._var_key(variable) if optimizer else None
    value = keras.ops.convert_to_tensor(value, variable.dtype)
    variable._shape = tuple(value.shape)
    variable._initialize(value)
    if key in indices:
        indices[optimizer._var_key(variable)] = indices.pop(key)
    if key in excluded:
        excluded.add(optimizer._var_key(variable))


def forget_functions(model) -> None:
    """Have a model compile its functions anew, now or when they are needed."""
    model.test_function = model.predict_function = None
    model.make_train_function(force=True)


def flush(callbacks) -> None:
    """Wait for what a `CallbackList` does while training goes on."""
    if callbacks._async_train:
        callbacks._flush_futures()


def replicas(model) -> int:
    """On how many devices at once a model is trained by `tf.distribute`."""
    strategy = getattr(model, "distribute_strategy", None)
    return getattr(strategy, "num_replicas_in_sync", 1)


def scope_of(owner):
    """A context in which variables are made on the devices of an owner's.

    That is the scope of the `tf.distribute` strategy that `owner`, a model or
    an optimizer, was made under. `keras.distribution` needs no scope.
    """
    strategy = getattr(owner, "_distribute_strategy", None)
    strategy = strategy or getattr(owner, "_distribution_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def predict_on_one_replica(model, x):
    """`model.predict_on_batch(x)` for what is to see a batch as a whole.

    Under a `tf.distribute` strategy of several replicas, `predict_on_batch`
    runs `model` on each of them and joins what they return.
    """
    if replicas(model) == 1:
        return model.predict_on_batch(x)
    if model.predict_function is None:
        import tensorflow as tf

        model.predict_function = tf.function(
            model.predict_step, autograph=False, reduce_retracing=True
        )
    found = model.predict_function((x,))
    return keras.tree.map_structure(keras.ops.convert_to_numpy, found)
