"""Build a model like another one, with other sizes and values."""

import functools
import operator
import tempfile

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy.low_rank.norms import inverse_norm
from keras_redundancy.low_rank.frobenius import FrobeniusNormalization
from keras_redundancy.noise_out.outputs import NoiseOutputs
from keras_redundancy.low_rank.factorized import (
    OWN_ARGUMENTS,
    STOCK_CLASSES,
    Factorized,
)
from keras_redundancy.build.compiling import compile_like
from keras_redundancy.build.configs import (
    REBUILD_ERRORS,
    cause_of,
    changed,
    get_config,
    is_function,
    made_anew,
    same_lambda,
)
from keras_redundancy.build.model_classes import (
    class_and_arguments,
    copy_attributes,
)
from keras_redundancy.build.rebinding import Rebinder
from keras_redundancy.build.ties import (
    Ties,
    require_own_variables,
    require_tied,
    tie_functions,
)
from keras_redundancy._keras.variables import set_value


def require_rebuildable(model) -> None:
    """Raise unless every layer of `model` can be made anew.

    Raises:
        ValueError: a layer has no `get_config`, or one that fails; two
            layers of the graph hold the same variable; or a variable is read
            in a way that a copy cannot follow.
    """
    leaves = [
        layer
        for layer in _keras.flat_graph(model).layers
        if type(layer) is not keras.layers.Lambda
    ]
    require_own_variables(leaves)
    require_tied(model)
    for layer in leaves:
        try:
            get_config(layer)
        except REBUILD_ERRORS as error:
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) cannot be "
                f"rebuilt, its get_config() fails: {cause_of(error)} Add a "
                "get_config() that returns the constructor's arguments "
                "together with super().get_config()."
            ) from error


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
    with _keras.scope_of(model):
        return _rebuilt(model, settings, values, biases, classes)


def _rebuilt(model, settings, values, biases, classes):
    builder = _Builder(settings, classes, values)
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
    twins = builder.twins | {id(old): new for old, new in matches}
    twins = builder.tie(twins)
    for old, new in builder.made.values():
        if _keras.is_model(old) and type(old) is type(new):
            copy_attributes(old, new, twins)
    compile_like(model, result, Rebinder(twins))
    return result, matches


class _Builder:
    """Makes each operation of a graph anew, once per identity.

    Attributes:
        settings: what changes: {id(operation): {path in its config: value}},
            and {id(node of a call): {path in its arguments: value}}.
        made: {id(old operation): (old, new)}, inner before outer layers.
    """

    def __init__(self, settings, classes, values):
        self.settings, self.classes = settings, classes
        self.made, self._ties = {}, Ties(values)

    @property
    def is_stock(self) -> bool:
        """Whether what is for training alone is left out."""
        return self.classes is None

    def _class(self, old):
        if self.is_stock:
            return STOCK_CLASSES.get(type(old), type(old))
        return self.classes.get(id(old), type(old))

    @property
    def twins(self) -> dict:
        """{id(old operation): new operation}."""
        return {id(old): new for old, new in self.made.values()}

    def operation(self, old):
        """The new operation for `old`."""
        if id(old) not in self.made:
            self.made[id(old)] = old, self._make(old)
        return self.made[id(old)][1]

    def _make(self, old):
        if _keras.is_model(old):
            return self.model(old)
        if type(old) is keras.layers.Lambda:
            return same_lambda(old)
        if self.is_stock and isinstance(old, FrobeniusNormalization):
            return self.operation(old.layer)
        if self._is_left_out(old):  # It is in a wrapper.
            return keras.layers.Identity(name=old.name)
        settings = self.settings.get(id(old), {})
        if _keras.wraps_one_layer(old):
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
            return _keras.copy_operation(old)
        config = changed(old.get_config(), settings)
        new = type(old).from_config(config)
        new.name = old.name
        return new

    def model(self, old):
        """A new model for `old`, built on new inputs."""
        graph = _keras.graph_of(old)
        tensors = {
            id(x): self.operation(_keras.origin(x)).output
            for x in graph.inputs
        }
        if isinstance(old, keras.Sequential):
            layers = [
                self.operation(layer)
                for layer in old.layers
                if not self._is_left_out(layer)
            ]
            parts = ([*tensors.values(), *layers],)
        else:
            parts = self._run(graph, tensors)
        cls, arguments = class_and_arguments(old, self.twins)
        new = cls(*parts, name=old.name, **arguments)
        self.made[id(old)] = old, new
        return new

    def has_variables_of(self, old) -> bool:
        """Whether what took its place has counterparts of its variables."""
        return (
            isinstance(old, keras.Layer)
            and type(old) is not keras.layers.Lambda
            and not _keras.is_model(old)
            and not self._is_left_out(old)
        )

    def tie(self, twins) -> dict:
        """Have the new model read its own variables wherever it reads one.

        Args:
            twins: {id(operation or variable): its counterpart}.

        Returns:
            `twins`, with layers inside of layers, and without those in the
            place of which there is a layer of another class.
        """
        twins, changed, pairs = dict(twins), {}, []
        for old, new in self.made.values():
            if isinstance(old, keras.Layer) and not _keras.is_model(old):
                pairs += zip(_parts(old), _parts(new), strict=False)
            if _is_other(old, new):
                inside = _keras.flat_layers(old)
                changed |= {id(layer): layer.name for layer in inside}
                changed |= {id(x): x.path for x in old.variables}
        twins |= {id(old): new for old, new in pairs if type(old) is type(new)}
        for key in changed:
            twins.pop(key, None)
        self._ties.tie(twins)
        tie_functions(pairs, twins, changed)
        return twins

    def _is_left_out(self, old):
        return self.is_stock and isinstance(old, NoiseOutputs)

    def _run(self, graph, tensors):
        """Call the new operations as the old ones were: inputs, outputs."""
        for call in _keras.calls(graph):
            args, kwargs = call.fill_in(tensors)
            if self._is_left_out(call.operation):
                tensors[id(call.outputs[0])] = args[0]
                continue
            arguments = changed(
                {"args": args, "kwargs": kwargs},
                self.settings.get(id(call.node), {}),
            )
            arguments, lent = self._ties.with_stand_ins(arguments)
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
            self._ties.note(results, lent)
            tensors |= zip(map(id, call.outputs), results, strict=True)
        for x in graph.outputs:
            if id(x) not in tensors:
                layer = _keras.origin(x)
                raise ValueError(
                    f"The noise outputs of {layer.name!r} are outputs of the "
                    f"model {graph.name!r}, but nothing is left of them after "
                    "training. Pass the model without them: keras.Model("
                    "model.input, its other outputs)."
                )
        return [
            keras.tree.map_structure(lambda x: tensors[id(x)], structure)
            for structure in (
                _keras.input_structure(graph),
                _keras.output_structure(graph),
            )
        ]


