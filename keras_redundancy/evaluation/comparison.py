"""Compare pruning methods at equal cost: `compare`."""

from __future__ import annotations  # help() shows the names of types.

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import keras

from keras_redundancy._shared.arguments import (
    check_fraction,
    check_option,
    several,
)
from keras_redundancy._shared.configured import name_of
from keras_redundancy._shared.progress import progress
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.calibration import Calibration
from keras_redundancy.channels.units import distinct
from keras_redundancy.evaluation.trials import (
    Trial,
    planned_on,
    require_no_level,
    score_of,
    shares_left,
)
from keras_redundancy.planning.budgets import OutOfReachError
from keras_redundancy.planning.decisions import Plan
from keras_redundancy.planning.method import Method
from keras_redundancy.planning.methods import BY_NAME
from keras_redundancy.planning.plans import plan
from keras_redundancy.planning.request import require_known
from keras_redundancy.reports.flops import flops


def _options(select, absorb, rounds=0, **others):
    return {"select": select, "absorb": absorb, "rounds": rounds, **others}


# In place of a score where a share is out of reach.
MISSING = Trial(math.nan, math.nan, math.nan)
# Options of `plan`, beside data and target.
WITHOUT_DATA = {
    "random, drop": _options("random", "drop"),
    "L1, drop": _options("l1", "drop"),
    "L1, merge": _options("l1", "merge"),
    "FPGM, drop": _options("fpgm", "drop"),
    "clusters, drop": _options("clusters", "drop", keep="random"),
    "clusters, merge": _options("clusters", "merge"),
}
WITH_DATA = {
    "activation clusters, affine": _options(
        "clusters", "affine", criterion="activations"
    ),
    "L1, least squares": _options("l1", "least_squares"),
    "pivoted, least squares": _options("pivoted", "least_squares"),
    "greedy, least squares": _options("greedy", "least_squares"),
    "greedy, least squares, a round": _options("greedy", "least_squares", 1),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison(Rendered):
    """Scores of pruning methods at equal cost; `render()` shows the table.

    Attributes:
        name: the model's name.
        shares: the shares of the multiply-adds that each method was to keep.
        base: the score of the model before pruning.
        trials: {method: a `Trial` for each share}. Its numbers are NaN where
            the method cannot remove enough.
    """

    name: str
    shares: tuple[float, ...]
    base: float
    trials: dict[str, list[Trial]]

    def __repr__(self):
        shares = ", ".join(f"{share:.0%}" for share in self.shares[:4])
        return (
            f"<Comparison of {len(self.trials)} methods on {self.name!r} at "
            f"{len(self.shares)} costs, {shares}>"
        )

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts.

        None stands for NaN.
        """
        return {
            "model": self.name,
            "shares": list(self.shares),
            "base": self.base,
            "trials": {
                method: [_figures(trial) for trial in trials]
                for method, trials in self.trials.items()
            },
        }

    def table(self) -> Table:
        header = ["method"]
        for share in self.shares:
            header += [f"score at {share:.0%}", "params"]
        rows = [
            [method, *(cell for trial in trials for cell in _shown(trial))]
            for method, trials in self.trials.items()
        ]
        title = f"{self.name!r} at shares of its multiply-adds"
        below = f"uncut: {self.base:g}"
        if any(_is_missing(x) for each in self.trials.values() for x in each):
            below += "\n-: the method cannot remove that much"
        return Table(title, header, rows, below)


def _is_missing(trial):
    return math.isnan(trial.parameters)


def _figures(trial):
    known = dataclasses.asdict(trial)
    return dict.fromkeys(known) if _is_missing(trial) else known


def _shown(trial):
    if _is_missing(trial):
        return None, None
    return f"{trial.score:.4g}", f"{trial.parameters:.0%}"


def compare(
    model: keras.Model,
    evaluate: Callable,
    methods: Mapping | Iterable[Method | str] | None = None,
    *,
    shares: Iterable[float] = (0.7, 0.5, 0.3),
    data=None,
    verbose: bool = True,
    **options,
) -> Comparison:
    """Prune a model by several methods to the same multiply-adds; evaluate.

    Args:
        model: a built `keras.Model`, as for `plan`. It is never
            changed.
        evaluate: a function of a model that returns its score, a number
            that is greater for better models.
        methods: a list of selection methods, such as [kr.L1(), "greedy"]; or a
            mapping from names to selection methods, to options of `plan` (a
            mapping), or to functions that take a model and a share and return
            a `Plan` or a smaller model, made by any library. Default: six
            combinations of selection method and absorber, and with `data` five
            more that use it.
        shares: the shares of the multiply-adds to keep, each in (0, 1].
        data: samples to calibrate on, as for `plan`. The model runs over
            them once.
        verbose: whether to draw a progress bar.
        **options: options of `plan` for all methods, in place of their own.

    Returns:
        A `Comparison`, which can be printed. Shares that a method cannot
        reach have no score.

    Raises:
        TypeError, ValueError: as `plan`; no method reaches any of the shares;
            or `evaluate` returns no finite number.
    """
    require_known(options, "compare", ("evaluate", "methods", "shares"))
    require_no_level(options, "shares=, those of the multiply-adds to keep")
    shares = tuple(several("shares", shares))
    for share in shares:
        meaning = "the share that is to be left of the multiply-adds"
        check_fraction("shares", share, meaning, one=True)
    model, data, options = planned_on(model, data, options)
    methods = _by_name(methods, data is not None)
    shape = options.get("input_shape")
    if shape is None and isinstance(data, Calibration):
        shape = data.input_shape
    trials = {name: [] for name in methods}
    cuts, unreached = list(itertools.product(methods.items(), shares)), None
    with progress(verbose, 1 + len(cuts), "model") as step:
        base = score_of(evaluate, model)
        step()
        for (name, method), share in cuts:
            try:
                small = _smaller(model, name, method, share, data, options)
            except OutOfReachError as error:
                trials[name].append(MISSING)
                unreached = unreached or error
            else:
                trials[name].append(_trial(model, small, evaluate, shape))
            step()
    missing = [_is_missing(x) for each in trials.values() for x in each]
    if unreached is not None and all(missing):
        raise unreached
    return Comparison(model.name, shares, base, trials)


def _by_name(methods, has_data):
    if methods is None:
        return WITHOUT_DATA | (WITH_DATA if has_data else {})
    if isinstance(methods, str | Method) or not isinstance(methods, Iterable):
        raise TypeError(
            "methods is a list of selection methods, such as [kr.L1(), "
            "'greedy'], or a mapping from names to methods, to options of "
            f"kr.plan or to functions, but received {methods!r}."
        )
    if not isinstance(methods, Mapping):
        methods = list(methods)
        names = [name_of(m) if callable(m) else str(m) for m in methods]
        methods = dict(zip(distinct(names), methods, strict=True))
    if not methods:
        raise ValueError(
            "methods is empty. Pass one or more, such as [kr.L1(), 'greedy'], "
            "or leave methods= out."
        )
    for name, method in methods.items():
        if callable(method) and not isinstance(method, type):
            _require_model_and_share(name, method)
        if isinstance(method, str):
            check_option("methods", method, BY_NAME)
        if isinstance(method, type):
            raise TypeError(
                f"methods has the class {method.__name__}. Pass an object of "
                f"it: {method.__name__}()."
            )
    return methods


def _require_model_and_share(name, function):
    """Raise if a function cannot be called with a model and a share."""
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:  # It has no signature to look at.
        return
    except TypeError as error:
        raise TypeError(
            f"methods has the function {name}, which does not take a model and "
            "a share and return a smaller model. For a function from units to "
            "their scores, pass {'my scores': {'method': my_scores}}."
        ) from error


def _smaller(model, name, method, share, data, options):
    if callable(method):
        small = method(model, share)
        if not isinstance(small, Plan | keras.Model):
            raise TypeError(
                f"The function {name} in methods returned "
                f"{type(small).__name__}, but has to return a Plan or a "
                "smaller keras.Model."
            )
        return small
    if not isinstance(method, Mapping):
        method = {"select": method}
    options = {"target": {"flops": share}, "data": data, **options}
    if "mend" in options:  # Another name of these.
        own = {"repair", "rounds"}
        method = {k: v for k, v in method.items() if k not in own}
    return plan(model, **(dict(method) | options))


def _trial(model, small, evaluate, shape):
    if isinstance(small, Plan):
        score = score_of(evaluate, small.apply())
        return Trial(score, *shares_left(small))
    score = score_of(evaluate, small)
    parameters = small.count_params() / model.count_params()
    counts = [flops(each, input_shape=shape) for each in (small, model)]
    return Trial(score, counts[0] / counts[1], parameters)
