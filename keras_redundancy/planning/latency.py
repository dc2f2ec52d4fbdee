"""How long a model takes on this machine, beside another one."""

import dataclasses
import time
from collections.abc import Callable

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.bisection import bisected
from keras_redundancy._shared.random_inputs import random_input
from keras_redundancy._shared.warn import warn
from keras_redundancy.calibration.observer import restoring_states
from keras_redundancy.planning.budgets import OutOfReachError

# In a race each model runs so often at least, and for so many seconds.
LEAST_RUNS, LEAST_SECONDS = 3, 0.1
# So many races time a cut; three times as many, where these do not decide.
RACES, MOST_RACES = 5, 15
# How often the interval of shares is halved.
STEPS = 7
# Shares of multiply-adds that differ by less are nearly the same cut.
NEARLY = 0.1
ADVICE = (
    "Small batches and small models spend their time between the operations: "
    "plan with the batch_size that you predict with, on a machine that does "
    "nothing else, or give a target of flops."
)


class Stopwatch:
    """Times smaller models against the one that they were made from."""

    def __init__(self, model, batch_size: int, shapes=None):
        """Args:
        model: the original. It predicts, and its variables are what they
            were after that.
        batch_size: of the samples that are predicted at once.
        shapes: of a sample of each input, where its sizes are open.

        Raises:
            ValueError: an input has an open size, and no shape is given.
        """
        self._batch = _some_batch(model, batch_size, shapes)
        self._seconds = _timer(model, self._batch)

    def race_with(self, small) -> Callable[[], float]:
        """A function that returns the time of `small` over the original's.

        Both run in turn, so that other work on the machine slows both; the
        shortest time of each counts.
        """
        seconds = _timer(small, self._batch)

        def race():
            shortest = np.full(2, np.inf)
            runs, end = 0, time.perf_counter() + 2 * LEAST_SECONDS
            while runs < LEAST_RUNS or time.perf_counter() < end:
                shortest = np.minimum(shortest, (self._seconds(), seconds()))
                runs += 1
            return float(shortest[1] / shortest[0])

        return race


@dataclasses.dataclass(frozen=True, eq=False)
class TimedCut:
    """A cut, and the time that the smaller model takes.

    Attributes:
        left: the share of the multiply-adds that was asked for.
        decisions: what goes.
        races: the time of the smaller model over the original's, each time
            that it was measured.
    """

    left: float
    decisions: list
    races: tuple[float, ...]

    @property
    def time(self) -> float:
        """The median of the races."""
        return float(np.median(self.races))

    @property
    def error(self) -> float:
        """About two standard errors of the median.

        The standard error of the median of n normal numbers is close to their
        interquartile range over the root of n.
        """
        low, high = np.percentile(self.races, [25, 75])
        return float(2 * (high - low) / np.sqrt(len(self.races)))


def least_cut_within(share: float, cut_to: Callable, race_with: Callable):
    """Cut no more multiply-adds than it takes to be so much faster.

    Where noise hides which cuts are fast enough, the least of them is taken.

    Args:
        share: of the time that may be taken.
        cut_to: a function of the share of multiply-adds to leave that returns
            decisions, or raises `OutOfReachError`.
        race_with: a function of decisions that returns a function that
            measures the time of a model cut like this, as a share.

    Returns:
        The decisions, and the share of the time that was measured.

    Raises:
        OutOfReachError: what is left when all is cut takes longer.

    Warns:
        UserWarning: very different cuts may be the one.
    """
    timed = _timed_cuts(share, cut_to, race_with)
    does = [cut for cut in timed if cut.time <= share]
    if not does:
        fastest = min((cut.time for cut in timed), default=1.0)
        raise OutOfReachError(
            f"The target of {share:.1%} of the latency cannot be reached: the "
            f"fastest of the {len(timed)} cuts that were timed takes "
            f"{fastest:.1%}. {ADVICE}"
        )
    may_do = [cut for cut in timed if cut.time - cut.error <= share]
    surely, least = (
        max(cuts, key=lambda cut: cut.left) for cuts in (does, may_do)
    )
    if least.left - surely.left <= NEARLY:
        return surely.decisions, surely.time
    warn(
        f"Noise hides which plan meets target={{'latency': {share:g}}}: the "
        f"time of one that leaves {least.left:.0%} of the multiply-adds was "
        f"{least.time:.1%}, give or take {least.error:.1%}, and of one that "
        f"leaves {surely.left:.0%} it was {surely.time:.1%}, give or take "
        f"{surely.error:.1%}. The one that leaves more is taken. {ADVICE}",
    )
    return least.decisions, least.time


def _timed_cuts(share, cut_to, race_with) -> list[TimedCut]:
    """The deepest cut that there is, and those of a bisection if it may do."""
    timed = {}

    def cut_at(left):
        """The cut that leaves this share; None if none does."""
        try:
            decisions = cut_to(left)
        except OutOfReachError:
            return None
        widths = tuple(len(d.selection.kept) for d in decisions)
        if widths not in timed:
            race = race_with(decisions)
            timed[widths] = _timed(left, decisions, race, share)
        return timed[widths]

    def may_cut_less(left):
        cut = cut_at(left)
        return cut is None or cut.time <= share

    depths = (2.0**-step for step in range(STEPS, 0, -1))
    deepest = next(filter(None, map(cut_at, depths)), None)
    if deepest is not None and deepest.time <= share:
        bisected(may_cut_less, 0.0, 1.0, STEPS)
    return list(timed.values())


def _timed(left, decisions, race, share) -> TimedCut:
    """A cut, timed again where noise hides on which side of `share` it is."""
    races = ()
    while len(races) < MOST_RACES:
        races += tuple(race() for _ in range(RACES))
        cut = TimedCut(left, decisions, races)
        if abs(cut.time - share) > cut.error:
            break
    return cut


def _timer(model, batch) -> Callable:
    """A function that returns how many seconds a model takes for a batch."""
    # Its layers are the model's, what is compiled is its own.
    model = keras.Model(model.inputs, model.outputs)

    def seconds():
        with restoring_states(model):
            start = time.perf_counter()
            model.predict_on_batch(batch)
            return time.perf_counter() - start

    seconds()  # This one compiles.
    return seconds


def _some_batch(model, batch_size, shapes):
    inputs = _keras.graph_of(model).inputs
    shapes = shapes or [x.shape[1:] for x in inputs]
    batch_size = _keras.fixed_batch(model) or batch_size
    rng = np.random.default_rng(0)
    batch = []
    for x, shape in zip(inputs, shapes, strict=True):
        if None in shape:
            raise ValueError(
                f"target={{'latency': ...}} needs to run {model.name!r}, but "
                f"its input has an open size ({tuple(x.shape)}). Pass "
                "input_shape=, the shape of one sample, or data=."
            )
        batch.append(random_input(rng, (batch_size, *shape), x.dtype))
    return batch
