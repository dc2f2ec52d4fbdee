"""`Calibration`: calibrate once, plan often."""

import dataclasses
import functools

from keras_redundancy import _keras
from keras_redundancy._keras.fingerprint import fingerprint
from keras_redundancy._shared.arguments import check_count
from keras_redundancy._shared.tables import Rendered, Table
from keras_redundancy.calibration.data import Samples, first_shapes
from keras_redundancy.calibration.gradients import (
    Sensitivity,
    sensitivities_of,
)
from keras_redundancy.calibration.views import Statistics, statistics_of
from keras_redundancy.channels import ChannelGraph
from keras_redundancy.channels.sizes import has_open_sizes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Calibration(Rendered):
    """Statistics of a model's activations; pass it to `plan` as `data=`.

    It is valid as long as the weights of the model do not change.

    Attributes:
        model: the model that was calibrated.
        graph: the `ChannelGraph` of the model, or of the model without its
            training layers.
        statistics: mean and covariance of what consumers read; None if the
            plan needs the samples only.
        data: the `Samples`, for further passes.
        batch_size: for arrays in `data`.
        allow_inexact: the argument of `trace`.
        weights: fingerprints of the weights of `model` and of the model of
            `graph`; None if it is used at once.
    """

    model: object
    graph: ChannelGraph
    statistics: Statistics | None
    data: Samples
    batch_size: int
    allow_inexact: bool
    weights: tuple[str, str] | None = None

    @classmethod
    def of(
        cls,
        model,
        graph,
        spaces,
        samples: Samples,
        batch_size: int,
        allow_inexact: bool,
    ) -> "Calibration":
        """Calibrate the spaces of a traced model; without spaces, no pass."""
        size = _keras.needed_batch(graph.model) or batch_size
        samples = dataclasses.replace(samples, batch_size=size)
        if spaces:
            samples, again = samples.after_a_pass()
            statistics = statistics_of(graph, spaces, samples, batch_size)
            again.shapes = samples.shapes
        else:
            statistics, again = None, samples.remembered()
        if has_open_sizes(graph.model):
            first_shapes(graph.model, again, batch_size)
        return cls(model, graph, statistics, again, batch_size, allow_inexact)

    @property
    def input_shape(self) -> tuple | None:
        """The shape of a sample for each input; None if all are fixed."""
        return self.data.shapes if has_open_sizes(self.graph.model) else None

    @functools.cached_property
    def sensitivities(self) -> dict[int, Sensitivity] | None:
        """What `sensitivities_of` returns: one more pass, at the first use."""
        return sensitivities_of(
            self.graph.model, self.statistics, self.data, self.batch_size
        )

    def to_be_kept(self) -> "Calibration":
        """The same with fingerprints, so that `check` sees changed weights."""
        return dataclasses.replace(self, weights=self._weights_now())

    def check(self, model, allow_inexact: bool) -> None:
        """Raise unless the calibration is valid for a model.

        Raises:
            ValueError: it is of another model, was traced with another
                `allow_inexact`, or the weights have changed.
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
                f", but the plan is made with {allow_inexact}. Pass the same "
                "to both."
            )
        if self.weights not in (None, self._weights_now()):
            raise ValueError(
                f"data is a calibration of {model.name!r} with other weights "
                "than it has now: the model was trained, or weights were "
                "assigned, since then. Calibrate it again: "
                "kr.calibrate(model, data)."
            )

    def _weights_now(self):
        own, traced = self.model, self.graph.model
        first = fingerprint(own)
        return first, first if traced is own else fingerprint(traced)

    def to_dict(self) -> dict:
        """What was observed, as plain Python numbers, strings and lists.

        `kernels` names the layers whose inputs were observed, with how many
        units and how many rows of activations (one for each sample and
        position) each mean and covariance is of.
        """
        known = self.statistics
        views = known.views.values() if known is not None else ()
        return {
            "model": self.model.name,
            "allow_inexact": self.allow_inexact,
            "batch_size": self.batch_size,
            "samples": known.samples if known is not None else None,
            "kernels": [
                {
                    "layer": view.on.layer.name,
                    "units": len(view.positions),
                    "rows": int(view.moments.count),
                }
                for of_kernel in views
                for view in of_kernel
            ],
        }

    def table(self) -> Table:
        known = self.to_dict()
        rows = [list(kernel.values()) for kernel in known["kernels"]]
        title = f"Calibration of {self.model.name!r}"
        below = f"samples: {known['samples'] or 'not yet read'}"
        return Table(title, ("read by", "units", "rows"), rows, below)

    def __repr__(self):
        seen = "no statistics"
        if self.statistics is not None:
            samples, axes = self.statistics.samples, len(self.statistics.views)
            seen = f"what {axes} kernels read of {samples:,} samples"
        return f"<Calibration of {self.model.name!r}: {seen}>"


def check_steps(steps, data) -> None:
    """Raise unless `steps` is None or can limit the batches of `data`.

    Raises:
        ValueError: `steps` is no integer of at least 1, or `data` is None or
            a `Calibration`, which have no batches.
    """
    if steps is None:
        return
    check_count("steps", steps)
    if data is None or isinstance(data, Calibration):
        given = "None" if data is None else "a calibration, made before"
        raise ValueError(
            f"steps={steps} limits the batches of data=, but data is {given}. "
            "Leave steps= out, or pass the samples themselves."
        )
