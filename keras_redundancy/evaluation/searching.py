"""Find the smallest model whose score stays above a floor: `search`."""

from __future__ import annotations  # help() shows the names of types.

import bisect
import dataclasses
from collections.abc import Callable, Iterable

import keras

from keras_redundancy._shared.arguments import check_finite
from keras_redundancy._shared.bisection import bisected
from keras_redundancy._shared.progress import progress
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy._shared.warn import warn
from keras_redundancy.evaluation.sensitivity import Sensitivity, sensitivity_of
from keras_redundancy.evaluation.trials import Trial, Trials
from keras_redundancy.planning.budgets import OutOfReachError
from keras_redundancy.planning.decisions import Plan
from keras_redundancy.planning.request import require_known

# How often the search over shares of the whole model halves its interval.
STEPS = 6


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult(Rendered):
    """The best plan of a search; `apply()` builds the smaller model.

    Attributes:
        plan: the `Plan` that leaves the fewest multiply-adds.
        trial: the score of `plan`, and the shares that it leaves.
        base: the `Trial` of the model before pruning.
        floor: the least score that was allowed.
        sensitivity: the `Sensitivity` of all parts.
        tried: a `Trial` for each cut of several parts, in order.
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

    def apply(self) -> keras.Model:
        """Build the smaller model: `plan.apply()`."""
        return self.plan.apply()

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts."""
        return {
            "floor": self.floor,
            "base": dataclasses.asdict(self.base),
            "trial": dataclasses.asdict(self.trial),
            "tried": list(map(dataclasses.asdict, self.tried)),
            "plan": self.plan.to_dict(),
            "sensitivity": self.sensitivity.to_dict(),
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
    model: keras.Model,
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
    """Find the plan with the fewest multiply-adds whose score is high enough.

    Three kinds of cuts are tried. Of those above the floor, the one that
    leaves the fewest multiply-adds is returned.

    1. Cut the whole model to a share of its multiply-adds, as `target=` does;
       bisection finds the smallest share.
    2. Cut each part to the deepest level at which it alone lowers the score
       by at most d; bisection finds the greatest d.
    3. From there, cut one part after the other by one more level, and keep
       each cut whose score stays above the floor. The part that loses the
       least score for the multiply-adds it saves comes first.

    Args:
        model, evaluate, taus, ratios, data, log, verbose, **options: as for
            `sensitivity`, which is run first.
        max_drop: by how much the score of `model` may fall.

    Returns:
        A `SearchResult`: `apply()` gives the smaller model.

    Raises:
        TypeError, ValueError: as `sensitivity`; or `max_drop` is negative.

    Warns:
        UserWarning: scores are shares, and `max_drop` allows all of them.

    If multiply-adds cannot be counted, because an input size is open and
    neither `data` nor `input_shape=` is given, parameters are counted in their
    place.
    """
    check_finite("max_drop", max_drop)
    own = ("evaluate", "max_drop", "taus", "ratios", "log")
    require_known(options, "search", own)
    trials = Trials(model, evaluate, taus, ratios, data, log, options)
    known = sensitivity_of(trials, verbose)
    floor = known.base.score - max_drop
    if floor <= 0 < known.base.score <= 1:
        warn(
            f"max_drop={max_drop:g} allows every score from 0 to 1: the model "
            f"itself has {known.base.score:.4g}. For one percentage point of "
            "accuracy, pass max_drop=0.01.",
        )
    return _Search(trials, known, floor, verbose).run()


class _Search:
    def __init__(self, trials, known, floor, verbose):
        self.trials, self.known, self.floor = trials, known, floor
        self.tried = []
        self.verbose = verbose
        # (A function that makes the best plan so far, the trial of that plan).
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
        """Whether a trial is above the floor; the cheapest becomes `best`."""
        self.tried.append(trial)
        self.step()
        if trial.score < self.floor:
            return False
        if trial.cost < self.best[1].cost:
            self.best = find, trial
        return True

    def _all_over(self):
        """Find the smallest share of the whole model that holds."""

        def holds(share):
            try:
                trial = self.trials.of_share(share)
            except OutOfReachError:
                self.step()
                return False
            return self._holds(lambda: self.trials.plan_for(share), trial)

        bisected(holds, 1.0, 0.0, STEPS)

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
        """{part: depth} for the greatest drop d that holds, by bisection."""

        def depths_at(number):
            return {
                part: self.known.depth_within(part, drops[number])
                for part in self.known.trials
            }

        fitting = bisect.bisect_left(
            range(len(drops)),
            True,
            key=lambda number: not self._tries(depths_at(number)),
        )
        if not fitting:
            return dict.fromkeys(self.known.trials, 0)
        return depths_at(fitting - 1)

    def _deeper(self, depths):
        """Cut each part by one more level where the score stays high enough."""

        def price(part):
            depth = depths[part]
            trials = [self.known.base, *self.known.trials[part]]
            now, then = trials[depth], trials[depth + 1]
            lost = max(now.score - then.score, 0)
            return lost / max(now.cost - then.cost, 1e-9)

        most = len(self.known.levels)
        for part in sorted((p for p in depths if depths[p] < most), key=price):
            deeper = depths | {part: depths[part] + 1}
            if self._tries(deeper):
                depths = deeper
