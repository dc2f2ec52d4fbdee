"""Slots of optimizers, such as momenta, and variables of new sizes."""

import keras

from keras_redundancy._keras.layers import flat_layers

# The attributes in which optimizers of Keras keep slots that are not linear in
# the gradients. Slots in all other lists, such as momenta, are linear.
SLOT_KINDS = {
    "_velocities": "square",
    "_velocity_hats": "square",
    "_accumulators": "square",
    "_accumulated_grads": "square",
    "_accumulated_delta_vars": "square",
    "_v": "square",
    "_u": "size",
    "adam_velocities": "square",
    "_model_variables_moving_average": "weights",
}


def _inner(optimizer):
    """The optimizer with the slots: a `LossScaleOptimizer` holds another."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _is_schedule_free(optimizer):
    return isinstance(optimizer, keras.optimizers.ScheduleFreeAdamW)


def slots(optimizer, variable) -> list[tuple]:
    """The slots of an optimizer for a variable that it trains.

    Returns:
        [(slot variable, kind), ...]. The kind is "linear" in the gradients, a
        "square" of them, a "size" (the root of a square), or an average of
        "weights". The list is empty if the optimizer is None or does not
        train the variable.
    """
    optimizer = _inner(optimizer)
    trained = getattr(optimizer, "_trainable_variables", [])
    places = [i for i, x in enumerate(trained) if x is variable]
    found = []
    for name, kept in vars(optimizer).items() if places else ():
        if (
            isinstance(kept, list)
            and name not in ("_trainable_variables", "_variables")
            and len(kept) == len(trained)
            and isinstance(kept[places[0]], keras.Variable)
        ):
            kind = SLOT_KINDS.get(name, "linear")
            if name == "_momentums" and _is_schedule_free(optimizer):
                kind = "weights"
            found.append((kept[places[0]], kind))
    return found


def averages_weights(optimizer) -> bool:
    """Whether `fit` ends with other weights than those of its last step."""
    optimizer = _inner(optimizer)
    return getattr(optimizer, "use_ema", False) or _is_schedule_free(optimizer)


def counters(optimizer) -> list:
    """The variables of an optimizer that are no slots, such as iterations."""
    inner = _inner(optimizer)
    kept_for_one = {
        id(slot)
        for variable in inner._trainable_variables
        for slot, _ in slots(inner, variable)
    }
    return [v for v in optimizer.variables if id(v) not in kept_for_one]


def copy_weight_decay(old, new, variables: list[tuple]) -> None:
    """Exclude from weight decay what another optimizer excludes.

    Args:
        old, new: optimizers of the same class.
        variables: [(variable of old, its counterpart in new), ...].
    """
    old, new = _inner(old), _inner(new)
    if not hasattr(old, "_exclude_from_weight_decay"):
        return
    new._exclude_from_weight_decay_pattern = (
        old._exclude_from_weight_decay_pattern
    )
    new._exclude_from_weight_decay = {
        new._var_key(target)
        for source, target in variables
        if old._var_key(source) in old._exclude_from_weight_decay
    }
    new._exclude_from_weight_decay_cache = {}


def resize(variable, value, optimizer=None) -> None:
    """Give a variable a value of another shape, in place.

    Layers and optimizers that hold the variable can go on using it, and it can
    be saved and loaded. Functions that were compiled with it have to be made
    anew: see `forget_functions`.

    Args:
        variable: a `keras.Variable` on one device.
        value: an array.
        optimizer: one that trains it, or None.
    """
    optimizer = _inner(optimizer)
    indices = getattr(optimizer, "_trainable_variables_indices", {})
    excluded = getattr(optimizer, "_exclude_from_weight_decay", set())
    # On TensorFlow the key of a variable is that of its value.
    key = optimizer._var_key(variable) if optimizer else None
    value = keras.ops.convert_to_tensor(value, variable.dtype)
    variable._shape = tuple(value.shape)
    variable._initialize(value)
    if key in indices:
        indices[optimizer._var_key(variable)] = indices.pop(key)
    if key in excluded:
        excluded.add(optimizer._var_key(variable))


def forget_functions(model) -> None:
    """Drop the compiled functions of a model, so that it compiles new ones.

    On PyTorch a layer has a list of its parameters as well, which leaves out
    those that `resize` made.
    """
    if keras.backend.backend() == "torch":
        for layer in flat_layers(model):
            layer._track_variables()
    model.test_function = model.predict_function = None
    model.make_train_function(force=True)
