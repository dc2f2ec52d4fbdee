"""The deepest cut whose score stays above a floor."""

import dataclasses
from collections.abc import Callable, Iterable
from numbers import Real

from keras_redundancy._shared.progress import progress
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.evaluation.sensitivity import (
    Sensitivity,
    sensitivity_of,
)
from keras_redundancy.evaluation.trials import Trial, Trials
from keras_redundancy.planning.budgets import OutOfReachError
from keras_redundancy.planning.decisions import Plan

# How often the interval of shares is halved.
STEPS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult(Rendered):
    """What a search found; `render()` shows it, `apply()` builds it.

    Attributes:
        plan: the best `Plan`.
        trial: its score and what it leaves.
        base: the `Trial` of the model as it is.
        floor: the least score that was allowed.
        sensitivity: that of all parts.
        tried: the `Trial` of each cut of several parts, in order.
    """

    plan: Plan
    trial: Trial
    base: Trial
    floor: float
    sensitivity: Sensitivity
    tried: tuple[Trial, ...]

    def __repr__(self):
        before, after = self.base.score, self.trial.score
        return f"<SearchResult: score {before:g} -> {after:g}, {self.plan!r}>"

    def apply(self):
        """The smaller model, as by `Plan.apply`."""
        return self.plan.apply()

    def to_dict(self) -> dict:
        """All figures, as plain Python objects."""
        return {
            "plan": self.plan.to_dict(),
            "trial": dataclasses.asdict(self.trial),
            "base": dataclasses.asdict(self.base),
            "floor": self.floor,
            "sensitivity": self.sensitivity.to_dict(),
            "tried": list(map(dataclasses.asdict, self.tried)),
        }

    def table(self) -> Table:
        words = (
            f"score: {self.base.score:g} -> {self.trial.score:g} "
            f"(floor {self.floor:g}, {len(self.tried)} cuts of several "
            "layers tried)"
        )
        table = self.plan.table()
        return dataclasses.replace(table, below=f"{table.below}\n{words}")


def search(
    model,
    evaluate: Callable,
    *,
    max_drop: float,
    taus: Iterable[float] | None = None,
    ratios: Iterable[float] | None = None,
    data=None,
    log=None,
    verbose: bool = True,
    **options,
) -> SearchResult:
    """Save the most multiply-adds with a score that stays above a floor.

    Three kinds of cuts are tried, and the cheapest one above the floor wins:
    all over the model, as `target=` cuts; each layer as deep as it bears
    alone with the same drop of the score, for the greatest such drop; and
    from there one level deeper, layer after layer, wherever that holds.

    Args:
        model, evaluate, taus, ratios, data, log, verbose, **options: as for
            `sensitivity`, which is run first.
        max_drop: by how much the score of `model` may fall.

    Returns:
        A `SearchResult`: `apply()` gives the smaller model.

    Raises:
        TypeError, ValueError: as `sensitivity`; or `max_drop` is negative.

    Where multiply-adds cannot be counted, as with open input sizes and
    neither `data` nor `input_shape=`, parameters are saved.
    """
    if isinstance(max_drop, bool) or not isinstance(max_drop, Real):
        raise TypeError(
            f"max_drop is {max_drop!r}, but has to be a number: by how much "
            "the score may fall, in the units of what evaluate returns."
        )
    if not max_drop >= 0:
        raise ValueError(
            f"max_drop is {max_drop!r}, but the score of a smaller model is "
            "allowed to fall by at least 0."
        )
    trials = Trials(model, evaluate, taus, ratios, data, log, options)
    known = sensitivity_of(trials, verbose)
    return _Search(trials, known, known.base.score - max_drop, verbose).run()


class _Search:
    def __init__(self, trials, known, floor, verbose):
        self.trials, self.known, self.floor = trials, known, floor
        self.tried = []
        self.verbose = verbose
        # What is cut, as a function that plans it anew, and its trial.
        self.best = lambda: trials.plan({}), known.base

    def run(self) -> SearchResult:
        drops = sorted(
            {
                max(drop, 0)
                for part in self.known.trials
                for drop in self.known.drops(part)
            }
        )
        count = STEPS + len(drops).bit_length() + len(self.trials.parts)
        with progress(self.verbose, count, "model") as self.step:
            self._all_over()
            self._deeper(self._by_drop(drops))
        find, trial = self.best
        return SearchResult(
            find(),
            trial,
            self.known.base,
            self.floor,
            self.known,
            tuple(self.tried),
        )

    def _holds(self, find, trial):
        """Whether a trial is above the floor; the cheapest one is kept."""
        self.tried.append(trial)
        self.step()
        if trial.score < self.floor:
            return False
        if trial.cost < self.best[1].cost:
            self.best = find, trial
        return True

    def _all_over(self):
        low, high = 0.0, 1.0
        for _ in range(STEPS):
            share = (low + high) / 2
            try:
                trial = self.trials.of_share(share)
            except OutOfReachError:
                low = share
                self.step()
                continue
            if self._holds(lambda s=share: self.trials.plan_for(s), trial):
                high = share
            else:
                low = share

    def _levels(self, depths):
        return {
            part: self.known.levels[depth - 1]
            for part, depth in depths.items()
            if depth
        }

    def _tries(self, depths):
        levels = self._levels(depths)
        if not levels:
            return True
        trial = self.trials.of(levels)
        return self._holds(lambda: self.trials.plan(levels), trial)

    def _by_drop(self, drops):
        """The depths of all parts, for the greatest drop of each alone."""
        fits, fails = -1, len(drops)
        found = dict.fromkeys(self.known.trials, 0)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            depths = {
                part: self.known.depth_within(part, drops[middle])
                for part in self.known.trials
            }
            if self._tries(depths):
                fits, found = middle, depths
            else:
                fails = middle
        return found

    def _deeper(self, depths):
        """One level more for each part that bears it, the cheapest first."""

        def price(part):
            depth = depths[part]
            trials = [self.known.base, *self.known.trials[part]]
            now, then = trials[depth], trials[depth + 1]
            lost = max(now.score - then.score, 0)
            return lost / max(now.cost - then.cost, 1e-9)

        depths = dict(depths)
        most = len(self.known.levels)
        for part in sorted((p for p in depths if depths[p] < most), key=price):
            deeper = depths | {part: depths[part] + 1}
            if self._tries(deeper):
                depths = deeper
