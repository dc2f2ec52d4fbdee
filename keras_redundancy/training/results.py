"""What `fit_and_prune` returns."""

import dataclasses

import keras

from keras_redundancy._shared.plain import plain
from keras_redundancy._shared.tables import Rendered, Table


@dataclasses.dataclass
class Cut:
    """One cut: the model was replaced by a smaller one.

    Attributes:
        epoch: the number of epochs before the cut.
        value: the monitored value after these epochs.
        before, after: the numbers of parameters.
        rebuild: seconds that choosing units and building the model took.
        retrace: seconds that the first training step afterwards took, most of
            them compiling; None if there was no further step.
    """

    epoch: int
    value: float
    before: int
    after: int
    rebuild: float
    retrace: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned(Rendered):
    """The smaller model and how it came about; `render()` shows the cuts.

    Attributes:
        model: the smallest model that reached the floor.
        value: the monitored value of that model; None if it was not measured,
            or not finite.
        epoch: the number of epochs after which `model` had that value.
        monitor: the name of the monitored value in the logs.
        floor: the value that `monitor` had to reach; None if training ended
            before it was known.
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
            f"{self._summary()}>"
        )

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings, lists and dicts.

        Of the model there are its name and its number of parameters.
        """
        return {
            "model": self.model.name,
            "parameters": self.model.count_params(),
            "value": self.value,
            "epoch": self.epoch,
            "monitor": self.monitor,
            "floor": self.floor,
            "cuts": list(map(dataclasses.asdict, self.cuts)),
            "history": plain(self.history.history),
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
        below = f"{self._summary()}{floor}\nended because {self.reason}"
        kept = sum(cut.epoch < self.epoch for cut in self.cuts)
        if kept < len(self.cuts):
            below += (
                f"\nthe model has {kept} of the {len(self.cuts)} cuts: after "
                f"the next one, {self.monitor} did not reach the floor. For a "
                "smaller model train longer, cut less at a time, or allow a "
                "greater max_drop"
            )
        return Table(title, header, rows, below)

    def _summary(self):
        value = "unknown" if self.value is None else f"{self.value:g}"
        return (
            f"{self.model.count_params():,} parameters after epoch "
            f"{self.epoch}, {self.monitor} {value}"
        )
