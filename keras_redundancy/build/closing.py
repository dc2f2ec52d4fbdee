"""Make a layer of its own class in place of the graph that was inside of it."""

import warnings
from collections.abc import Iterator
from numbers import Integral

import keras

from keras_redundancy import _keras
from keras_redundancy.build import configs
from keras_redundancy.build.recipe import LayerRecipe, Recipe, operations
from keras_redundancy.build.stock import LayerForm


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
        if new is not None and _shapes(new) == wanted:
            return found, new
    return None if changes else (found, _keras.copy_with_variables(layer))


def can_be_saved(layer) -> bool:
    """Whether a layer can be made from its config, as a saved model is."""
    try:
        type(layer).from_config(layer.get_config())
    except Exception:  # Whatever the layer's own code raises.
        return False
    return True


def is_changed(opened, recipe: Recipe) -> bool:
    """Whether anything inside of an `Opened` changes."""
    inside = operations(opened)[:-1]
    return any(recipe[x].is_changed for x in inside) or any(
        recipe.arguments(call.node) for call in _keras.flat_graph(opened).calls
    )


def _solved(opened, wanted):
    """The entries of a config that set sizes of variables, with new values.

    Which ones do is found out by making the layer with another value: a size
    grows with the value, times some number.
    """
    before, found = _shapes(opened.layer), {}
    for path, value, step, shapes in _trials(opened):
        for old, new, goal in zip(before, shapes, wanted, strict=True):
            for a, b, c in zip(old, new, goal, strict=True):
                if a != b and a != c:
                    found[path] = value + (c - a) * step // (b - a)
    return found


def _trials(opened) -> Iterator[tuple]:
    """The layer made with another value of an entry of its config, each once.

    Yields:
        (path of the entry, its value, what was added to it, the shapes of the
        variables of the layer that was made).
    """
    layer = opened.layer
    ranks = [len(x.shape) for x in layer.variables]
    for path, value in _whole_numbers(configs.config_of(layer)):
        for step in (value, -(value // 2), 1):
            settings = {path: value + step}
            recipe = LayerRecipe(layer, LayerForm(layer), settings)
            new = _made(recipe, opened, opened.inputs)
            if new is not None:
                shapes = _shapes(new)
                if list(map(len, shapes)) == ranks:
                    yield path, value, step, shapes
                break


def _whole_numbers(config):
    for key, value in config.items():
        entries = enumerate(value) if isinstance(value, list | tuple) else ()
        for path, x in (((key,), value), *(((key, i), x) for i, x in entries)):
            if isinstance(x, Integral) and not isinstance(x, bool) and x > 1:
                yield path, int(x)


def _made(recipe, opened, given):
    """The layer of a recipe, built on `given`; None where that fails."""
    tensors = [keras.KerasTensor(x.shape, x.dtype) for x in given]
    args, kwargs = opened.arguments_with(tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns before it fails.
        try:
            new = configs.made_anew(recipe, type(recipe.layer).from_config)
            new(*args, **kwargs)
        except Exception:  # Whatever the layer's own code raises.
            return None
    new._inbound_nodes.clear()
    return new


def _shapes(layer):
    return [tuple(x.shape) for x in layer.variables]
