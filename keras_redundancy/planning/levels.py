"""How much goes: the level of every space, or why it stays as it is."""

from collections.abc import Mapping

from keras_redundancy import _keras
from keras_redundancy._shared import arguments
from keras_redundancy.channels.reasons import Reason
from keras_redundancy.numbers.clustering import check_tau

# What may say how much goes.
LEVELS = ("tau", "ratio", "target", "correlation")
# What a target may be the share of.
COSTS = {
    "flops": "multiply-adds",
    "params": "parameters",
    "units": "units",
    "latency": "time on this machine",
}
# What other libraries call these.
OTHER_COSTS = {
    "flops": "mac macs gmacs gflops flop mult_adds madds multiply_adds",
    "params": "param parameters weights size",
    "units": "unit filters neurons channels",
    "latency": "time speed runtime",
}
LEFT_OUT = Reason("left_out", "{names} left out by layers=, skip= or {how}=")
COUPLED = Reason(
    "coupled_with_left_out",
    "coupled with {names}, left out by layers=, skip= or {how}=",
)
ABOUT_FUNCTIONS = (
    "This function was called with each layer, as tau= is. A function from "
    "units to scores goes with ratio= or target=, which say how much goes: "
    "kr.prune(model, my_scores, ratio=0.3)."
)


def check_ratio(value, where: str = "ratio") -> float:
    """`value` as a float in [0, 1); raises TypeError or ValueError."""
    meaning = "the share of units to remove, and at least one has to stay"
    return arguments.check_fraction(where, value, meaning, zero=True)


def check_correlation(value, where: str = "correlation") -> float:
    """`value` as a float in (0, 1]; raises TypeError or ValueError."""
    meaning = "the least correlation between what consumers compute before "
    meaning += "and after"
    return arguments.check_fraction(
        where, value, meaning, one=True, example=0.99
    )


# How the levels of each kind are checked.
CHECKS = {
    "tau": check_tau,
    "ratio": check_ratio,
    "correlation": check_correlation,
}


def one_level(levels: dict, method) -> tuple[str, object]:
    """The name and value of the one level that is given.

    Args:
        levels: {name: level}, None where it is not given.
        method: the selection method, which can be made with a tau or a
            correlation.

    Raises:
        TypeError: none is given, or several are.
    """
    given = {f"{how}=": (how, x) for how, x in levels.items() if x is not None}
    for how in ("tau", "correlation"):
        own = getattr(method, how, None)
        if own is not None:
            given[f"{how}= in {method!r}"] = how, own
    if len(given) != 1:
        named = " and ".join(given) or "none of them"
        raise TypeError(
            "One of tau=, ratio=, target= and correlation= says how many units "
            f"to remove, but received {named}. Pass exactly one, as in "
            "kr.prune(model, ratio=0.3) or kr.prune(model, target={'flops': "
            "0.5})."
        )
    return next(iter(given.values()))


def checked_target(target) -> tuple[str, float]:
    """(what is counted, the share of it that is to be left)."""
    if not isinstance(target, Mapping) or len(target) != 1:
        raise TypeError(
            "target must be a mapping with one entry, such as {'flops': 0.5} "
            f"for half of the multiply-adds, but received {target!r}."
        )
    what, share = next(iter(target.items()))
    if what not in COSTS:
        raise ValueError(
            f"target={target!r} asks for a share of {what!r}, which is not "
            f"counted.{_called_here(what)} Ask for a share of one of: "
            f"{', '.join(COSTS)}, as in target={{'flops': 0.5}}."
        )
    return what, check_share(what, share, f"target[{what!r}]")


def check_share(what: str, value, where: str) -> float:
    """`value`, the share of a cost, as a float in (0, 1]."""
    meaning = f"the share that is to be left of the {COSTS[what]}"
    return arguments.check_fraction(where, value, meaning, one=True)


def cost_called(what) -> str | None:
    """The name in `COSTS` of what goes by this name, or by another one."""
    word = str(what).lower().replace("-", "_").replace(" ", "_")
    for cost, others in OTHER_COSTS.items():
        if word in (cost, *others.split()):
            return cost
    return None


def _called_here(what):
    cost = cost_called(what)
    if cost is None:
        return ""
    words = COSTS[cost]
    verb = "is" if cost == "latency" else "are"
    return f" {words[0].upper()}{words[1:]} {verb} called {cost!r} here."


def levels_of(model, spaces, how, level, layers, skip):
    """Two lists: the level of every space, and why it stays as it is.

    One of the two is None for each space.

    Args:
        model: the traced model.
        spaces: all spaces that some layer writes.
        how: "tau", "ratio", "correlation" or "target".
        level, layers, skip: as for `plan`.
    """
    producers = {id(p): p for space in spaces for p in space.producers}
    producers = list(producers.values())
    around = _keras.models_around(model)
    by_layer = _by_layer(around, how, level, producers)
    gentlest = min if how == "ratio" else max
    chosen = set(by_layer)
    if layers is not None:
        chosen = arguments.selected_layers(layers, producers, "layers", around)
    chosen -= arguments.selected_layers(skip, producers, "skip", around)
    levels, reasons = [], []
    for space in spaces:
        out = [
            layer.name
            for layer in space.producers
            if id(layer) not in chosen or by_layer[id(layer)] is None
        ]
        reason = space.frozen or _left_out(space, out, how)
        reasons.append(reason)
        values = [by_layer[id(layer)] for layer in space.producers]
        levels.append(None if reason else gentlest(values))
    return levels, reasons


def _by_layer(around, how, level, producers):
    if how == "target":
        return dict.fromkeys(map(id, producers), 0)
    try:
        return arguments.levels_by_layer(
            level, producers, how, CHECKS[how], around
        )
    except Exception as error:
        if callable(level) and how == "tau":
            error.add_note(ABOUT_FUNCTIONS)
        raise


def _left_out(space, names, how):
    if not names:
        return None
    reason = LEFT_OUT if len(names) == len(space.producers) else COUPLED
    return reason.format(names=", ".join(names[:3]), how=how)
