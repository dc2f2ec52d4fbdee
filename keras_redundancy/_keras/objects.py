"""Layers and models as objects: their classes, configs and settings."""

import functools

import keras
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.ops.operation import Operation
from keras.src.saving.serialization_lib import SafeModeScope


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
