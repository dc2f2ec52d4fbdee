"""Copies of Python functions that read the layers of a copied model."""

import functools
import types

import keras

from keras_redundancy.channels.tied import is_own_function

EMPTY = object()  # Stands for a variable in a closure without a value yet.
# Objects of Keras that are called like functions, and may hold layers.
FUNCTION_OBJECTS = (
    keras.Loss,
    keras.Metric,
    keras.Regularizer,
    keras.constraints.Constraint,
)


def held_by(value) -> list:
    """The objects in a container, or those that a function refers to.

    A function refers to objects in its closure, its defaults and the globals
    that it names; a loss, a metric, a regularizer or a constraint to those in
    its attributes. Functions of libraries are not looked into.
    """
    if isinstance(value, types.FunctionType):
        if not is_own_function(value):
            return []
        return [
            *map(_content, value.__closure__ or ()),
            *(value.__defaults__ or ()),
            *(value.__kwdefaults__ or {}).values(),
            *_globals_of(value).values(),
        ]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, FUNCTION_OBJECTS):
        return list(vars(value).values())
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list) or type(value) is tuple:
        return list(value)
    return []


def reached_by(value) -> list:
    """`value` and all objects that it holds, at any depth, each once."""
    found, left = {}, [value]
    while left:
        value = left.pop()
        if id(value) not in found:
            found[id(value)] = value
            left += held_by(value)
    return list(found.values())


class Rebinder:
    """Copies functions so that they refer to the twins of objects.

    So it does with objects that are called like functions, such as losses.
    Each is copied once: its copy is its twin from then on.
    """

    def __init__(self, twins: dict):
        """`twins` are {id(object): the object to refer to instead}."""
        self._twins = dict(twins)

    def _reaches(self, value):
        return any(id(x) in self._twins for x in reached_by(value))

    def rebound(self, value):
        """`value`, or a copy of it that refers to twins."""
        if id(value) in self._twins:
            return self._twins[id(value)]
        if not self._reaches(value):
            return value
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, FUNCTION_OBJECTS):
            return self._object(value)
        again = self.rebound
        if isinstance(value, functools.partial):
            keywords = {key: again(x) for key, x in value.keywords.items()}
            return functools.partial(
                again(value.func), *map(again, value.args), **keywords
            )
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, again(value.__self__))
        if isinstance(value, dict):
            return {key: again(x) for key, x in value.items()}
        return type(value)(map(again, value))

    def _object(self, old):
        """An object of the same class and attributes, but for twins."""
        new = object.__new__(type(old))
        self._twins[id(old)] = new
        vars(new).update({key: self.rebound(x) for key, x in vars(old).items()})
        return new

    def _function(self, old):
        """A function of the same code with other globals and closure.

        Its globals that refer to no twin keep the values of now.
        """
        named = {
            name: value
            for name, value in _globals_of(old).items()
            if self._reaches(value)
        }
        own = {**old.__globals__} if named else old.__globals__
        cells = tuple(types.CellType() for _ in old.__closure__ or ())
        new = types.FunctionType(
            old.__code__, own, old.__name__, closure=cells or None
        )
        # First of all: a function can refer to itself.
        self._twins[id(old)], again = new, self.rebound
        vars(new).update(vars(old))
        new.__qualname__, new.__module__ = old.__qualname__, old.__module__
        new.__doc__, new.__annotations__ = old.__doc__, old.__annotations__
        own.update({name: again(value) for name, value in named.items()})
        for cell, before in zip(cells, old.__closure__ or (), strict=True):
            if (content := _content(before)) is not EMPTY:
                cell.cell_contents = again(content)
        new.__defaults__ = again(old.__defaults__)
        new.__kwdefaults__ = again(old.__kwdefaults__)
        return new


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # Nothing was assigned to it so far.
        return EMPTY


def _globals_of(function):
    """{name: value} of the globals that a function's code names."""
    known = function.__globals__
    names = _names(function.__code__)
    return {name: known[name] for name in names if name in known}


def _names(code):
    inner = [x for x in code.co_consts if isinstance(x, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))
