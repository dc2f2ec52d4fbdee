"""Build a model like another one, with other sizes and values."""

import copy
import warnings

import keras
import numpy as np

from keras_redundancy import _keras_internals as internals


def require_rebuildable(model) -> None:
    """Raise unless every layer of `model` can say how it was made.

    Raises:
        ValueError: a layer has no `get_config`, or one that fails.
    """
    for layer in internals.flat_layers(model):
        if internals.is_model(layer) or isinstance(layer, keras.layers.Lambda):
            continue
        try:
            layer.get_config()
        except NotImplementedError as error:
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) cannot be "
                "rebuilt: it has no get_config(), so its constructor's "
                "arguments are unknown. Add a get_config() that returns them "
                "together with super().get_config()."
            ) from error


def rebuild(model, sizes: dict, values: dict):
    """A new model with the graph of `model`.

    Args:
        model: a functional or Sequential model. It is not changed.
        sizes: {id(layer): {path: int}}: config entries that change.
        values: {id(variable): array}: variables that change. All others are
            copied.

    Returns:
        A model of the same class, with the names, dtype policies, trainable
        flags and compile arguments of `model`, and a fresh optimizer.

    Raises:
        ValueError: a layer cannot be made from its config.
    """
    builder = _Builder(sizes)
    result = builder.model(model)
    _copy_trainable(model, builder.made)
    for old, new in builder.made.values():
        if isinstance(old, keras.Layer) and not internals.is_model(old):
            _assign(old, new, values)
    _compile_like(model, result)
    return result


class _Builder:
    """Makes each operation of a graph anew, once per identity.

    Attributes:
        made: {id(old operation): (old, new)}.
    """

    def __init__(self, sizes):
        self.sizes = sizes
        self.made = {}

    def operation(self, old):
        """The new operation for `old`."""
        if id(old) not in self.made:
            self.made[id(old)] = old, self._make(old)
        return self.made[id(old)][1]

    def _make(self, old):
        if internals.is_model(old):
            return self.model(old)
        if isinstance(old, keras.layers.Lambda):
            return _same_lambda(old)
        if isinstance(old, keras.Layer):
            new = _layer_like(old, self.sizes.get(id(old), {}))
            if isinstance(old, keras.layers.InputLayer):
                new.output.name = old.output.name
            return new
        return internals.copy_operation(old)

    def model(self, old):
        """A new model for `old`, built on new inputs."""
        graph = internals.graph_of(old)
        inputs = {
            id(x): self.operation(internals.origin(x)).output
            for x in graph.inputs
        }
        if isinstance(old, keras.Sequential):
            layers = [self.operation(layer) for layer in old.layers]
            new = keras.Sequential([*inputs.values(), *layers], name=old.name)
        else:
            new = self._functional(old, graph, inputs)
        self.made[id(old)] = old, new
        return new

    def _functional(self, old, graph, tensors):
        for call in internals.calls(graph):
            args, kwargs = call.fill_in(tensors)
            results = self.operation(call.operation)(*args, **kwargs)
            for x, y in zip(
                call.outputs, keras.tree.flatten(results), strict=True
            ):
                tensors[id(x)] = y
        inputs, outputs = (
            keras.tree.map_structure(lambda x: tensors[id(x)], structure)
            for structure in (
                internals.input_structure(graph),
                internals.output_structure(graph),
            )
        )
        return internals.rebuildable_class(old)(inputs, outputs, name=old.name)


def _layer_like(old, sizes):
    config = copy.deepcopy(old.get_config())
    for path, size in sizes.items():
        _replace(config, path, size)
    try:
        with keras.saving.custom_object_scope(_objects_of(old)):
            return type(old).from_config(config)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The layer {old.name!r} ({type(old).__name__}) cannot be rebuilt "
            f"from its get_config(): {error}"
        ) from error


def _replace(config, path, size):
    *outer, key = path
    for name in outer:
        if not isinstance(config[name], (dict, list)):
            config[name] = list(config[name])
        config = config[name]
    config[key] = size


def _objects_of(layer):
    """The functions and objects a layer was given, by the name Keras uses.

    So a layer with an activation or initializer of the user's own can be
    rebuilt without registering it.
    """
    found = {}
    for value in vars(layer).values():
        if callable(value) and not isinstance(value, keras.Layer):
            thing = value if hasattr(value, "__name__") else type(value)
            found[thing.__name__] = thing
    return found


def _same_lambda(old):
    """A Lambda keeps its function: config would have to unpickle it."""
    return keras.layers.Lambda(
        old.function,
        output_shape=internals.lambda_output_shape(old),
        mask=old.mask,
        arguments=old.arguments,
        name=old.name,
        dtype=old.dtype_policy,
        trainable=old.trainable,
    )


def _assign(old, new, values):
    """Give `new` the variables of `old`, or those of `values`."""
    if len(old.variables) != len(new.variables):
        raise ValueError(
            f"The layer {old.name!r} ({type(old).__name__}) has "
            f"{len(old.variables)} variables, but {len(new.variables)} after "
            "it was made anew from its config: its get_config() does not tell "
            "all that build() depends on."
        )
    for source, target in zip(old.variables, new.variables, strict=True):
        value = values.get(id(source))
        value = _exact(source) if value is None else value
        if tuple(target.shape) != value.shape:
            raise ValueError(
                f"The variable {source.path!r} should have the shape "
                f"{value.shape} in the smaller model, but the layer "
                f"{old.name!r} ({type(old).__name__}) made it "
                f"{tuple(target.shape)}: its width is fixed in a way that its "
                "rule does not know. Leave the layer out with skip=."
            )
        target.assign(value)
        target.trainable = source.trainable
    if hasattr(new, "finalize_state"):
        new.finalize_state()


def _exact(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable))


def _copy_trainable(model, made):
    """Flags of layers, the outer before the inner: setting one sets all."""
    for layer in internals.flat_layers(model):
        if id(layer) in made:
            made[id(layer)][1].trainable = layer.trainable


def _compile_like(model, result):
    arguments = internals.compile_arguments(model)
    if arguments is None:
        return
    if internals.compile_is_overridden(model):
        warnings.warn(
            f"{type(model).__name__} has a compile() of its own, so the new "
            "model is not compiled. Call compile() on it before fit().",
            stacklevel=4,
        )
        return
    result.compile(**keras.tree.map_structure(_fresh, arguments))


def _fresh(value):
    """A copy of a Keras object without its state; all else as it is."""
    if hasattr(value, "get_config") and hasattr(type(value), "from_config"):
        return type(value).from_config(value.get_config())
    return value
