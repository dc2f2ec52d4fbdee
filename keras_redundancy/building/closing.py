"""Make a layer of its own class in place of the graph that was inside of it."""

import functools
import warnings
import weakref
from numbers import Integral

import keras

from keras_redundancy import _keras
from keras_redundancy.building import configs
from keras_redundancy.building.recipe import LayerRecipe, Recipe, operations
from keras_redundancy.building.stock import LayerForm

# {class: {config and shapes: trials}}: models have many layers that are alike.
TRIALS = weakref.WeakKeyDictionary()


def closed(opened, recipe: Recipe, given: list):
    """The layer that an `Opened` took the place of, made anew.

    Args:
        opened: the `Opened` of the old model.
        recipe: that of the new model.
        given: the `KerasTensor`s that it is called on in the new model.

    Returns:
        (a `LayerRecipe`, the new layer). None if no arguments of the layer's
        constructor are found that make all its variables of the sizes that
        the recipe says.
    """
    layer, changes = opened.layer, is_changed(opened, recipe)
    wanted = [tuple(recipe.value(x).shape) for x in layer.variables]
    # What the layer reads may say the sizes: first without other settings.
    for settings in ({}, _solved(opened, wanted)) if changes else ({},):
        found = LayerRecipe(layer, LayerForm(layer), settings)
        new = _made(found, opened, given)
        if new is not None and shapes_of(new) == wanted:
            return found, new
    return None if changes else (found, _keras.copy_with_variables(layer))


def set_by_arguments(opened) -> list[set]:
    """The axes of variables that single arguments of a layer set.

    Returns:
        For each entry of the layer's config that only sets sizes, in
        proportion to its value, {(id(variable), axis), ...}.
    """
    return _axes_set_by(_trials(opened), opened)


def set_by_inputs(opened) -> list[list[set]]:
    """The axes of variables whose sizes are those of what the layer reads.

    Returns:
        [axes, ...] as from `set_by_arguments`, for the sizes of single inputs;
        and the same for sizes that inputs have in common.
    """
    alone, common = _trials_of_inputs(opened)
    return [_axes_set_by(trials, opened) for trials in (alone, common)]


def _axes_set_by(trials, opened):
    found = []
    for _, value, step, shapes in trials:
        sizes = [
            (id(variable), axis, a, b)
            for variable, new in zip(
                opened.layer.variables, shapes, strict=True
            )
            for axis, (a, b) in enumerate(zip(variable.shape, new, strict=True))
            if a != b
        ]
        if sizes and all((b - a) * value == step * a for *_, a, b in sizes):
            found.append({(key, axis) for key, axis, *_ in sizes})
    return found


def is_changed(opened, recipe: Recipe) -> bool:
    """Whether anything inside of an `Opened` changes."""
    inside = operations(opened)[:-1]
    return any(recipe[x].is_changed for x in inside) or any(
        recipe.arguments(call.node) for call in _keras.flat_graph(opened).calls
    )


def _solved(opened, wanted):
    return settings_for(_trials(opened), shapes_of(opened.layer), wanted)


def settings_for(trials, before: list, wanted: list) -> dict:
    """The entries of a config that set sizes of variables, with new values.

    Args:
        trials: what `tried` returns for some entries: a size grows with the
            value, times some number.
        before, wanted: the shapes that the variables have, and should have.
    """
    found = {}
    for path, value, step, shapes in trials:
        for old, new, goal in zip(before, shapes, wanted, strict=True):
            for a, b, c in zip(old, new, goal, strict=True):
                if a != b and a != c:
                    found[path] = value + (c - a) * step // (b - a)
    return found


def shapes_with(trials, settings: dict, before: list) -> list[tuple]:
    """The shapes of variables that settings make, as far as trials say.

    Args:
        trials, before: as for `settings_for`.
        settings: what that returns.
    """
    found = [list(shape) for shape in before]
    for path, value, step, shapes in trials:
        added = settings.get(path, value) - value
        for sizes, old, new in zip(found, before, shapes, strict=True):
            for axis, (a, b) in enumerate(zip(old, new, strict=True)):
                sizes[axis] += (b - a) * added // step
    return list(map(tuple, found))


def can_be_made(opened) -> bool:
    """Whether the layer can be made with another value of some entry."""
    return bool(_trials(opened))


