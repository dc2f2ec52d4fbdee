"""What one run of `fit_and_prune` was asked for, and what it knows."""

import dataclasses
from collections.abc import Callable

import keras


@dataclasses.dataclass(frozen=True)
class Settings:
    """How training and cutting go on: what `fit_and_prune` was asked for.

    Attributes:
        cutter: a function of a model and the number of the cut that returns a
            smaller model, or None if no more is to be cut.
        first: after which epoch the first cut may come.
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
    """A model that held the floor, and its weights then."""

    model: keras.Model
    weights: list
    value: float
    epoch: int
    parameters: int


@dataclasses.dataclass
class Progress:
    """What a run knows beside its models, all of it for JSON.

    Attributes:
        epoch: how many epochs are done.
        floor: what is to be held; None if that is not known yet.
        top: the best value so far.
        missed: how many epochs in a row missed the floor.
        last_cut: after how many epochs the last cut was.
        number: how many cuts were tried.
        seed: None if there is none.
        cuts: every `Cut`.
        reason: why training ended; None if it did not.
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
