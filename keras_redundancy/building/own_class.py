"""Make a model anew by the constructor of its own class, with smaller sizes.

So do KerasHub's models keep what their classes add, such as `generate` and a
preprocessor, where arguments of the constructor set all sizes that change.
"""

import functools
import warnings

import keras

from keras_redundancy import _keras
from keras_redundancy.building import closing
from keras_redundancy.building.configs import with_settings
from keras_redundancy.channels.opening import returns_the_same, run_packed


def in_own_class(model, plain, twins: dict):
    """A model like `plain`, of the class of `model`.

    Args:
        model: a functional model whose class has a constructor of its own.
        plain: the smaller model that was made like it, a plain one.
        twins: {id(variable of model): its counterpart in plain}. Variables
            that the graph does not read have none: they stay as they are.

    Returns:
        The model, with weights of its own. None if no arguments of the
        constructor are found that make all variables of the right shapes, or
        the model that they make computes something else.
    """
    if not _keras.has_own_config(type(model)):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            new = _made(model, twins)
        except Exception:  # Whatever the constructor raises.
            return None
    if new is None:
        return None
    for old, its_twin in variable_pairs(model, new):
        _keras.set_value(its_twin, twins.get(id(old), old))
    run = functools.partial(run_packed, new)
    return new if returns_the_same(run, plain) else None


def variable_pairs(model, new) -> list[tuple]:
    """[(variable of a model, its counterpart in one of the same class)]."""
    return list(zip(*map(_variables, (model, new)), strict=True))


def _variables(model):
    return [x for x in model.variables if not _keras.is_random_state(x)]


def _made(model, twins):
    """The model of other sizes; None if these cannot be reached."""
    models, others, config = {}, {}, _keras.get_config(model)
    for name, value in config.items():
        attribute = getattr(model, name, None)
        if isinstance(attribute, keras.Model) and attribute.weights:
            models[name] = _made(attribute, twins)
            if models[name] is None:
                return None
        elif isinstance(value, dict) and hasattr(attribute, "get_config"):
            others[name] = attribute  # Such as a preprocessor: it stays.
    wanted = _sizes(model, lambda x: twins.get(id(x), x))
    make = _Maker(type(model), config | others | models)
    settings = {} if models else make.settings_for(_sizes(model), wanted)
    new = make(settings)
    return new if _sizes(new) == wanted else None


def _sizes(model, twin=lambda x: x):
    return [tuple(twin(x).shape) for x in _variables(model)]


class _Maker:
    """Makes models of a class from a config, with other settings."""

    def __init__(self, cls, config):
        self._cls, self._config = cls, config

    def __call__(self, settings):
        config = with_settings(dict(self._config), settings)
        return self._cls.from_config(config)

    def sizes(self, settings):
        """The shapes of the variables; None where none can be made."""
        try:
            with _keras.shapes_alone():
                return _sizes(self(settings))
        except Exception:  # Whatever the constructor raises.
            return None

    def settings_for(self, before, wanted):
        """The settings that make variables of the `wanted` shapes, if any do.

        To make a model takes long: entries that are sizes which change are
        tried first, and no more of them than are needed.
        """
        changed = {
            size
            for old, new in zip(before, wanted, strict=True)
            for size, goal in zip(old, new, strict=True)
            if size != goal
        }
        numbers = closing.whole_numbers(self._config, [changed])
        trials, settings = [], {}
        for path, value in sorted(numbers, key=lambda x: x[1] not in changed):
            trial = closing.tried(self.sizes, before, path, value)
            if trial is not None:
                trials.append(trial)
                settings = closing.settings_for(trials, before, wanted)
                if closing.shapes_with(trials, settings, before) == wanted:
                    break
        return settings
