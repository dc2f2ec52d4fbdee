"""Compile a model as another one was compiled."""

import inspect

import keras

from keras_redundancy import _keras
from keras_redundancy._shared.warn import warn
from keras_redundancy.building.configs import REBUILD_ERRORS, by_name
from keras_redundancy.building.faults import cause_of
from keras_redundancy.building.rebinding import Rebinder, reached_by


def compile_like(model, result, matches, rebinder=None) -> None:
    """Compile `result` as `model` is compiled, if it is.

    Args:
        model: the model whose arguments are used.
        result: the model to compile.
        matches: [(variable of `model`, its counterpart), ...]: those that the
            optimizer does not decay are not decayed here either.
        rebinder: a `Rebinder` for losses and metrics that refer to layers of
            `model`. Without one, the layers of `result` take their places
            where both models have the same.

    Warns:
        UserWarning: `result` could not be compiled; the warning says why.
    """
    try:
        arguments = fresh_arguments(model)
        if arguments is None:
            return
        rebinder = rebinder or Rebinder(_twins(model, result, matches))
        arguments = keras.tree.map_structure(rebinder.rebound, arguments)
        _require_apart(model, arguments)
        result.compile(**arguments)
        result.run_eagerly = model.run_eagerly  # It may have been set since.
        if result.optimizer is not None:
            _keras.copy_weight_decay(model.optimizer, result.optimizer, matches)
    except REBUILD_ERRORS as error:
        warn(
            f"The new model is not compiled, because {cause_of(error)} Call "
            "compile() on it before fit().",
        )


def _twins(model, result, matches):
    """{id(layer or variable of a model): its counterpart}."""
    layers = zip(*map(_keras.flat_layers, (model, result)), strict=False)
    alike = [
        (old, new)
        for old, new in layers
        if type(old) is type(new) and old.name == new.name
    ]
    return {id(old): new for old, new in [*alike, *matches]}


def _require_apart(model, arguments):
    """Raise if arguments of `compile` refer to layers or variables of `model`.

    Their losses and metrics would be those of another model.
    """
    parts = [*_keras.flat_layers(model), *model.variables]
    own = {id(x): x for x in parts}
    for x in reached_by(arguments):
        if id(x) in own:
            raise ValueError(
                f"a loss or metric of it refers to {own[id(x)].name!r} of the "
                "model that it is made from, and the new model has nothing "
                "like it."
            )


def fresh_arguments(model) -> dict | None:
    """The arguments of `model.compile`, made anew for another model.

    Returns:
        The arguments, with a new optimizer and new metrics, or None if the
        model is not compiled.

    Raises:
        ValueError: the model's class has a `compile` of its own, or the
            optimizer or a metric cannot be made anew.
    """
    arguments = _keras.compile_arguments(model)
    if arguments is None:
        return None
    if _keras.compile_is_overridden(model):
        raise ValueError(f"{type(model).__name__} has a compile() of its own.")
    return keras.tree.map_structure(fresh, arguments)


def fresh(value):
    """A copy of an optimizer or metric, without its state; else the value."""
    if not isinstance(value, keras.Optimizer | keras.Metric):
        return value
    try:
        return _made_anew(value)
    except REBUILD_ERRORS as error:
        raise ValueError(
            f"the {type(value).__name__} that it was compiled with cannot be "
            f"made anew from its get_config(): {cause_of(error)} Add a "
            "get_config() to that class that returns the arguments of its "
            "constructor."
        ) from error


def _made_anew(value):
    config = value.get_config()
    given = config | _attributes_not_in(config, value)
    with keras.saving.custom_object_scope(by_name(vars(value).values())):
        try:
            new = type(value).from_config(dict(given))
        except TypeError:
            parameters = inspect.signature(type(value)).parameters
            given = {k: v for k, v in given.items() if k in parameters}
            new = type(value).from_config(dict(given))
    new.name = value.name
    again = new.get_config()
    lost = [k for k in config if k not in given and again[k] != config[k]]
    if lost:
        raise ValueError(f"its constructor does not take {', '.join(lost)}.")
    return new


def _attributes_not_in(config, value):
    """Arguments of a constructor that the config does not have.

    So it is with a class of metrics or optimizers that has a constructor of
    its own, but no `get_config`. By Keras's convention, they are attributes.
    """
    if not _inherits_get_config(type(value)):
        return {}
    own = vars(value)
    return {
        name: own[name]
        for name in inspect.signature(type(value)).parameters
        if name in own
        and name not in config
        and not isinstance(own[name], keras.Variable)
    }


def _inherits_get_config(cls):
    """Whether its constructor is that of a subclass, and its config is not."""
    makers = (
        next(x for x in cls.__mro__ if name in vars(x))
        for name in ("__init__", "get_config")
    )
    maker, describer = makers
    return maker is not describer and issubclass(maker, describer)