def _layer_of(cls, config):
    if not issubclass(cls, Factorized):
        config = {k: v for k, v in config.items() if k not in OWN_ARGUMENTS}
    return cls.from_config(config)


def _is_other(old, new):
    """Whether a layer for training takes the place of a stock one, or back."""
    kinds = FrobeniusNormalization, *STOCK_CLASSES, *STOCK_CLASSES.values()
    return isinstance(old, kinds) and type(old) is not type(new)


def _assign_other(old, new):
    """Give `new` what makes it compute what `old` does."""
    if isinstance(old, FrobeniusNormalization):
        # What is inside has been assigned before.
        set_value(new.kernel, new.kernel * old.factor())
        return
    _restore_objects(old, new, same_shapes=True)
    is_factorized = isinstance(old, Factorized)
    kernel = old.effective_kernel() if is_factorized else old.kernel
    set_value(new.kernel, kernel)
    if old.bias is not None:
        set_value(new.bias, old.bias)
    for source, target in zip(
        (old.kernel, old.bias), (new.kernel, new.bias), strict=True
    ):
        if source is not None:
            target.trainable = source.trainable


def _keep_factor(old, new):
    """P W Q can have another norm than W, and so can what is cut."""
    norms = [1 / inverse_norm(x.layer.kernel.value) for x in (old, new)]
    set_value(new.size, old.size * (norms[1] / norms[0]))


def _assign(old, new, values, bias=None):
    """Give `new` the initializers of `old`, and its variables or `values`.

    Returns:
        [(variable of old, its counterpart), ...].
    """
    _build_parts(old, new)
    sources, targets = _own_variables(old), _own_variables(new)
    if isinstance(old, Factorized) and not _same_rare(old, new):
        sources, targets = (_without_state(x) for x in (old, new))
    if bias is not None:
        set_value(new.bias, bias)
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
        value = source if value is None else value
        if tuple(target.shape) != tuple(value.shape):
            raise ValueError(
                f"The variable {source.path!r} should have the shape "
                f"{tuple(value.shape)} in the smaller model, but the layer "
                f"{old.name!r} ({type(old).__name__}) made it "
                f"{tuple(target.shape)}: its width is fixed in a way that its "
                "rule does not know. Leave the layer out with skip=."
            )
        set_value(target, value)
        target.trainable = source.trainable
    if hasattr(old, "adapt"):
        _copy_adapted(old, new)
    return pairs


def _parts(layer):
    """The layer and those that its constructor makes, outer before inner.

    What is inside a model or a wrapper was made anew by itself.
    """
    if _keras.is_model(layer) or _keras.wraps_one_layer(layer):
        return [layer]
    return _keras.flat_layers(layer)


def _build_parts(old, new):
    """An activation layer is built where it is first run on numbers."""
    for part, its_copy in zip(_parts(old), _parts(new), strict=False):
        if part.built and not its_copy.built:
            its_copy.build_from_config(part.get_build_config())


def _own_variables(layer):
    if not _keras.wraps_one_layer(layer):
        return layer.variables
    inner = {id(variable) for variable in layer.layer.variables}
    return [v for v in layer.variables if id(v) not in inner]


def _same_rare(old, new):
    """Whether the pairs that RaRe keeps for a layer are those of the other."""
    each = (keras.regularizers.serialize(x.rare) for x in (old, new))
    return operator.eq(*each)


def _without_state(layer):
    """Its variables, but for those that RaRe makes by itself in training."""
    state = {id(variable) for variable in layer.state}
    return [v for v in layer.variables if id(v) not in state]


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
    new.load_own_variables(
        {
            key: ops.copy(x) if isinstance(x, keras.Variable) else x
            for key, x in store.items()
        }
    )
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
