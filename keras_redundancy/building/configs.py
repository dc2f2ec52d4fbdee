"""Make single layers and operations anew from their configs."""

import copy
import inspect
from collections.abc import Callable
from numbers import Number

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy.building import faults

# Entries that all layers and metrics have in their configs.
OF_EVERY_OBJECT = {"name", "trainable", "dtype"}
PLAIN = (Number, str, np.generic, type(None))
REBUILD_ERRORS = (AttributeError, NotImplementedError, TypeError, ValueError)


def made_anew(recipe, make: Callable):
    """A layer of the same config but for some settings, not built yet.

    Args:
        recipe: its `LayerRecipe`.
        make: a function that makes the layer of a config.

    Raises:
        ValueError: it cannot be made from that config.
    """
    try:
        return _made(recipe, recipe.settings, make)
    except REBUILD_ERRORS as error:
        reason = faults.not_from_config(recipe.layer, error)
        if recipe.settings and _can_be_made(recipe, make):
            reason = faults.not_with_settings(recipe, error)
        raise ValueError(reason) from error


def made_from_attributes(recipe):
    """As `made_anew`, for a layer whose `get_config` is at fault.

    Returns:
        The layer; None if its attributes do not hold all arguments of its
        constructor.
    """
    config = attributes_config(recipe.layer)
    if config is None:
        return None
    make = type(recipe.layer).from_config
    return _made(recipe, recipe.settings, make, config)


def _can_be_made(recipe, make):
    """Whether it can be made from its own config, without other settings."""
    try:
        _made(recipe, {}, make)
    except REBUILD_ERRORS:
        return False
    return True


def _made(recipe, settings, make, config=None):
    """`make` of a config that fits new shapes.

    Initializers would be overwritten, and one that holds an array may not fit
    any more: the new layer is built with zeros and gets them back after.
    Inner layers are built by the layer around them, on their new shapes.
    """
    old, form = recipe.layer, recipe.form
    config = copy.deepcopy(_keras.get_config(old)) if config is None else config
    config = with_settings(config, settings)
    for key in form.without:
        config.pop(key, None)
    for key in config:
        if _is_initializer(old, key):
            config[key] = "zeros"
        elif (function := _own_function(old, key)) is not None:
            config[key] = function
    if _keras.wraps_one_layer(old):
        del config["layer"]
    _forget_shapes(config)
    with (
        _keras.trusting_own_objects(),
        keras.saving.custom_object_scope(objects_of(old)),
    ):
        new = from_config(form.kind, config, make)
    if names := forgotten(old, new, config):
        raise ValueError(
            f"it leaves out {', '.join(names)}, so the new layer has other "
            "values."
        )
    _name_like(old, new)
    return new


def forgotten(old, new, config) -> list[str]:
    """Arguments of a constructor that a layer made from `config` has not got.

    Those that the config leaves out, where attributes of the same names show
    that the old layer was given something else than the default.
    """
    if type(old) is not type(new) or _keras.is_stock_class(type(old)):
        return []
    return [
        name
        for name in list(inspect.signature(type(old).__init__).parameters)[1:]
        if name not in config and _is_other(vars(old), vars(new), name)
    ]


def _is_other(one, other, name):
    """Whether two dictionaries hold different numbers or words at a key."""
    if name not in one or name not in other:
        return False
    pair = [np.asarray(x[name], dtype=object) for x in (one, other)]
    is_plain = any(
        all(isinstance(x, PLAIN) for x in array.flat) for array in pair
    )
    return is_plain and not np.array_equal(*pair)


def operation_anew(old, settings):
    """An operation that is no layer, with other settings."""
    if not settings:
        return _keras.copy_operation(old)
    new = type(old).from_config(with_settings(old.get_config(), settings))
    new.name = old.name
    return new


def from_config(cls, config, make):
    """What `make` returns for a config of the class `cls`.

    If the constructor has no **kwargs and refuses the entries that every
    layer or metric has in its config, the object is made without them.
    """
    taken = inspect.signature(cls.__init__).parameters
    takes_all = any(x.kind is x.VAR_KEYWORD for x in taken.values())
    refused = set() if takes_all else OF_EVERY_OBJECT - set(taken)
    if not refused & set(config):
        return make(config)
    own = {key: x for key, x in config.items() if key not in refused}
    try:
        return make(copy.deepcopy(config))
    except TypeError:
        return make(own)


