"""Give the layers of a new model the weights of the old ones."""

import tempfile

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy.building import faults
from keras_redundancy.building.recipe import (
    Recipe,
    is_configured,
    own_variables,
)
from keras_redundancy.building.stock import LayerForm, value_of

PENALTIES = (keras.constraints.Constraint, keras.regularizers.Regularizer)


def assign_weights(old, new, recipe: Recipe) -> list[tuple]:
    """Give a new layer the weights that the recipe says.

    Args:
        old: the layer, or operation, of the old model.
        new: what took its place.
        recipe: that of the whole model.

    Returns:
        [(variable of old, its counterpart), ...] of those that have one.

    Raises:
        ValueError: a variable of the new layer is not of the right shape.
    """
    form = recipe[old].form
    if not is_configured(old) or form.is_left_out:
        return []
    if form.like is not old:  # That has been assigned before.
        _set_values(old, new, form)
        return []
    if form.is_other_class:
        _restore_objects(old, new, same_shapes=True)
        _set_values(old, new, form)
        return []
    _build_parts(old, new)
    pairs = _counterparts(old, new, form)
    same_shapes = all(tuple(a.shape) == tuple(b.shape) for a, b in pairs)
    for part, its_copy in zip(parts(old), parts(new), strict=False):
        _restore_objects(part, its_copy, same_shapes)
    _set_values(old, new, form)
    for source, target in pairs:
        value = recipe.value(source)
        if not np.ndim(value) and tuple(target.shape) == (1,):
            value = np.reshape(value, (1,))  # A layer of Keras has no numbers.
        _require_shape(recipe[old], new, source, value, target)
        _keras.set_value(target, value)
        target.trainable = source.trainable
        _keep_penalties(source, target)
    if hasattr(old, "adapt"):
        _copy_adapted(old, new)
    return pairs


def parts(layer) -> list:
    """The layer and those that its constructor makes, outer before inner.

    What is inside of a model or wrapper was made anew by itself.
    """
    if _keras.is_model(layer) or _keras.wraps_one_layer(layer):
        return [layer]
    return _keras.flat_layers(layer)


def copy_flags(pairs) -> None:
    """Copy the flags of layers that no config has: [(old, new), ...].

    These are `trainable`, as it is by now, and `autocast`. Inner layers come
    first, and their flags are set last: those of outer ones set both.
    """
    for old, new in reversed(pairs):
        if isinstance(old, keras.Layer):
            for part, its_copy in zip(parts(old), parts(new), strict=False):
                its_copy.trainable = part.trainable
                its_copy.autocast = part.autocast


def _set_values(old, new, form: LayerForm):
    """Set the variables that are not copied from those of the same place."""
    for name, value in form.values.items():
        if value is None or (array := value_of(value)) is None:
            continue
        target, source = getattr(new, name), getattr(old, name, None)
        _keras.set_value(target, array)
        if isinstance(source, keras.Variable):
            target.trainable = source.trainable


def _counterparts(old, new, form):
    """[(variable of old, variable of new in the same place), ...]."""
    both, more = [], _biases_made(old, new)
    for layer in (old, new):
        named = [getattr(layer, name, None) for name in form.values]
        apart = set(map(id, keras.tree.flatten(named))) | more
        both.append([v for v in own_variables(layer) if id(v) not in apart])
    counts = tuple(map(len, both))
    if counts[0] != counts[1]:
        raise ValueError(faults.other_count(old, *counts))
    return list(zip(*both, strict=True))


def _biases_made(old, new):
    """Ids of biases of layers inside that the old layer is without.

    The class of the old layer leaves them out, and Keras's layer that takes
    its place has no argument for that. They are zeros.
    """
    pairs = zip(parts(old)[1:], parts(new)[1:], strict=False)
    return {
        id(its_copy.bias)
        for part, its_copy in pairs
        if type(part) is type(its_copy)
        and getattr(part, "bias", 0) is None
        and getattr(its_copy, "bias", None) is not None
    }


def _require_shape(recipe, new, source, value, target):
    shape, made = tuple(value.shape), tuple(target.shape)
    if made == shape:
        return
    wrong = None
    if len(shape) == len(made):
        differ = [a for a, b in zip(made, shape, strict=True) if a != b]
        wrong = faults.source_for(new, *differ) if len(differ) == 1 else None
    raise ValueError(faults.other_shape(recipe, source, shape, made, wrong))


def _build_parts(old, new):
    """An activation layer is built where it is first run on numbers."""
    for part, its_copy in zip(parts(old), parts(new), strict=False):
        if part.built and not its_copy.built:
            its_copy.build_from_config(part.get_build_config())


def _restore_objects(old, new, same_shapes):
    """Initializers, penalties, and functions that a config gave by name alone.

    An initializer that holds an array does not fit a narrower layer, and the
    saved model could not be built with it: it becomes zeros.
    """
    kept = {}
    for key, value in vars(old).items():
        other = vars(new).get(key)
        if isinstance(value, keras.Initializer):
            fits = same_shapes or not any(map(np.ndim, vars(value).values()))
            setattr(new, key, value if fits else keras.initializers.Zeros())
        elif _is_better(value, other):
            setattr(new, key, value)
            kept[id(other)] = value
        elif (
            _keras.is_function(value)
            and _keras.is_function(other)
            and (value.__module__, value.__qualname__)
            != (other.__module__, other.__qualname__)
        ):
            setattr(new, key, value)
    for variable in new.variables if kept else ():
        for name in ("constraint", "regularizer"):
            value = getattr(variable, name)
            setattr(variable, name, kept.get(id(value), value))


def _keep_penalties(source, target):
    """Regularizers and constraints of a variable that have no `get_config`."""
    for name in ("constraint", "regularizer"):
        value = getattr(source, name)
        if _is_better(value, getattr(target, name)):
            setattr(target, name, value)


def _is_better(value, made_anew) -> bool:
    """Whether to keep a penalty, as its class may have no `get_config`.

    One that holds arrays may not fit the new shape.
    """
    return (
        isinstance(value, PENALTIES)
        and type(value) is type(made_anew)
        and not _keras.is_stock_class(type(value))
        and not any(map(np.ndim, vars(value).values()))
    )


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