def _trials(opened) -> list[tuple]:
    """What becomes of a layer with another value of an entry of its config.

    Returns:
        For each whole number in the config with which the layer can be made:
        (path of the entry, its value, what was added to it, the shapes of the
        variables).
    """

    def found(config):
        sizes = shapes_of(opened.layer)
        made = functools.partial(_shapes_with, opened)
        numbers = whole_numbers(config, sizes)
        trials = (tried(made, sizes, *each) for each in numbers)
        return [x for x in trials if x is not None]

    return _once_for_all_alike(opened, "arguments", found)


def _trials_of_inputs(opened) -> tuple[list, list]:
    """What becomes of a layer that reads tensors of other sizes.

    Returns:
        For the axes of single inputs, and for axes of several inputs which
        have the same size: entries like those of `_trials`, with the axis in
        place of a path.
    """

    def found(config):
        before, groups = shapes_of(opened.layer), {}
        sizes = {size for shape in before for size in shape} - {1}
        for number, x in enumerate(opened.inputs):
            for axis, size in enumerate(x.shape[1:], 1):
                if size in sizes:
                    groups.setdefault((axis, size), []).append(number)
        alone = [(n, *key) for key, numbers in groups.items() for n in numbers]
        return (
            _tried_on_inputs(opened, [([n], *key) for n, *key in alone]),
            _tried_on_inputs(
                opened, [(numbers, *key) for key, numbers in groups.items()]
            ),
        )

    return _once_for_all_alike(opened, "inputs", found)


def _tried_on_inputs(opened, groups):
    """Trials of (numbers of inputs, axis, size), where a layer can be made."""

    def made(settings):
        [((numbers, axis), size)] = settings.items()
        given = list(opened.inputs)
        for number in numbers:
            shape = list(given[number].shape)
            shape[axis] = size
            dtype = given[number].dtype
            given[number] = keras.KerasTensor(shape, dtype)
        return _shapes_with(opened, {}, given)

    before = shapes_of(opened.layer)
    trials = [
        tried(made, before, (tuple(numbers), axis), size)
        for numbers, axis, size in groups
    ]
    return [x for x in trials if x is not None]


def _once_for_all_alike(opened, kind, find):
    """What `find(config of the layer)` returned for a layer like this one."""
    layer = opened.layer
    config = configs.config_of(layer)
    known = TRIALS.setdefault(type(layer), {})
    shapes = [x.shape for x in opened.inputs]
    names = configs.without_names(config)
    key = repr((kind, names, shapes, shapes_of(layer)))
    if key not in known:
        known[key] = find(config)
    return known[key]


def _shapes_with(opened, settings, given=None):
    recipe = LayerRecipe(opened.layer, LayerForm(opened.layer), settings)
    with _keras.shapes_alone():
        new = _made(recipe, opened, given or opened.inputs)
        return None if new is None else shapes_of(new)


def tried(made, before: list, path: tuple, value: int):
    """What becomes of variables with another value of an entry of a config.

    Args:
        made: a function of settings that returns the shapes of the variables
            that are made with them, or None where that fails.
        before: the shapes without other settings.
        path, value: the entry.

    Returns:
        (path, value, what was added to it, the shapes); None if there are
        other variables then, or none can be made.
    """
    for step in (value, -(value // 2), 1):
        shapes = made({path: value + step})
        if shapes is not None:
            is_alike = list(map(len, shapes)) == list(map(len, before))
            return (path, value, step, shapes) if is_alike else None
    return None


def whole_numbers(config, shapes):
    """(path, value) of the entries of a config that can set a size in there.

    A size is the value, a multiple, or a part of it.
    """
    sizes = {size for shape in shapes for size in shape} - {1}
    for key, value in config.items():
        entries = enumerate(value) if isinstance(value, list | tuple) else ()
        for path, x in (((key,), value), *(((key, i), x) for i, x in entries)):
            is_number = isinstance(x, Integral) and not isinstance(x, bool)
            if is_number and x > 1 and any(n % x * (x % n) == 0 for n in sizes):
                yield path, int(x)


def _made(recipe, opened, given):
    """The layer of a recipe, built on `given`; None where that fails."""
    tensors = [keras.KerasTensor(x.shape, x.dtype) for x in given]
    args, kwargs = opened.arguments_with(tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns before it fails.
        try:
            new = _from_config(recipe)
            new(*args, **kwargs)
        except Exception:  # Whatever the layer's own code raises.
            return None
    new._inbound_nodes.clear()
    return new


def _from_config(recipe):
    try:
        return configs.made_anew(recipe, type(recipe.layer).from_config)
    except ValueError:
        return configs.made_from_attributes(recipe)


def shapes_of(layer) -> list:
    """The shapes of a layer's variables."""
    return [tuple(x.shape) for x in layer.variables]