def _name_like(old, new):
    """Copy names and dtype policies, which not every config has.

    Those of inner layers as well, if the constructor has made as many. A
    model that the constructor makes keeps its own names.
    """
    new.name = old.name
    if new.dtype_policy != old.dtype_policy:
        new.dtype_policy = old.dtype_policy
    if isinstance(old, keras.Model):
        return
    parts, its_parts = (
        _keras.flat_layers(x, recursive=False)[1:] for x in (old, new)
    )
    if list(map(type, parts)) == list(map(type, its_parts)):
        for part, its_copy in zip(parts, its_parts, strict=True):
            _name_like(part, its_copy)


def _is_initializer(layer, key):
    """Whether an entry of a layer's config is an initializer.

    Recurrent layers keep it in their cell, attention layers as _key.
    """
    kept = [vars(layer).get(key), vars(layer).get(f"_{key}")]
    if key.endswith("initializer"):
        kept.append(getattr(layer, key, None))
    return any(isinstance(value, keras.Initializer) for value in kept)


def _forget_shapes(config):
    """Drop from the configs of inner layers what fits the old shapes only.

    That is the shapes that they were built on, and initializers that hold an
    array.
    """
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict):
            value.pop("build_config", None)
            if value.get("module") == "keras.initializers" and isinstance(
                value["config"].get("value"), dict
            ):
                value |= {"class_name": "Zeros", "config": {}}
        if isinstance(value, (dict, list)):
            _forget_shapes(value)


def config_of(layer) -> dict:
    """The layer's config; that of its attributes where `get_config` fails.

    {} where neither is known.
    """
    try:
        return _keras.get_config(layer)
    except REBUILD_ERRORS:
        return attributes_config(layer) or {}


def without_names(config):
    """A config without names and objects, which are not the same anywhere."""
    if isinstance(config, dict):
        return {k: without_names(x) for k, x in config.items() if k != "name"}
    if isinstance(config, list | tuple):
        return [without_names(x) for x in config]
    return config if isinstance(config, Number | str) else type(config)


def attributes_config(layer) -> dict | None:
    """The arguments of a layer's constructor, as far as attributes hold them.

    That is a convention of Keras. None if it does not hold for the layer.
    """
    config = {
        "name": layer.name,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
    }
    parameters = inspect.signature(type(layer).__init__).parameters
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in list(parameters.items())[1:]:
        if parameter.kind not in several:
            if not hasattr(layer, name):
                return None
            config[name] = getattr(layer, name)
    return config


def _own_function(layer, key):
    """The function of the layer that the config entry `key` names, or None."""
    value = vars(layer).get(key)
    if key in _keras.ACTIVATIONS:  # That of a recurrent layer is in its cell.
        value = getattr(layer, key, None)
        is_own = _keras.is_function(value) or _keras.has_no_config(value)
        return value if is_own else None
    is_own = _keras.is_function(value) and key != "function"
    return value if is_own else None


def with_settings(structure, settings):
    """A copy of a structure with the values of `settings`, {path: value}."""
    for path, value in settings.items():
        structure = _replaced(structure, path, value)
    return structure


def _replaced(structure, path, value):
    if not path:
        return _like(structure, value)
    key, rest = path[0], path[1:]
    if isinstance(structure, slice):
        parts = ("start", "stop", "step")
        ends = {part: getattr(structure, part) for part in parts}
        return slice(*_replaced(ends, path, value).values())
    if isinstance(structure, dict):
        return {**structure, key: _replaced(structure.get(key), rest, value)}
    if not isinstance(structure, (list, tuple)):
        # A setting that is one number for a shape of one entry.
        return _replaced([structure], path, value)
    entries = list(structure)
    entries[key] = _replaced(entries[key], rest, value)
    return type(structure)(entries)


def _like(old, value):
    """An array in place of a tensor becomes a tensor."""
    if isinstance(value, np.ndarray) and keras.ops.is_tensor(old):
        return keras.ops.convert_to_tensor(value, dtype=old.dtype)
    return value


def objects_of(layer):
    """The functions and objects that a layer was given, by Keras's names.

    With these, a layer with an activation or initializer of the user's own is
    rebuilt although that is not registered.
    """
    parts = _keras.flat_layers(layer)
    return by_name(parts) | by_name(
        value for part in parts for value in vars(part).values()
    )


def by_name(objects):
    """Functions by their names, and the classes of callable objects."""
    things = (x if hasattr(x, "__name__") else type(x) for x in objects)
    return {x.__name__: x for x in things if callable(x)}


def same_lambda(old):
    """A Lambda with the same function, which its config would pickle."""
    new = keras.layers.Lambda(
        old.function,
        output_shape=_keras.lambda_output_shape(old),
        mask=old.mask,
        name=old.name,
        dtype=old.dtype_policy,
        trainable=old.trainable,
    )
    # Past Keras's tracking: variables among them are weights of other layers.
    vars(new)["arguments"] = dict(old.arguments)
    return new
