"""Calibrate once, plan often."""

import dataclasses

from keras_redundancy.calibration.data import remembered, reusable
from keras_redundancy.calibration.views import Statistics, statistics_of
from keras_redundancy.channels import ChannelGraph


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """What calibration data says of a model, to be passed on as `data=`.

    It holds for the weights that the model has when it is made.

    Attributes:
        model: the model that it is of.
        graph: that, traced, or what it is stripped to.
        statistics: what the consumers of its spaces read; None where nobody
            asked for it.
        data: the samples, to go over them again.
        batch_size: for arrays in `data`.
        allow_inexact: how the model was traced.
    """

    model: object
    graph: ChannelGraph
    statistics: Statistics | None
    data: object
    batch_size: int
    allow_inexact: bool

    @classmethod
    def of(
        cls, model, graph, spaces, data, batch_size: int, allow_inexact: bool
    ) -> "Calibration":
        """Of the spaces of a traced model; not a pass where there are none."""
        if spaces:
            data, again = reusable(data)
            statistics = statistics_of(graph, spaces, data, batch_size)
        else:
            statistics, again = None, remembered(data)
        return cls(model, graph, statistics, again, batch_size, allow_inexact)

    def check(self, model, allow_inexact: bool) -> None:
        """Raise unless it is of this model, traced like this.

        Raises:
            ValueError: it is another model's, or was traced otherwise.
        """
        if model is not self.model and model is not self.graph.model:
            raise ValueError(
                f"data is a calibration of {self.model.name!r}, another "
                f"model object than this {model.name!r}. Calibrate the model "
                "that you plan on: kr.calibrate(model, data)."
            )
        if self.allow_inexact != allow_inexact:
            raise ValueError(
                f"data was calibrated with allow_inexact={self.allow_inexact}"
                f", but the plan is made with {allow_inexact}. Give both the "
                "same."
            )
