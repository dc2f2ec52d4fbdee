"""Records of one run of `fit_and_prune`: its arguments and its progress."""

import dataclasses
from collections.abc import Callable

import keras


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `fit_and_prune`, checked.

    Attributes:
        cutter: a function of a model and the number of the cut. It returns a
            smaller model, or None for no further cut.
        first: the number of epochs before the first cut, at least.
        speaks: whether cuts are printed.

    All others are as for `fit_and_prune`.
    """

    cutter: Callable
    epochs: int
    floor: float | None
    max_drop: float
    monitor: str
    less_is_better: bool
    first: int
    every: int
    patience: int
    seed: int | None
    speaks: bool


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
        top: the best monitored value so far.
        missed: how many epochs in a row missed the floor.
        last_cut: the number of epochs before the last cut.
        number: how many cuts were tried.
        seed: the seed, or None.
        cuts: every `Cut`.
        reason: why training ended; None while it goes on.
    """

    epoch: int
    floor: float | None
    seed: int | None
    top: float | None = None
    missed: int = 0
    last_cut: int | None = None
    number: int = 0
    cuts: list = dataclasses.field(default_factory=list)
    reason: str | None = None
