"""Cuts of one model, each evaluated once, and a log of the scores."""

import dataclasses
import json
import os
from numbers import Real
from pathlib import Path

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._keras.fingerprint import fingerprint
from keras_redundancy._shared.arguments import several
from keras_redundancy._shared.files import require_folder, require_no_folder
from keras_redundancy._shared.tables import on_one_line, shown
from keras_redundancy.building.stock import function_name
from keras_redundancy.building.stripping import stock
from keras_redundancy.calibration import Calibration
from keras_redundancy.numbers.clustering import check_tau
from keras_redundancy.planning.calibrating import calibrate
from keras_redundancy.planning.decisions import Plan
from keras_redundancy.planning.levels import LEVELS, check_ratio
from keras_redundancy.planning.plans import plan

RATIOS = tuple(eighths / 8 for eighths in range(1, 8))


@dataclasses.dataclass(frozen=True)
class Trial:
    """The score and the cost of one smaller model.

    Attributes:
        score: what `evaluate` returned for the smaller model.
        flops: the share of the multiply-adds that is left, in (0, 1]; None
            where they cannot be counted.
        parameters: the share of the parameters that is left, in (0, 1].
    """

    score: float
    flops: float | None
    parameters: float

    @property
    def cost(self) -> float:
        """The share of multiply-adds; of parameters where that is None."""
        return self.parameters if self.flops is None else self.flops


@dataclasses.dataclass(frozen=True)
class Part:
    """Layers whose units are cut together, at one level.

    Attributes:
        name: the names of the layers.
        layers: the layers.
        size: the number of units.
    """

    name: str
    layers: tuple
    size: int

    def __repr__(self):
        return f"<Part: {self.size} units of {on_one_line(self.name)}>"


class Trials:
    """Cuts the parts of a model, each at a level, and evaluates the result.

    Attributes:
        parts: every `Part` that can be cut.
        how: what the levels are, "tau" or "ratio".
        levels: the levels, from the fewest removed units to the most.
    """

    def __init__(self, model, evaluate, taus, ratios, data, log, options):
        """Args:
        model, evaluate, taus, ratios, data, log: as for `sensitivity`.
        options: further options of `plan`.

        Raises:
            TypeError, ValueError: an option is wrong, or the log is of
                another model.
        """
        require_no_level(options, "taus= or ratios=, a list of those to try")
        self.evaluate = evaluate
        self.how, self.levels = _levels(taus, ratios)
        self.model, self._data, self.options = planned_on(model, data, options)
        everything = self._plan(self.levels[0])
        self.parts = _parts(everything)
        self._counted = "params" if everything.flops[0] is None else "flops"
        if not self.parts:
            raise ValueError(
                f"{model.name!r} has nothing to cut: see what stays and why "
                "with kr.plan(...).explain()."
            )
        self._log = Log(log, self._words()) if log is not None else None

    def plan(self, levels: dict) -> Plan:
        """The plan for {part: level}; all other parts stay."""
        by_layer = {
            id(layer): level
            for part, level in levels.items()
            for layer in part.layers
        }
        return self._plan(lambda layer: by_layer.get(id(layer)))

    def _plan(self, level):
        level = {self.how: level}
        return plan(self.model, **level, data=self._data, **self.options)

    def plan_for(self, share: float) -> Plan:
        """The plan that cuts the whole model to this share of its cost.

        Raises:
            OutOfReachError: no plan is that small.
        """
        target = {self._counted: share}
        return plan(self.model, target=target, data=self._data, **self.options)

    def base(self) -> Trial:
        """The trial of the model before pruning."""

        def find():
            score = score_of(self.evaluate, self.model)
            return Trial(score, *shares_left(self.plan({})))

        return self._logged("base", find)

    def of(self, levels: dict) -> Trial:
        """The trial of `plan(levels)`."""
        # With the number: layers of two nested models may share a name.
        key = [
            [number, part.name, levels[part]]
            for number, part in enumerate(self.parts)
            if part in levels
        ]
        return self._logged(key, lambda: self._tried(self.plan(levels)))

    def of_share(self, share: float) -> Trial:
        """The trial of `plan_for(share)`."""
        key = ["share", share]
        return self._logged(key, lambda: self._tried(self.plan_for(share)))

    def _tried(self, found):
        score = score_of(self.evaluate, found.apply())
        return Trial(score, *shares_left(found))

    def _logged(self, key, find):
        if self._log is None:
            return find()
        key = json.dumps(key)
        if key not in self._log.known:
            self._log.add(key, dataclasses.astuple(find()))
        return Trial(*self._log.known[key])

    def _words(self):
        """The model and options that a log must be of to be continued."""
        options = {**self.options, "how": self.how}
        options |= {"data": self._data is not None}
        return {
            "model": fingerprint(self.model),
            "options": {name: _word(value) for name, value in options.items()},
        }


