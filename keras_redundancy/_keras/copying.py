"""Copies of layers that cannot be made anew from their configs."""

import types

import keras
from keras.src.models.functional import Functional

from keras_redundancy._keras.graph import (
    graph_beside_call,
    input_structure,
    is_model,
    origin,
    output_structure,
)
from keras_redundancy._keras.layers import (
    attributes_of,
    copy_operation,
    flat_layers,
)
from keras_redundancy._keras.models import SET_LATER
from keras_redundancy._keras.variables import is_random_state, set_value
from keras_redundancy._keras.walk import Interpreter

# What `keras.Layer.__init__` sets to something else than the copied layer has.
OF_A_LAYER = (
    "_allow_non_tensor_positional_args",
    "_build_shapes_dict",
    "_called",
    "_convert_input_args",
    "_dtype_policy",
    "_input_spec",
    "_path",
    "_supports_masking",
    "_trainable",
    "activity_regularizer",
    "autocast",
    "built",
    "supports_jit",
)
# The lists in which Keras tracks what a layer holds.
LISTS = (
    "layers",
    "metrics",
    "non_trainable_variables",
    "seed_generators",
    "trainable_variables",
)


def copy_with_variables(layer):
    """A copy of a built layer with variables of its own, of the same values.

    Layers, models and metrics inside and random generators are copied as well.
    What else the layer holds, such as functions and settings, the copy holds
    too.

    Raises:
        ValueError: the copy would share variables with the layer, or a part of
            it cannot be copied.
    """
    try:
        return _Copies(layer).of(layer)
    except _NoCopyError as error:
        raise ValueError(
            f"{layer.name!r} ({type(layer).__name__}) cannot be copied: {error}"
        ) from error


class _NoCopyError(Exception):
    pass


