"""Build a model like another one, with other sizes and values."""

import functools
import tempfile
import warnings

import keras
import numpy as np

from keras_redundancy import _keras_internals as internals
from keras_redundancy.constraints import inverse_norm
from keras_redundancy.layers import FrobeniusNormalization, NoiseOutputs
from keras_redundancy.layers.factorized import (
    OWN_ARGUMENTS,
    STOCK_CLASSES,
    Factorized,
)
from keras_redundancy.pruning.compiling import compile_like
from keras_redundancy.pruning.configs import (
    REBUILD_ERRORS,
    changed,
    first_line,
    get_config,
    is_function,
    made_anew,
    same_lambda,
)


def require_rebuildable(model) -> None:
    """Raise unless every layer of `model` can be made anew.

    Raises:
        ValueError: a layer has no `get_config`, or one that fails, or two
            operations of the graph hold the same variable.
    """
    leaves = _leaves(model)
    _require_own_variables(leaves)
    for layer in leaves:
        if type(layer) is keras.layers.Lambda:
            continue
        try:
            get_config(layer)
        except REBUILD_ERRORS as error:
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) cannot be "
                f"rebuilt, its get_config() fails: {first_line(error)} Add a "
                "get_config() that returns the constructor's arguments "
                "together with super().get_config()."
            ) from error


def _require_own_variables(layers):
    owners = {}
    for layer in layers:
        for variable in layer.weights:
            other = owners.setdefault(id(variable), layer)
            if other is not layer:
                raise ValueError(
                    f"The layers {other.name!r} and {layer.name!r} share the "
                    f"variable {variable.path!r}, one of them inside a wrapper "
                    "or a custom layer. Rebuilt from their configs they would "
                    "share it no more. Call the inner layer itself in the "
                    "graph, or give both a layer of their own."
                )


def rebuild(model, settings: dict, values: dict, biases=None, classes=None):
    """A new model with the graph of `model`.

    Args:
        model: a functional or Sequential model. It is not changed.
        settings: entries of configs and of calls' arguments that change:
            {id(operation or node): {path: value}}.
        values: {id(variable): array}: variables that change. All others are
            copied.
        biases: {id(layer): array}: biases of layers that had none, and have
            one by their new settings.
        classes: {id(layer): class}: layers that become factorized, or stock
            ones. By default what is for training alone is left out: all that
            are factorized become stock layers, `FrobeniusNormalization` the
            layer inside of it, and `RaReRegularizer` and `NoiseOutputs` go.

    Returns:
        A model of the same class, with the names, dtype policies, trainable
        flags and compile arguments of `model`, and a fresh optimizer.

    Raises:
        ValueError: a layer cannot be made from its config, or not called.
    """
    return rebuild_and_match(model, settings, values, biases, classes)[0]


def rebuild_and_match(
    model, settings: dict, values: dict, biases=None, classes=None
):
    """As `rebuild`, and which variable is which.

    Returns:
        The new model, and [(variable, its counterpart in there), ...] of what
        has one.
    """
    with internals.scope_of(model):
        return _rebuilt(model, settings, values, biases, classes)


def _rebuilt(model, settings, values, biases, classes):
    builder = _Builder(settings, classes)
    result, matches = builder.model(model), []
    _copy_trainable(list(builder.made.values()))
    for old, new in builder.made.values():
        if _is_other(old, new):
            _assign_other(old, new)
        elif builder.has_variables_of(old):
            bias = None if biases is None else biases.get(id(old))
            matches += _assign(old, new, values, bias)
            if isinstance(old, FrobeniusNormalization):
                _keep_factor(old, new)
    compile_like(model, result)
    return result, matches


