"""Cut each part of a model alone, at several depths: `sensitivity`."""

from __future__ import annotations  # help() shows the names of types.

import dataclasses
import itertools
from collections.abc import Callable, Iterable

import keras

from keras_redundancy._shared.progress import progress
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.evaluation.trials import Part, Trial, Trials
from keras_redundancy.planning.request import require_known
from keras_redundancy.reports import plots


@dataclasses.dataclass(frozen=True, eq=False)
class Sensitivity(Rendered):
    """The score of a model when only one part of it is cut.

    `render()` shows the table, `plot()` draws the curves.

    Attributes:
        name: the model's name.
        how: what the levels are, "tau" or "ratio".
        levels: the levels, from the fewest removed units to the most.
        base: the `Trial` of the model before pruning.
        trials: {part: a `Trial` for each level}.
    """

    name: str
    how: str
    levels: tuple[float, ...]
    base: Trial
    trials: dict[Part, list[Trial]]

    def __repr__(self):
        return (
            f"<Sensitivity of {self.name!r}: {len(self.trials)} parts at "
            f"{len(self.levels)} levels of {self.how}>"
        )

    def drops(self, part: Part) -> list[float]:
        """By how much the score falls at each level."""
        return [self.base.score - t.score for t in self.trials[part]]

    def depth_within(self, part: Part, drop: float) -> int:
        """The number of levels, from the first, that cost at most `drop`."""
        drops = self.drops(part)
        return next((i for i, d in enumerate(drops) if d > drop), len(drops))

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts."""
        return {
            "model": self.name,
            "how": self.how,
            "levels": list(self.levels),
            "base": dataclasses.asdict(self.base),
            "parts": [
                {
                    "layers": [layer.name for layer in part.layers],
                    "units": part.size,
                    "trials": list(map(dataclasses.asdict, trials)),
                }
                for part, trials in self.trials.items()
            ],
        }

    def plot(self):
        """Draw the score against the level, a line for each part.

        Returns:
            A `matplotlib.figure.Figure`: save it with `savefig`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return plots.sensitivity(self)

    def table(self) -> Table:
        header = ["cut alone", "n"]
        header += [f"{self.how} {level:g}" for level in self.levels]
        rows = [
            [part.name, part.size, *(_shown(trial) for trial in trials)]
            for part, trials in self.trials.items()
        ]
        what = "parameters" if self.base.flops is None else "multiply-adds"
        below = (
            f"uncut: {self.base.score:g}; in brackets the share of "
            f"{what} that is left"
        )
        return Table(f"Sensitivity of {self.name!r}", header, rows, below)


def _shown(trial):
    return f"{trial.score:.4g} ({trial.cost:.0%})"


def sensitivity(
    model: keras.Model,
    evaluate: Callable,
    taus: Iterable[float] | None = None,
    *,
    ratios: Iterable[float] | None = None,
    data=None,
    log=None,
    verbose: bool = True,
    **options,
) -> Sensitivity:
    """Cut one part of a model at a time, at several depths, and evaluate.

    Args:
        model: a built `keras.Model`, as for `plan`. It is never
            changed.
        evaluate: a function of a model that returns a number, greater for
            better models, such as the accuracy on data held out from training
            (but not on the test set). The models that it is called with are
            compiled if `model` is.
        taus: the thresholds to try, as for `plan`.
        ratios: the shares of units to try, in place of `taus`; by default
            1/8 to 7/8.
        data: samples to calibrate on, as for `plan`. The model runs over
            them once.
        log: a file to which each score is written. A later call with the
            same weights and options reads the scores instead of evaluating
            again. Pass the same `data` and `evaluate` again: the log does not
            compare them, and of options that are functions it compares only
            the names.
        verbose: whether to draw a progress bar.
        **options: all others of `plan`, except `tau`, `ratio` and `target`.

    Returns:
        A `Sensitivity`, which can be printed and plotted.

    Raises:
        TypeError, ValueError: as `plan`; `evaluate` returns no finite
            number; or `log` is of another model or of other options, or in
            no folder that there is. What `evaluate` raises passes through,
            and the log keeps all that was known before.
        OSError: `log` is a folder, or cannot be written to.

    Source: the curves of Li et al., Pruning Filters for Efficient ConvNets
    (2017), figure 2.
    """
    own = ("evaluate", "taus", "ratios", "log")
    require_known(options, "sensitivity", own)
    trials = Trials(model, evaluate, taus, ratios, data, log, options)
    return sensitivity_of(trials, verbose)


def sensitivity_of(trials: Trials, verbose: bool) -> Sensitivity:
    """Evaluate each part at each level."""
    found = {part: [] for part in trials.parts}
    cuts = list(itertools.product(trials.parts, trials.levels))
    with progress(verbose, 1 + len(cuts), "model") as step:
        base = trials.base()
        step()
        for part, level in cuts:
            found[part].append(trials.of({part: level}))
            step()
    name = trials.model.name
    return Sensitivity(name, trials.how, trials.levels, base, found)
