"""Calibrate once, plan often."""

import dataclasses

from keras_redundancy.calibration.data import remembered, reusable
from keras_redundancy.calibration.views import Statistics, statistics_of
from keras_redundancy.channels import ChannelGraph, trace
from keras_redundancy.options import check_count


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """What calibration data says of a model, to be passed on as `data=`.

    It holds for the weights that the model has when it is made.

    Attributes:
        graph: the traced model.
        statistics: what the consumers of its spaces read; None where nobody
            asked for it.
        data: the samples, to go over them again.
        batch_size: for arrays in `data`.
        allow_inexact: how the model was traced.
    """

    graph: ChannelGraph
    statistics: Statistics | None
    data: object
    batch_size: int
    allow_inexact: bool

    @classmethod
    def of(
        cls, graph, spaces, data, batch_size: int, allow_inexact: bool
    ) -> "Calibration":
        """Of the spaces of a traced model; not a pass where there are none."""
        if spaces:
            data, again = reusable(data)
            statistics = statistics_of(graph, spaces, data, batch_size)
        else:
            statistics, again = None, remembered(data)
        return cls(graph, statistics, again, batch_size, allow_inexact)

    def check(self, model, allow_inexact: bool) -> None:
        """Raise unless it is of this model, traced like this.

        Raises:
            ValueError: it is another model's, or was traced otherwise.
        """
        if self.graph.model is not model:
            raise ValueError(
                f"data is a calibration of {self.graph.model.name!r}, another "
                f"model object than this {model.name!r}. Calibrate the model "
                "that you plan on: kr.calibrate(model, data)."
            )
        if self.allow_inexact != allow_inexact:
            raise ValueError(
                f"data was calibrated with allow_inexact={self.allow_inexact}"
                f", but the plan is made with {allow_inexact}. Give both the "
                "same."
            )


def calibrate(
    model, data, *, batch_size: int = 128, allow_inexact: bool = False
) -> Calibration:
    """Run a model over `data` once, to plan on it as often as you like.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        data: some hundred or thousand samples: what `Model.predict` takes;
            targets are ignored.
        batch_size: for arrays in `data`.
        allow_inexact: as for `plan`.

    Returns:
        A `Calibration` to pass on as `data=` in place of the samples. It
        holds for the weights that the model has now: calibrate anew after
        training.

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: the model is not built, or `data` is empty or does not
            fit the model's inputs.

    Example:

        known = keras_redundancy.calibrate(model, images)
        for share in (0.7, 0.5, 0.3):
            small = keras_redundancy.prune(
                model, target={"flops": share}, data=known
            )
    """
    check_count("batch_size", batch_size)
    graph = trace(model, allow_inexact=allow_inexact)
    return Calibration.of(
        graph, graph.prunable, data, batch_size, allow_inexact
    )
