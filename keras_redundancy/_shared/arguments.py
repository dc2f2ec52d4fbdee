"""Checks of arguments: numbers, options, thresholds and layers."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real

import keras

from keras_redundancy._shared.tables import listed

Level = float | Mapping[str, float] | Callable[[object], float | None]
Around = Mapping[int, list[str]]
Layers = None | str | list[str] | Callable[[object], bool]


def check_option(name: str, value, valid) -> None:
    """Raise ValueError unless `value` is one of `valid`."""
    if not isinstance(value, str) or value not in valid:
        raise ValueError(
            f"{name}={value!r} is not known.{did_you_mean(value, valid)} "
            f"Choose one of: {', '.join(map(repr, valid))}."
        )


def did_you_mean(value, valid) -> str:
    """The question whether the nearest valid name was meant, or ""."""
    near = difflib.get_close_matches(str(value).lower(), list(valid), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_flag(name: str, value, hint: str = "") -> None:
    """Raise TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(
            f"{name} must be True or False, but received {value!r}.{hint}"
        )


def check_verbose(value) -> None:
    """Raise TypeError unless `value` is True or False, or an integer."""
    if not isinstance(value, Integral):
        raise TypeError(
            f"verbose must be True or False, but received {value!r}."
        )


def check_count(name: str, value, least: int = 1) -> None:
    """Raise ValueError unless `value` is an integer of at least `least`."""
    if not _is_integer(value) or value < least:
        raise ValueError(
            f"{name} must be an integer of at least {least}, but received "
            f"{value!r}."
        )


def check_seed(value) -> None:
    """Raise ValueError unless `value` is None or an integer of at least 0."""
    if value is not None and (not _is_integer(value) or value < 0):
        raise ValueError(
            "seed must be None or an integer that is not negative, but "
            f"received {value!r}."
        )


