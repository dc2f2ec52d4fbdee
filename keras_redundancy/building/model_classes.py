"""Models of the user's own classes: constructor, attributes, methods."""

import inspect
import numbers
import types

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.warn import warn
from keras_redundancy.building.compiling import fresh
from keras_redundancy.building.configs import REBUILD_ERRORS
from keras_redundancy.building.rebinding import FUNCTION_OBJECTS, Rebinder
from keras_redundancy.channels.tied import is_own_function

LOST = object()  # Stands for a value that cannot be copied.
OF_EVERY_MODEL = {"self", "inputs", "outputs", "layers", "name", "trainable"}
PLAIN = (numbers.Number, np.generic, str, bytes, types.NoneType)
# What holds no state, so that two models may hold it.
STATELESS = (
    keras.Initializer,
    keras.optimizers.schedules.LearningRateSchedule,
    type,
    types.BuiltinFunctionType,
    types.FunctionType,
)


def class_and_arguments(model, twins: dict) -> tuple[type, dict]:
    """The class of a copy of `model`, and further arguments to make it with.

    An argument of the constructor is what `get_config` of the class says, or
    the model's attribute of that name.

    Args:
        model: a functional or Sequential model.
        twins: {id(layer of the model): its counterpart}.

    Returns:
        The class, and {name: value}. The class is Keras's own if the
        constructor of the user's is not like that of Keras, or needs an
        argument whose value is not known.

    Warns:
        UserWarning: methods or arguments are lost.
    """
    cls = _keras.rebuildable_class(model)
    if cls is not type(model):
        _warn_of_lost_methods(model, cls, "has a constructor of its own")
        return cls, {}
    known, defaults, needed = {}, [], []
    config, held = _own_config(cls, model), _keras.attributes_of(model)
    for name, parameter in _own_parameters(cls).items():
        value = copied(config.get(name, held.get(name, LOST)), twins)
        if value is not LOST:
            known[name] = value
        elif parameter.default is parameter.empty:
            needed.append(name)
        else:
            defaults.append(name)
    if needed:
        reason = f"needs {', '.join(needed)}, which nothing in it says"
        plain = _keras.plain_class(model)
        _warn_of_lost_methods(model, plain, reason)
        return plain, {}
    if defaults:
        warn(
            f"The new model is made by {cls.__name__}(inputs, outputs) without "
            f"{', '.join(defaults)}: keep these arguments as attributes of "
            "the same names, or return them from get_config().",
        )
    return cls, known


def copy_attributes(old, new, twins: dict) -> None:
    """Give a model the attributes that another one of its class has.

    Plain values, functions and objects without state are taken over, layers
    and variables of the graph become their counterparts, and metrics and
    optimizers are made anew.

    Args:
        old, new: models of the same class.
        twins: {id(layer or variable of old): its counterpart in new}.

    Warns:
        UserWarning: for those that cannot be copied, if the class is the
            user's own: its methods may need them.
    """
    kept, lost = _keras.attributes_of(new), []
    for name, value in _keras.own_attributes(old).items():
        if name not in kept:
            value = copied(value, twins)
            if value is LOST:
                lost.append(name)
            else:
                setattr(new, name, value)
        elif isinstance(value, PLAIN):
            setattr(new, name, value)
        elif isinstance(value, keras.Layer) and id(value) not in twins:
            lost += [f"{name} (its weights)"] if value.weights else []
    if lost and not _keras.is_stock_class(type(old)):
        warn(
            f"The new model is made without what {old.name!r} "
            f"({type(old).__name__}) has in {', '.join(lost)}, which is no "
            "part of its graph and cannot be copied. Set it on the new model "
            f"before fit(), such as small.{lost[0].split()[0]} = ...",
        )


def copied(value, twins: dict):
    """A copy of an attribute's value, or LOST."""
    if id(value) in twins:
        return twins[id(value)]
    if isinstance(value, keras.Metric | keras.Optimizer):
        try:
            return Rebinder(twins).rebound(fresh(value))
        except REBUILD_ERRORS:
            return LOST
    if is_own_function(value) or isinstance(value, FUNCTION_OBJECTS):
        return Rebinder(twins).rebound(value)
    if isinstance(value, (*PLAIN, *STATELESS)):
        return value
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, keras.random.SeedGenerator):
        return keras.random.SeedGenerator.from_config(value.get_config())
    if isinstance(value, dict):
        made = copied(list(value.values()), twins)
        return LOST if made is LOST else dict(zip(value, made, strict=True))
    if isinstance(value, (list, tuple)):
        made = [copied(x, twins) for x in value]
        if any(x is LOST for x in made):
            return LOST
        return tuple(made) if isinstance(value, tuple) else made
    return LOST


def _own_parameters(cls):
    """{name: parameter} of a constructor that not every model has."""
    parameters = inspect.signature(cls.__init__).parameters
    return {
        name: x
        for name, x in parameters.items()
        if name not in OF_EVERY_MODEL
        and x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)
    }


def _own_config(cls, model):
    """What the `get_config` of the user's class says, if there is one."""
    if not _keras.has_own_config(cls):
        return {}
    names = _own_parameters(cls)
    try:
        config = {
            k: x for k, x in _keras.get_config(model).items() if k in names
        }
        return keras.saving.deserialize_keras_object(config)
    except REBUILD_ERRORS:
        return {}


def _warn_of_lost_methods(old, cls, reason):
    name = type(old).__name__
    lost = ", ".join(_own_names(old)) or "other methods, such as train_step(),"
    warn(
        f"{name} {reason}, so the new model is a plain {cls.__name__}, without "
        f"{lost} that {name} defines.",
    )


def _own_names(model):
    """What a model has beyond one of Keras: its methods and its objects.

    Of each only such as others may call, those with short names first.
    """
    methods = [
        f"{name}()"
        for name in dir(type(model))
        if not name.startswith("_")
        and not hasattr(keras.Sequential, name)
        and callable(getattr(type(model), name))
        and not inspect.ismethod(getattr(type(model), name))
    ]
    redefined = [
        f"{name}()"
        for name in ("train_step", "test_step", "predict_step")
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    preprocessor = getattr(model, "preprocessor", None)
    objects = [] if preprocessor is None else ["preprocessor"]
    return [*redefined, *sorted(methods, key=len)[:4], *objects]
