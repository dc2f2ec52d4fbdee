"""Records of one run of `fit_and_prune`: its arguments and its progress."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_redundancy._shared import arguments

MODES = ("auto", "min", "max")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `fit_and_prune` that say when to cut, and how.

    A training that continues has the same ones. All are as for
    `fit_and_prune`.

    Raises:
        TypeError, ValueError: one is of a wrong type or out of range.
    """

    prune: Mapping | Sequence[Mapping] | Callable
    floor: float | None
    max_drop: float
    monitor: str
    mode: str
    start: int
    every: int
    patience: int
    seed: int | None
    initial_epoch: int

    def __post_init__(self):
        arguments.check_count("start", self.start)
        arguments.check_count("every", self.every)
        arguments.check_count("patience", self.patience, least=0)
        arguments.check_count("initial_epoch", self.initial_epoch, least=0)
        arguments.check_finite("max_drop", self.max_drop)
        arguments.check_option("mode", self.mode, MODES)
        arguments.check_seed(self.seed)
        if self.floor is not None:
            arguments.check_finite("floor", self.floor, least=-math.inf)
        if not isinstance(self.monitor, str):
            raise TypeError(
                f"monitor is {self.monitor!r}, but has to be the name of an "
                "entry of the logs, such as 'val_accuracy'."
            )
        if not callable(self.prune) and not all(
            isinstance(options, Mapping) for options in self.options_of_cuts
        ):
            raise TypeError(
                "prune has to be a mapping of options of kr.prune, a list of "
                "such mappings, or a function of a model, but received "
                f"{self.prune!r}."
            )

    @property
    def options_of_cuts(self) -> Sequence:
        """The options of `kr.prune` for each cut, or one for all cuts."""
        is_list = isinstance(self.prune, Sequence)
        return self.prune if is_list else [self.prune]


@dataclasses.dataclass
class Best:
    """The best model that held the floor, with its weights at that time."""

    model: keras.Model
    weights: list
    value: float
    epoch: int
    parameters: int


@dataclasses.dataclass
class Progress:
    """The state of a run except its models; JSON can hold all of it.

    Attributes:
        epoch: the number of finished epochs.
        floor: the value to hold; None as long as it is not known.
        value: the monitored value after the last epoch; None if it was not
            measured, or not finite.
        top: the best monitored value so far.
        missed: how many epochs in a row missed the floor.
        last_cut: the number of epochs before the last cut.
        number: how many cuts were tried.
        seed: the seed, or None.
        cuts: every `Cut`.
        reason: why training ended; None while it goes on.
        ran_out: whether it ended because there were no more epochs: it can
            continue when there are more.
    """

    epoch: int
    floor: float | None
    seed: int | None
    value: float | None = None
    top: float | None = None
    missed: int = 0
    last_cut: int | None = None
    number: int = 0
    cuts: list = dataclasses.field(default_factory=list)
    reason: str | None = None
    ran_out: bool = False
