"""What a caller of `plan` asks for: short names and options become objects."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from numbers import Number
from typing import TypedDict

from keras_redundancy._shared import arguments
from keras_redundancy._shared.configured import name_of
from keras_redundancy.planning import absorbing, methods
from keras_redundancy.planning.levels import (
    LEVELS,
    checked_target,
    cost_called,
    one_level,
)
from keras_redundancy.planning.method import Method, Scores, name_of_scores

ARGUMENTS = ("method", "data", "absorb", "mend", "layers", "skip", "verbose")
SHORT_NAMES = ", ".join(map(repr, methods.BY_NAME))
METHOD_OPTIONS = ("criterion", "linkage", "keep", "seed")
# What other libraries, and Keras, call these arguments.
OTHER_NAMES = {
    **dict.fromkeys(("pruning_ratio", "sparsity", "amount"), "ratio"),
    **dict.fromkeys(("x", "images", "dataset"), "data"),
    **{"threshold": "tau", "ignored_layers": "skip", "importance": "method"},
}


class Options(TypedDict, total=False):
    """The options of `plan` and `prune` that are seldom needed."""

    batch_size: int
    steps: int | None
    input_shape: object
    round_to: int
    min_units: int
    allow_inexact: bool
    inline: bool | None
    optimizer: bool
    select: str | Method | Callable | None
    criterion: str | None
    linkage: str | None
    keep: str | None
    seed: int | None
    repair: bool | None
    rounds: int | None


@dataclasses.dataclass(frozen=True)
class Request:
    """The checked arguments of `plan`, with objects in place of short names.

    Attributes:
        how: the argument that says how much goes: "tau", "ratio", "target" or
            "correlation".
        level: the value of that argument; for a target what is counted and
            the share that is to be left.
        method: the method that chooses units.
        absorb: what consumers read in place of the units that go.
        mend: how the smaller model is mended, or None.
        batch_size, steps, input_shape, round_to, min_units, allow_inexact,
            inline, optimizer: as for `plan`.
    """

    how: str
    level: object
    method: Method
    absorb: absorbing.Absorb
    mend: absorbing.Mend | None
    batch_size: int = 128
    steps: int | None = None
    input_shape: object = None
    round_to: int = 1
    min_units: int = 1
    allow_inexact: bool = False
    inline: bool | None = None
    optimizer: bool = False

    def __post_init__(self):
        for name in ("batch_size", "round_to", "min_units"):
            arguments.check_count(name, getattr(self, name))
        arguments.check_flag("allow_inexact", self.allow_inexact)
        if self.inline is not None:
            arguments.check_flag("inline", self.inline)
        hint = " It says whether the optimizer of the model goes on."
        arguments.check_flag("optimizer", self.optimizer, hint)

    @property
    def needs_statistics(self) -> bool:
        """Whether activations have to be known."""
        return self.method.uses_data or self.absorb.needs_data

    def width(self, wanted: int, size: int) -> int:
        """How many of `size` units stay if `wanted` are to: with `round_to`
        and `min_units`."""
        return width_of(wanted, size, self.round_to, self.min_units)


def width_of(wanted, size: int, round_to: int = 1, min_units: int = 1) -> int:
    """How many of `size` units stay if `wanted` are to."""
    wanted = max(wanted, min_units)
    return min(-(-wanted // round_to) * round_to, size)


def requested(
    method, levels: dict, has_data: bool, absorb, mend, options: Mapping
) -> Request:
    """The arguments of `plan` as a `Request`.

    Args:
        method, absorb, mend: as for `plan`.
        levels: {"tau": tau, ...}, with None for those that are not given.
        has_data: whether there are data to calibrate on.
        options: the other options of `plan`.

    Raises:
        TypeError: an argument is of a wrong type or not known, or none or
            several say how much goes.
        ValueError: an option is unknown, out of range, does not go with
            another, or would have no effect.
    """
    require_known(options)
    rest = {name: x for name, x in options.items() if x is not None}
    own = {n: rest.pop(n) for n in METHOD_OPTIONS if n in rest}
    method, levels = _method_or_tau(method, rest.pop("select", None), levels)
    how, level = one_level(levels, method)
    if method is None:
        method = "greedy" if has_data else "l1"
        if how == "tau" or own.get("keep") == "mean":
            method = "clusters"
    method, method_words = _made(method, own)
    absorb, absorb_words = absorbing.absorb_of(
        absorb, has_data and not method.means
    )
    if not has_data:
        needs = {method_words: method, absorb_words: absorb}
        _require_no_need_of_data(how, method, needs)
    _require_level(method, method_words, how)
    if method.means and not isinstance(absorb, absorbing.Merge):
        raise ValueError(
            f"keep='mean' does not go with {absorb_words}: the mean of a "
            "cluster is a new unit, which consumers read in place of all units "
            "of the cluster. Use absorb='merge', or keep='medoid'."
        )
    given = {n: rest.pop(n) for n in ("repair", "rounds") if n in rest}
    mend = absorbing.mend_of(mend, given, has_data)
    level = checked_target(level) if how == "target" else level
    return Request(how, level, method, absorb, mend, **rest)


def require_known(options, of="plan and prune", own=LEVELS) -> None:
    """Raise TypeError for an option that is not known.

    Args:
        options: {name: value}.
        of: the function that the user called, for messages.
        own: the arguments of it that `plan` has not, or those of how much
            goes.
    """
    known = [*dict.fromkeys([*own, *ARGUMENTS, *Options.__annotations__])]
    for name in options:
        if name not in (*known, *LEVELS):
            near = difflib.get_close_matches(name, known, 1)
            near = OTHER_NAMES.get(name) or next(iter(near), None)
            meant = f" Did you mean {near}=?" if near else ""
            cost = cost_called(name)
            if cost and own is LEVELS:
                share = options[name]
                share = share if isinstance(share, Number) else 0.5
                meant = f" Did you mean target={{{cost!r}: {share!r}}}?"
            if name in ("y", "labels"):
                meant = " No labels are needed; kr.distill can use them."
            raise TypeError(
                f"{name}= is no option of {of}.{meant} The options "
                f"are: {', '.join(known)}."
            )


# --- the method -------------------------------------------------------------


def _method_or_tau(method, select, levels):
    """The method, or None, and the levels with a tau given in its place."""
    is_tau = isinstance(method, Number | Mapping)
    if callable(method) and not isinstance(method, Method | type):
        # A function of units goes with another level, one of layers is a tau.
        has_level = any(x is not None for x in levels.values())
        is_tau = select is not None or not has_level
    if is_tau and levels["tau"] is not None:
        raise TypeError(
            f"tau={levels['tau']!r} is given twice: the first argument after "
            f"the model, {name_of(method)}, is a tau, too. Leave one out."
        )
    if is_tau:
        method, levels = None, levels | {"tau": method}
    if method is not None and select is not None:
        raise TypeError(
            f"The method is given twice, as {name_of(method)} and as select="
            f"{name_of(select)}. Leave one out."
        )
    return _method_of(select if method is None else method), levels


def _method_of(value):
    """A `Method`, a short name, or None."""
    if value is None or isinstance(value, Method):
        return value
    if isinstance(value, str):
        _require_short_name(value)
        return value
    if isinstance(value, absorbing.Absorb | absorbing.Mend):
        name = "mend" if isinstance(value, absorbing.Mend) else "absorb"
        raise TypeError(
            f"{value!r} does not choose units. Pass it as {name}={value!r}."
        )
    if isinstance(value, type):
        raise TypeError(
            f"{value.__name__} is a class. Pass an object of it, made with its "
            f"options: {value.__name__}()."
        )
    function = getattr(value, "scores", value)
    if not callable(function):
        raise TypeError(
            f"{value!r} is no selection method. Pass one of {SHORT_NAMES}, an "
            "object such as kr.Greedy(), or a function from units to scores."
        )
    return Scores(function)


def _require_short_name(value):
    if value not in methods.BY_NAME:
        meant = arguments.did_you_mean(value, methods.BY_NAME)
        raise ValueError(
            f"{value!r} is no selection method.{meant} Pass one of "
            f"{SHORT_NAMES}; an object such as kr.Greedy(); a function from "
            "units to scores; or a number, such as 0.9, as tau."
        )


def _made(method, options):
    """The method with its options, and what to call it in messages."""
    words = f"select={method!r}" if isinstance(method, str) else repr(method)
    if isinstance(method, Scores):
        words = f"the function {name_of_scores(method)}"
    arguments.check_seed(options.get("seed"))
    kind = methods.BY_NAME[method] if isinstance(method, str) else type(method)
    taken = {field.name for field in dataclasses.fields(kind)}
    # A seed may be given without need.
    options = {k: v for k, v in options.items() if k in taken or k != "seed"}
    for name, value in options.items():
        if name not in taken:
            raise ValueError(_not_taken(name, value, words, taken))
        if not isinstance(method, str | Scores) and name != "seed":
            raise ValueError(
                f"{name}={value!r} is given beside {words}. Say it there: "
                f"{kind.__name__}({name}={value!r})."
            )
    if isinstance(method, str):
        return kind(**options), words
    if getattr(method, "seed", 0) is not None:
        options.pop("seed", None)
    return dataclasses.replace(method, **options), words


def _not_taken(name, value, words, taken):
    own = [option for option in METHOD_OPTIONS if option in taken]
    kinds = [m for m in methods.METHODS if name in m.__dataclass_fields__]
    return (
        f"{name}={value!r} would have no effect: {words} does not take it (it "
        f"takes {', '.join(own) or 'no options'}). Leave {name}= out, or use "
        f"it with select={_names_of(kinds)}."
    )


def _names_of(kinds):
    return " or ".join(repr(kind.name) for kind in kinds)


# --- what goes together -----------------------------------------------------


def _require_no_need_of_data(how, method, chosen):
    words = [words for words, each in chosen.items() if each.needs_data]
    if method.criterion == "activations":
        words.insert(0, "criterion='activations'")
    if how == "correlation":
        words.append("correlation=")
    if words:
        raise ValueError(
            f"{' and '.join(words)} cannot do without data: pass data=, some "
            "hundred samples like those that the model was trained on, "
            "without targets."
        )


def _require_level(method, words, how):
    if how not in method.levels:
        why = ", which ranks units and compares no similarities"
        instead = " or ".join(f"{level}=" for level in method.levels)
        takers = _names_of(m for m in methods.METHODS if how in m.levels)
        raise ValueError(
            f"{how} does not go with {words}{why * (how == 'tau')}. Pass "
            f"{instead} in place of {how}=, or use {how}= with select={takers}."
        )
    method.check(how)