class _Copies:
    """Makes the copies of a layer and of what it holds, each once."""

    def __init__(self, layer):
        states = [x for x in layer.variables if not is_random_state(x)]
        self._made = {id(x): _copied_variable(x) for x in states}
        self._own = set(map(id, [*layer.variables, *flat_layers(layer)]))

    def of(self, value):
        """The copy of an attribute's value; the value, where it may stay."""
        if id(value) in self._made:
            return self._made[id(value)]
        if isinstance(value, types.MethodType):
            if id(value.__self__) not in self._own:
                return value
            return types.MethodType(value.__func__, self.of(value.__self__))
        if isinstance(value, dict | list | set | tuple):
            return self._container(value)
        if isinstance(value, keras.Layer):
            return self._layer(value)
        if isinstance(value, keras.Variable):
            new = _copied_variable(value)
        elif isinstance(value, keras.random.SeedGenerator):
            new = keras.random.SeedGenerator.from_config(value.get_config())
            new.state.assign(value.state)
            self._made[id(value.state)] = new.state
        elif isinstance(value, keras.Metric):
            new = _copied_metric(value)
        else:
            self._require_apart(value)
            return value
        self._made[id(value)] = new
        return new

    def of_operation(self, operation):
        """The copy of a layer or another operation of a graph."""
        if not isinstance(operation, keras.Layer):
            return copy_operation(operation)
        return self.of(operation)

    def of_argument(self, value):
        """The copy of a variable that a call in a graph has as an argument."""
        if isinstance(value, keras.Variable) and id(value) not in self._made:
            raise _NoCopyError(
                f"a model in it reads {value.path!r}, which is not of it."
            )
        return self._made.get(id(value), value)

    def _container(self, value):
        if isinstance(value, dict):
            return {key: self.of(x) for key, x in value.items()}
        if hasattr(value, "_fields"):  # A named tuple.
            return value._make(map(self.of, value))
        plain = next(x for x in (list, set, tuple) if isinstance(value, x))
        return plain(map(self.of, value))

    def _layer(self, old):
        if isinstance(old, keras.layers.InputLayer):
            new = type(old).from_config(old.get_config())
            self._made[id(old)] = new
            return new
        new = self._begun(old)
        known = set(vars(new))
        if isinstance(old, keras.Model):
            known |= SET_LATER
        for key, value in attributes_of(old).items():
            if key not in known:
                setattr(new, key, self.of(value))
        for key in OF_A_LAYER:
            if key in vars(old):
                vars(new)[key] = vars(old)[key]
        self._put_in_order(old, new)
        return new

    def _begun(self, old):
        """A copy with what the constructors of Keras set, and its graph."""
        new = type(old).__new__(type(old))
        self._made[id(old)] = new
        if isinstance(old, keras.Sequential):
            keras.Sequential.__init__(new, name=old.name)
            new._layers = list(map(self.of, old._layers))
            if graph_beside_call(old) is not None:
                new.build(new._layers[0].batch_shape)
        elif graph_beside_call(old) is not None:
            Functional.__init__(new, *self._graph(old), name=old.name)
        elif isinstance(old, keras.Model):
            keras.Model.__init__(new, name=old.name)
        else:
            keras.Layer.__init__(new, name=old.name)
        return new

    def _graph(self, model):
        """Inputs and outputs of a graph of the copies, in their structures."""
        if not is_model(model):
            raise _NoCopyError(
                f"{model.name!r} ({type(model).__name__}) in it has a graph "
                "and a call() of its own."
            )
        inputs = [self.of(origin(x)).output for x in model.inputs]
        outputs = _GraphOfCopies(self).run(model, inputs)
        tensors = dict(zip(map(id, model.inputs), inputs, strict=True))
        tensors |= zip(map(id, model.outputs), outputs, strict=True)
        return [
            keras.tree.map_structure(lambda x: tensors[id(x)], structure)
            for structure in (input_structure(model), output_structure(model))
        ]

    def _put_in_order(self, old, new):
        """Track in the lists of a layer what the lists of another one have.

        A frozen variable is in the list of those that were made trainable.
        """
        if isinstance(old, keras.Sequential):
            return
        tracked = [getattr(new, f"_{name}") for name in LISTS]
        held = {id(x) for kept in tracked for x in kept}
        for name, kept in zip(LISTS, tracked, strict=True):
            wanted = [self._made.get(id(x)) for x in getattr(old, f"_{name}")]
            if not held.issuperset(map(id, wanted)):
                raise _NoCopyError(
                    f"some {name.replace('_', ' ')} of {old.name!r} are in "
                    "none of its attributes."
                )
            kept[:] = wanted
            new._tracker.stored_ids[name] = set(map(id, wanted))

    def _require_apart(self, value):
        """Raise for an object with layers or variables of the copied layer."""
        if isinstance(value, types.FunctionType | types.ModuleType | type):
            return
        for x in _held_by(value):
            if id(x) in self._own:
                raise _NoCopyError(
                    f"an object in it ({type(value).__name__}) holds "
                    f"{x.name!r}. Hold it in an attribute of the layer, or "
                    "give the layer a get_config()."
                )


class _GraphOfCopies(Interpreter):
    """A walk that calls the copies of operations as they were called."""

    def __init__(self, copies):
        self._copies = copies

    def model_in(self, operation):
        """None: the copy of a model is called like a layer."""

    def call(self, call, values):
        args, kwargs = keras.tree.map_structure(
            self._copies.of_argument, call.fill_in(values)
        )
        new = self._copies.of_operation(call.operation)
        return keras.tree.flatten(new(*args, **kwargs))


def _held_by(value):
    """What an object has in its attributes, or in containers there."""
    found = []
    for x in getattr(value, "__dict__", {}).values():
        inside = x.values() if isinstance(x, dict) else x
        found += inside if isinstance(x, dict | list | set | tuple) else [x]
    return found


def _copied_variable(old):
    new = keras.Variable(
        keras.ops.copy(old.value),
        dtype=old.dtype,
        trainable=old.trainable,
        autocast=old._autocast,
        aggregation=old.aggregation,
        name=old.name,
    )
    new._path = old.path
    new.constraint = old.constraint
    new.regularizer = old.regularizer
    new.overwrite_with_gradient = old.overwrite_with_gradient
    return new


def _copied_metric(old):
    try:
        new = type(old).from_config(old.get_config())
        pairs = list(zip(old.variables, new.variables, strict=True))
        for source, target in pairs:
            set_value(target, source)
    except Exception as error:  # Whatever the constructor raises.
        raise _NoCopyError(
            f"its metric {old.name!r} ({type(old).__name__}) cannot be made "
            "anew from its get_config()."
        ) from error
    return new