class Log:
    """A file with a line of JSON for each trial."""

    def __init__(self, path, words: dict):
        """Args:
        path: the file; it is created if it does not exist.
        words: the model and options of the trials, the first line.

        Raises:
            ValueError: the file is a log of another model or other options,
                or there is no such folder.
            OSError: it is a folder, or cannot be written to.
        """
        self.path, self.known = Path(path), {}
        require_no_folder(self.path)
        require_folder(self.path)
        text = self.path.read_bytes() if self.path.exists() else b""
        if _line(words).startswith(text):  # It is new, or was cut short.
            self.path.write_bytes(b"")
            self._append(words)
            return
        # A line that was cut short by a crash is written anew.
        whole = text[: text.rfind(b"\n") + 1]
        try:
            first, *trials = map(json.loads, whole.splitlines())
        except ValueError:
            first = None
        if first != words:
            raise ValueError(
                f"{self.path} is no log of this model with these weights and "
                "options, so its scores are of other models. Name another "
                "file as log=, or remove this one."
            )
        self.known = dict(trials)
        os.truncate(self.path, len(whole))

    def add(self, key: str, found) -> None:
        """Append a trial; it is on the disk when this returns."""
        self._append([key, found])
        self.known[key] = found

    def _append(self, content):
        with self.path.open("ab") as file:
            file.write(_line(content))
            file.flush()
            os.fsync(file.fileno())


def _line(content) -> bytes:
    return json.dumps(content).encode() + b"\n"


def planned_on(model, data, options: dict):
    """Calibrate once for many plans with the same options.

    Args:
        model, data, options: as for `sensitivity`.

    Returns:
        (the model to plan on, without its training layers unless
        `optimizer=True` keeps them; a `Calibration` in place of the samples;
        the options for `plan` on these two).

    Raises:
        TypeError, ValueError: as `calibrate`; or a calibration is of another
            model or was made with another `allow_inexact`.
    """
    inexact = options.get("allow_inexact", False)
    goes_on = options.get("optimizer", False)
    if isinstance(data, Calibration):
        data.check(model, inexact)
        return model if goes_on else data.graph.model, data, options
    stripped = stock(model)
    if goes_on and stripped is not model:
        return model, data, options
    if data is not None:
        own = ("batch_size", "steps")
        size = {k: v for k, v in options.items() if k in own}
        data = calibrate(stripped, data, allow_inexact=inexact, **size)
        options = {k: v for k, v in options.items() if k != "steps"}
    return stripped, data, options


def require_no_level(options: dict, instead: str) -> None:
    """Raise if options of `plan` say how many units to remove.

    Args:
        options: further options of `plan`.
        instead: the argument to pass in their place, for the message.

    Raises:
        TypeError: they do.
    """
    given = [f"{name}=" for name in LEVELS if options.get(name) is not None]
    if given:
        raise TypeError(
            f"{' and '.join(given)} says how many units to remove, but several "
            f"amounts are tried here. Pass {instead}."
        )


def score_of(evaluate, model) -> float:
    """What `evaluate` returns for a model, as a float.

    TensorFlow's warnings about retracing are silenced meanwhile: each model
    is another one, but TensorFlow counts them as one that is retraced.

    Raises:
        TypeError, ValueError: `evaluate` is no function, or does not return
            one finite number.
    """
    example = "lambda m: m.evaluate(x, y, verbose=0, return_dict=True)"
    example += "['accuracy']"
    if not callable(evaluate):
        raise TypeError(
            f"evaluate is {shown(evaluate)}, but it has to be a function of a "
            f"model that returns its score, such as the accuracy: {example}."
        )
    with _keras.quiet_about_retracing():
        score = evaluate(model)
    if keras.ops.is_tensor(score):
        score = keras.ops.convert_to_numpy(score)
    if isinstance(score, np.ndarray) and score.ndim == 0:
        score = score.item()
    if isinstance(score, bool) or not isinstance(score, Real):
        raise TypeError(
            f"evaluate returned {shown(score)} ({type(score).__name__}), but "
            "it has to return one number, greater for better models, such as "
            f"the accuracy: {example}."
        )
    if not np.isfinite(score):
        raise ValueError(
            f"evaluate returned {score!r}, which cannot be compared with "
            "other scores. Look for NaN in the data or in the evaluation."
        )
    return float(score)


def shares_left(found: Plan) -> tuple[float | None, float]:
    """The shares of multiply-adds and parameters that a plan leaves."""
    flops, parameters = found.flops, found.parameters
    left = flops[1] / flops[0] if flops[0] else None
    return left, parameters[1] / parameters[0]


def _levels(taus, ratios):
    if taus is not None and ratios is not None:
        raise TypeError("Pass taus= or ratios=, but not both.")
    how, check = "ratio", check_ratio
    levels = RATIOS if ratios is None else ratios
    if taus is not None:
        how, check, levels = "tau", check_tau, taus
    levels = {check(x, f"{how}s") for x in several(f"{how}s", levels)}
    return how, tuple(sorted(levels, reverse=how == "tau"))


def _parts(everything):
    """The spaces that can be cut; those that share a layer are one part."""
    parts, names = [], {}
    for decision in everything.decisions:
        if decision.reason is not None:
            continue
        layers, size = decision.space.producers, decision.space.size
        names |= {id(layer): decision.space.called(layer) for layer in layers}
        ids = set(map(id, layers))
        apart = []
        for part in parts:
            if ids.isdisjoint(map(id, part.layers)):
                apart.append(part)
            else:
                layers = (*part.layers, *layers)
                size += part.size
        unique = tuple({id(layer): layer for layer in layers}.values())
        name = ", ".join(names[id(layer)] for layer in unique)
        parts = [*apart, Part(name, unique, size)]
    return parts


def _word(value):
    """A name of a value that is the same in every process."""
    is_named = callable(value) and hasattr(value, "__qualname__")
    return function_name(value) if is_named else repr(value)
