"""Copies of layers that cannot be made anew from their configs."""

import types

import keras

from keras_redundancy._keras.layers import attributes_of

# What `keras.Layer.__init__` sets to something else than the copied layer has.
OF_A_LAYER = (
    "_build_shapes_dict",
    "_called",
    "_supports_masking",
    "activity_regularizer",
    "autocast",
    "built",
    "input_spec",
)


def copy_with_variables(layer):
    """A copy of a built layer with variables of its own, of the same values.

    Layers inside and random generators are copied as well. What else the
    layer holds, such as functions and settings, the copy holds too.

    Raises:
        ValueError: a variable of the layer is held by none of its attributes.
    """
    new = _copied_layer(layer, {})
    if len(new.variables) != len(layer.variables):
        raise ValueError(
            f"{layer.name!r} ({type(layer).__name__}) cannot be copied: some "
            "of its variables are in none of its attributes."
        )
    return new


def _copied_layer(layer, made):
    cls = type(layer)
    new = cls.__new__(cls)
    made[id(layer)] = new
    keras.Layer.__init__(
        new,
        name=layer.name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )
    base = set(vars(new))
    for key, value in attributes_of(layer).items():
        if key not in base:
            setattr(new, key, _copied(value, made))
    for key in OF_A_LAYER:
        if key in vars(layer):
            vars(new)[key] = vars(layer)[key]
    return new


def _copied(value, made):
    """A copy of an attribute's value.

    Args:
        value: the value.
        made: {id: copy} of what is copied already.
    """
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, types.MethodType) and id(value.__self__) in made:
        return types.MethodType(value.__func__, made[id(value.__self__)])
    if isinstance(value, keras.Layer):
        return _copied_layer(value, made)
    if isinstance(value, keras.Variable):
        new = keras.Variable(
            keras.ops.copy(value.value),
            dtype=value.dtype,
            trainable=value.trainable,
            autocast=value._autocast,
            aggregation=value.aggregation,
            name=value.name,
        )
    elif isinstance(value, keras.random.SeedGenerator):
        new = keras.random.SeedGenerator.from_config(value.get_config())
        new.state.assign(value.state)
    elif isinstance(value, dict):
        return {key: _copied(x, made) for key, x in value.items()}
    elif type(value) is tuple:
        return tuple(_copied(x, made) for x in value)
    elif isinstance(value, list):
        return [_copied(x, made) for x in value]
    else:
        return value
    made[id(value)] = new
    return new
