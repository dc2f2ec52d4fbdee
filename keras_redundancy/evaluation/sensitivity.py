"""Which layers bear to be cut, and how deep: one after the other."""

import dataclasses
from collections.abc import Callable, Iterable

from keras_redundancy._shared.progress import progress
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.evaluation.trials import Part, Trial, Trials
from keras_redundancy.reports import plots


@dataclasses.dataclass(frozen=True, eq=False)
class Sensitivity(Rendered):
    """What each part of a model costs when it alone is cut.

    `render()` shows the table.

    Attributes:
        name: that of the model.
        how: "tau" or "ratio".
        levels: those tried, the gentlest first.
        base: the `Trial` of the model as it is.
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
        """How much lower the score is at each level."""
        return [self.base.score - t.score for t in self.trials[part]]

    def depth_within(self, part: Part, drop: float) -> int:
        """How many levels, from the gentlest, lower it by no more."""
        drops = self.drops(part)
        return next((i for i, d in enumerate(drops) if d > drop), len(drops))

    def to_dict(self) -> dict:
        """All figures, as plain Python objects."""
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
        """The score against the level, a line for each part.

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
    model,
    evaluate: Callable,
    taus: Iterable[float] | None = None,
    *,
    ratios: Iterable[float] | None = None,
    data=None,
    log=None,
    verbose: bool = True,
    **options,
) -> Sensitivity:
    """Cut one space of a model at a time, and evaluate.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        evaluate: a function of a model that returns a number, greater for
            better ones: the accuracy on data that was held out from training
            (not on the test set, if it is to be a test). A model is compiled
            where the original is.
        taus: the thresholds to try, as for `plan`.
        ratios: the shares of units to try, in place of `taus`; by default
            1/8 to 7/8.
        data: samples to calibrate on, as for `plan`. The model runs over
            them once.
        log: a file that keeps each score as it is known. With a log of the
            same weights and options, what it tells is not evaluated again:
            `data` and `evaluate` have to be the same, and functions among the
            options are told apart by their names alone.
        verbose: whether to draw a progress bar.
        **options: all others of `plan`, except `tau`, `ratio` and `target`.

    Returns:
        A `Sensitivity`, which can be printed and plotted.

    Raises:
        TypeError, ValueError: as `plan`; `evaluate` returns no finite
            number; or `log` is of another model or of other options. What
            `evaluate` raises passes through, and the log keeps all that was
            known before.

    Source: the curves of Li et al., Pruning Filters for Efficient ConvNets
    (2017), figure 2.
    """
    trials = Trials(model, evaluate, taus, ratios, data, log, options)
    return sensitivity_of(trials, verbose)


def sensitivity_of(trials: Trials, verbose: bool) -> Sensitivity:
    found = {}
    count = 1 + len(trials.parts) * len(trials.levels)
    with progress(verbose, count, "model") as step:
        base = trials.base()
        step()
        for part in trials.parts:
            found[part] = []
            for level in trials.levels:
                found[part].append(trials.of({part: level}))
                step()
    name = trials.model.name
    return Sensitivity(name, trials.how, trials.levels, base, found)