class _Builder:
    """Makes each operation of a graph anew, once per identity.

    Attributes:
        settings: what changes: {id(operation): {path in its config: value}},
            and {id(node of a call): {path in its arguments: value}}.
        made: {id(old operation): (old, new)}, inner before outer layers.
    """

    def __init__(self, settings, classes):
        self.settings, self.classes = settings, classes
        self.made = {}

    @property
    def is_stock(self) -> bool:
        """Whether what is for training alone is left out."""
        return self.classes is None

    def _class(self, old):
        if self.is_stock:
            return STOCK_CLASSES.get(type(old), type(old))
        return self.classes.get(id(old), type(old))

    def operation(self, old):
        """The new operation for `old`."""
        if id(old) not in self.made:
            self.made[id(old)] = old, self._make(old)
        return self.made[id(old)][1]

    def _make(self, old):
        if internals.is_model(old):
            return self.model(old)
        if type(old) is keras.layers.Lambda:
            return same_lambda(old)
        if self.is_stock and isinstance(old, FrobeniusNormalization):
            return self.operation(old.layer)
        if self._is_left_out(old):  # It is in a wrapper.
            return keras.layers.Identity(name=old.name)
        settings = self.settings.get(id(old), {})
        if internals.wraps_one_layer(old):
            inner = self.operation(old.layer)
            return made_anew(
                old,
                settings,
                lambda config: type(old)(**config, layer=inner),
                self.is_stock,
            )
        if isinstance(old, keras.Layer):
            make = functools.partial(_layer_of, self._class(old))
            new = made_anew(old, settings, make, self.is_stock)
            if isinstance(old, keras.layers.InputLayer):
                new.output.name = old.output.name
            return new
        if not settings:
            return internals.copy_operation(old)
        config = changed(old.get_config(), settings)
        return type(old).from_config(config)

    def model(self, old):
        """A new model for `old`, built on new inputs."""
        graph = internals.graph_of(old)
        tensors = {
            id(x): self.operation(internals.origin(x)).output
            for x in graph.inputs
        }
        cls = internals.rebuildable_class(old)
        if isinstance(old, keras.Sequential):
            layers = [
                self.operation(layer)
                for layer in old.layers
                if not self._is_left_out(layer)
            ]
            new = cls([*tensors.values(), *layers], name=old.name)
        else:
            new = cls(*self._run(graph, tensors), name=old.name)
        _warn_of_lost_methods(old, new)
        self.made[id(old)] = old, new
        return new

    def has_variables_of(self, old) -> bool:
        """Whether what took its place has counterparts of its variables."""
        is_layer = isinstance(old, keras.Layer) and not internals.is_model(old)
        return is_layer and not self._is_left_out(old)

    def _is_left_out(self, old):
        return self.is_stock and isinstance(old, NoiseOutputs)

    def _run(self, graph, tensors):
        """Call the new operations as the old ones were: inputs, outputs."""
        for call in internals.calls(graph):
            args, kwargs = call.fill_in(tensors)
            if self._is_left_out(call.operation):
                tensors[id(call.outputs[0])] = args[0]
                continue
            arguments = changed(
                {"args": args, "kwargs": kwargs},
                self.settings.get(id(call.node), {}),
            )
            new = self.operation(call.operation)
            try:
                results = keras.tree.flatten(
                    new(*arguments["args"], **arguments["kwargs"])
                )
            except REBUILD_ERRORS as error:
                raise ValueError(
                    f"The layer {call.operation.name!r} "
                    f"({type(call.operation).__name__}) was rebuilt from its "
                    f"config and then could not be called: {error}\nIf it has "
                    "attributes that its constructor does not set, make them "
                    "arguments of the constructor and of get_config()."
                ) from error
            tensors |= zip(map(id, call.outputs), results, strict=True)
        for x in graph.outputs:
            if id(x) not in tensors:
                layer = internals.origin(x)
                raise ValueError(
                    f"The noise outputs of {layer.name!r} are outputs of the "
                    f"model {graph.name!r}, but nothing is left of them after "
                    "training. Pass the model without them: keras.Model("
                    "model.input, its other outputs)."
                )
        return [
            keras.tree.map_structure(lambda x: tensors[id(x)], structure)
            for structure in (
                internals.input_structure(graph),
                internals.output_structure(graph),
            )
        ]


def _layer_of(cls, config):
    if not issubclass(cls, Factorized):
        config = {k: v for k, v in config.items() if k not in OWN_ARGUMENTS}
    return cls.from_config(config)


def _leaves(model):
    """The layers of the graph, at any depth, that are no models with one."""
    found = {}
    for operation in internals.graph_of(model).operations:
        if internals.is_model(operation):
            found |= {id(x): x for x in _leaves(operation)}
        elif isinstance(operation, keras.Layer):
            found[id(operation)] = operation
    return list(found.values())


def _is_other(old, new):
    """Whether a layer for training takes the place of a stock one, or back."""
    kinds = FrobeniusNormalization, *STOCK_CLASSES, *STOCK_CLASSES.values()
    return isinstance(old, kinds) and type(old) is not type(new)