def _is_integer(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_axes(name: str, value) -> int | list[int]:
    """`value` as an integer or a list of integers.

    Raises:
        TypeError: `value` is no integer and no sequence of them.
    """
    if _is_integer(value):
        return int(value)
    is_list = isinstance(value, (list, tuple)) and len(value)
    if not is_list or not all(map(_is_integer, value)):
        raise TypeError(
            f"{name} must be the number of an axis or a list of them, such as "
            f"-1 or [-2, -1], but received {value!r}."
        )
    return [int(axis) for axis in value]


def check_finite(name: str, value, least: float = 0) -> float:
    """`value` as a float, finite and at least `least`.

    Raises:
        TypeError, ValueError: it is no such number.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(
            f"{name} must be a number, but received {value!r} of type "
            f"{type(value).__name__}."
        )
    if not math.isfinite(value) or value < least:
        bound = f" and at least {least}" if math.isfinite(least) else ""
        raise ValueError(
            f"{name} must be finite{bound}, but received {value!r}."
        )
    return float(value)


def check_positive(name: str, value) -> float:
    """`value` as a float, finite and greater than 0, as `check_finite`."""
    if check_finite(name, value, -math.inf) <= 0:
        raise ValueError(
            f"{name} must be greater than 0, but received {value!r}."
        )
    return float(value)


def check_fraction(
    name: str,
    value,
    meaning: str,
    *,
    zero: bool = False,
    one: bool = False,
    example: float = 0.5,
) -> float:
    """`value` as a float between 0 and 1.

    Args:
        name: the argument's name, for messages.
        meaning: what the number is, for messages.
        zero, one: whether 0 and 1 are valid.
        example: a valid number, for messages.

    Raises:
        TypeError, ValueError: it is no such number.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    is_end = is_number and ((zero and value == 0) or (one and value == 1))
    if is_end or (is_number and 0 < value < 1):
        return float(value)
    interval = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    raise (ValueError if is_number else TypeError)(
        f"{name} is {value!r}, but it is {meaning}. Pass a number in "
        f"{interval}, e.g. {example}."
    )


def several(name: str, values) -> list:
    """Numbers as a list; a single number makes a list of one.

    Raises:
        TypeError: `values` is no number and cannot be iterated over.
        ValueError: there is no number.
    """
    if isinstance(values, Real):
        return [values]
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise TypeError(
            f"{name} has to be a number or several, but received {values!r}. "
            "Pass a list such as [0.5, 0.7, 0.9]."
        )
    found = list(values)
    if not found:
        raise ValueError(
            f"{name} is empty. Pass one number or more, such as [0.5, 0.7]."
        )
    return found


def levels_by_layer(
    level: Level, layers: list, where: str, check: Callable, around: Around
) -> dict[int, float | None]:
    """The level of every layer, by id(layer); None leaves it alone.

    Args:
        level: a number for all layers; or a mapping from layer names or
            regular expressions to numbers; or a callable that takes a layer
            and returns a number or None. Expressions match the whole name.
            An exact name wins, then the first entry that matches.
        layers: the layers with units, in graph order.
        where: the argument's name, for messages.
        check: takes a number and its name for messages, returns the number,
            or raises.
        around: {id(layer): names of the models that the layer is inside of}.

    Raises:
        TypeError, ValueError: a number is refused by `check`, or a key of
            the mapping matches no layer.
    """
    _require_no_class(level, where, "0.5 if {} else None")
    if isinstance(level, Mapping):
        return _levels_of_mapping(level, layers, where, check, around)
    if callable(level):
        found = {}
        for layer in layers:
            value = level(layer)
            named = f"{where} for the layer {layer.name!r}"
            found[id(layer)] = None if value is None else check(value, named)
        return found
    value = check(level, where)
    return {id(layer): value for layer in layers}


def _levels_of_mapping(level, layers, where, check, around):
    if not level:
        raise ValueError(
            f"{where} is an empty mapping, which would prune nothing. Put "
            "names of layers in it, or pass a number for all layers."
        )
    names_of = _names_of(layers, around)
    tests = {key: _matching(key, names_of, where) for key in level}
    values = {
        key: None if value is None else check(value, f"{where}[{key!r}]")
        for key, value in level.items()
    }
    paths = {path_of(layer, around) for layer in layers}
    own = {layer.name for layer in layers}
    known = paths, own, {name for names in names_of.values() for name in names}
    # A path, the name of a layer, that of a block around it, an expression.
    closest_first = sorted(tests, key=lambda key: [key not in x for x in known])
    found = {}
    for layer in layers:
        fitting = (values[k] for k in closest_first if tests[k](id(layer)))
        found[id(layer)] = next(fitting, None)
    return found


def selected_layers(
    choice: Layers, layers: list, where: str, around: Around
) -> set[int]:
    """The ids of the layers that `choice` names; None names no layer.

    Args:
        choice: a name or regular expression (matched against the whole name
            of a layer, or of a model or layer made of layers that it is
            inside of), a list of them, or a callable that takes a layer and
            returns bool.
        layers: the layers with units.
        where: the argument's name, for messages.
        around: {id(layer): names of the models that the layer is inside of}.

    Raises:
        TypeError: `choice` is none of these.
        ValueError: a name or expression matches no layer, or is no regular
            expression.
    """
    _require_no_class(choice, where, "{}")
    is_one = isinstance(choice, str | keras.Layer)  # Layers are callable.
    if callable(choice) and not is_one:
        return {id(layer) for layer in layers if choice(layer)}
    if choice is None:
        return set()
    patterns = [choice] if is_one else choice
    if not isinstance(patterns, list | tuple | set | frozenset):
        raise TypeError(
            f"{where} must be a layer name, a regular expression, a list of "
            "them, or a callable that takes a layer and returns a bool, but "
            f"received {choice!r}."
        )
    if where == "layers" and not patterns:
        raise ValueError(
            "layers is empty, so that no layer would be chosen. Put names of "
            "layers in it, or leave layers= out for all of them."
        )
    names_of = _names_of(layers, around)
    tests = [_matching(pattern, names_of, where) for pattern in patterns]
    return {key for key in names_of if any(matches(key) for matches in tests)}


def _require_no_class(value, where, test):
    """Raise TypeError if a class of layers, or several, stand for layers.

    Args:
        value: what is given.
        where: the argument's name, for messages.
        test: what a function of a layer returns instead, with {} for the
            test of its class.
    """
    several = isinstance(value, list | tuple | set | frozenset)
    for each in value if several else [value]:
        if isinstance(each, type):
            name = each.__name__
            if getattr(keras.layers, name, None) is each:
                name = f"keras.layers.{name}"
            test = test.format(f"isinstance(layer, {name})")
            raise TypeError(
                f"{where} has the class {name}. Pass lambda layer: {test}."
            )


def _names_of(layers, around) -> dict[int, list[str]]:
    """{id: the name of a layer, those of what it is inside of, its path}."""
    return {
        id(layer): [
            layer.name,
            *getattr(layer, "blocks", ()),
            *around.get(id(layer), ()),
            path_of(layer, around),
        ]
        for layer in layers
    }


def path_of(layer, around: Around) -> str:
    """A layer's name after those of the models that it is in, as in "a/d"."""
    return "/".join([*around.get(id(layer), ()), layer.name])


def _matching(pattern, names_of, where):
    """A test of ids of layers: a name if there is one like it, else the regex.

    Args:
        names_of: {id: names of the layer, its own first}.
    """
    if not isinstance(pattern, str):
        hint = ""
        if isinstance(pattern, keras.Layer):
            hint = f" Write its name, {pattern.name!r}."
        raise TypeError(
            f"{where} names layers by strings, but received {pattern!r}.{hint}"
        )
    if any(pattern in names for names in names_of.values()):
        return lambda key: pattern in names_of[key]
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{where} has {pattern!r}, which is no name of a layer and no "
            f"regular expression ({error})."
        ) from error

    def matches(key):
        return any(map(expression.fullmatch, names_of[key]))

    if not any(map(matches, names_of)):
        names = [own for own, *_ in names_of.values()]
        raise ValueError(
            f"{where} has {pattern!r}, which matches no layer with units "
            "(names and regular expressions are matched against the whole "
            f"name). The layers are: {listed(names)}."
        )
    return matches
