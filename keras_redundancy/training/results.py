"""What `fit_and_prune` returns."""

import dataclasses

import keras

from keras_redundancy._shared.tables import Rendered, Table


@dataclasses.dataclass
class Cut:
    """A model made smaller in the middle of training.

    Attributes:
        epoch: after how many epochs.
        value: of what was monitored, then.
        before, after: how many parameters it had and has.
        rebuild: how long choosing units and making the model took, in seconds.
        retrace: how long its first training step took, in seconds, which is
            mostly compiling; None if there was none.
    """

    epoch: int
    value: float
    before: int
    after: int
    rebuild: float
    retrace: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned(Rendered):
    """What `fit_and_prune` found; `render()` shows it.

    Attributes:
        model: the smallest model that held the floor.
        value: what was monitored, of that model; None if it was never a
            number.
        epoch: after how many epochs it was so.
        monitor, floor: what was monitored, and what it was to hold; None if
            training ended before that was known.
        cuts: every `Cut`.
        history: the `History` of all epochs, as of one `fit`.
        reason: why training ended, in words.
    """

    model: keras.Model
    value: float | None
    epoch: int
    monitor: str
    floor: float | None
    cuts: tuple[Cut, ...]
    history: keras.callbacks.History
    reason: str

    def __repr__(self):
        return (
            f"<Pruned {self.model.name!r}: {len(self.cuts)} cuts, "
            f"{self.model.count_params():,} parameters after epoch "
            f"{self.epoch}, {self.monitor} {self.value:g}>"
        )

    def to_dict(self) -> dict:
        """All figures but the history, as plain Python objects."""
        return {
            "model": self.model.name,
            "parameters": self.model.count_params(),
            "value": self.value,
            "epoch": self.epoch,
            "monitor": self.monitor,
            "floor": self.floor,
            "cuts": list(map(dataclasses.asdict, self.cuts)),
            "reason": self.reason,
        }

    def table(self) -> Table:
        title = f"Cuts of {self.model.name!r} while it was trained"
        header = (
            "after epoch",
            self.monitor,
            "parameters before",
            "after",
            "rebuild, s",
            "first step, s",
        )
        rows = list(map(dataclasses.astuple, self.cuts))
        floor = "" if self.floor is None else f" (floor {self.floor:g})"
        value = "unknown" if self.value is None else f"{self.value:g}"
        below = (
            f"{self.model.count_params():,} parameters after epoch "
            f"{self.epoch}, {self.monitor} {value}{floor}\n"
            f"ended because {self.reason}"
        )
        return Table(title, header, rows, below)