def _assign_other(old, new):
    """Give `new` what makes it compute what `old` does."""
    if isinstance(old, FrobeniusNormalization):
        # What is inside has been assigned before.
        new.kernel.assign(new.kernel * old.factor())
        return
    _restore_objects(old, new, same_shapes=True)
    is_factorized = isinstance(old, Factorized)
    kernel = old.effective_kernel() if is_factorized else old.kernel
    new.kernel.assign(kernel)
    if old.bias is not None:
        new.bias.assign(old.bias)
    for source, target in zip(
        (old.kernel, old.bias), (new.kernel, new.bias), strict=True
    ):
        if source is not None:
            target.trainable = source.trainable


def _keep_factor(old, new):
    """P W Q can have another norm than W, and so can what is cut."""
    norms = [1 / inverse_norm(x.layer.kernel.value) for x in (old, new)]
    new.size.assign(old.size * (norms[1] / norms[0]))


def _assign(old, new, values, bias=None):
    """Give `new` the initializers of `old`, and its variables or `values`.

    Returns:
        [(variable of old, its counterpart), ...].
    """
    sources, targets = _own_variables(old), _own_variables(new)
    if bias is not None:
        new.bias.assign(bias)
        targets = [v for v in targets if v is not new.bias]
    if len(sources) != len(targets):
        raise ValueError(
            f"The layer {old.name!r} ({type(old).__name__}) has "
            f"{len(sources)} variables, but {len(targets)} after it was made "
            "anew from its config: its get_config() does not tell all that "
            "build() depends on."
        )
    pairs = list(zip(sources, targets, strict=True))
    same_shapes = all(tuple(a.shape) == tuple(b.shape) for a, b in pairs)
    for part, its_copy in zip(_parts(old), _parts(new), strict=False):
        _restore_objects(part, its_copy, same_shapes)
    for source, target in pairs:
        value = values.get(id(source))
        # A copy of the tensor, which takes TensorFlow no time and no memory
        # until one of the two variables is trained.
        value = keras.ops.copy(source) if value is None else value
        if tuple(target.shape) != tuple(value.shape):
            raise ValueError(
                f"The variable {source.path!r} should have the shape "
                f"{tuple(value.shape)} in the smaller model, but the layer "
                f"{old.name!r} ({type(old).__name__}) made it "
                f"{tuple(target.shape)}: its width is fixed in a way that its "
                "rule does not know. Leave the layer out with skip=."
            )
        target.assign(value)
        target.trainable = source.trainable
    if hasattr(old, "adapt"):
        _copy_adapted(old, new)
    return pairs


def _parts(layer):
    """The layer and those that its constructor makes, outer before inner.

    What is inside a model or a wrapper was made anew by itself.
    """
    if internals.is_model(layer) or internals.wraps_one_layer(layer):
        return [layer]
    return internals.flat_layers(layer)


def _own_variables(layer):
    if not internals.wraps_one_layer(layer):
        return layer.variables
    inner = {id(variable) for variable in layer.layer.variables}
    return [v for v in layer.variables if id(v) not in inner]


def _restore_objects(old, new, same_shapes):
    """Initializers, and functions that the config gave by name alone.

    An initializer that holds an array does not fit a narrower layer, and the
    saved model could not be built with it: it becomes zeros.
    """
    for key, value in vars(old).items():
        other = vars(new).get(key)
        if isinstance(value, keras.Initializer):
            fits = same_shapes or not any(map(np.ndim, vars(value).values()))
            setattr(new, key, value if fits else keras.initializers.Zeros())
        elif (
            is_function(value)
            and is_function(other)
            and (value.__module__, value.__qualname__)
            != (other.__module__, other.__qualname__)
        ):
            setattr(new, key, value)


def _copy_adapted(old, new):
    """Preprocessing layers keep tables and bounds beside their variables."""
    store = {}
    old.save_own_variables(store)
    new.load_own_variables(store)
    if hasattr(old, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _copy_trainable(made):
    """Copy the flags of outer before those of inner layers: they set both."""
    for old, new in reversed(made):
        if isinstance(old, keras.Layer):
            for part, its_copy in zip(_parts(old), _parts(new), strict=False):
                its_copy.trainable = part.trainable


def _warn_of_lost_methods(old, new):
    if type(new) is type(old):
        return
    warnings.warn(
        f"{type(old).__name__} has a constructor of its own, so the new model "
        f"is a plain {type(new).__name__}, without other methods that "
        f"{type(old).__name__} redefines, such as train_step().",
        stacklevel=2,
    )
