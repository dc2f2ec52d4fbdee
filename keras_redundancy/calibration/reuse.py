"""Calibrate once, plan often."""

import dataclasses

from keras_redundancy._keras.fingerprint import fingerprint
from keras_redundancy._shared.arguments import check_count
from keras_redundancy.calibration.data import Samples, first_shapes
from keras_redundancy.calibration.views import Statistics, statistics_of
from keras_redundancy.channels import ChannelGraph
from keras_redundancy.channels.sizes import has_open_sizes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """What calibration data says of a model, to be passed on as `data=`.

    It holds for the weights that the model has when it is made.

    Attributes:
        model: the model that it is of.
        graph: that, traced, or what it is stripped to.
        statistics: what the consumers of its spaces read; None where nobody
            asked for it.
        data: the `Samples`, to go over them again.
        batch_size: for arrays in `data`.
        allow_inexact: how the model was traced.
        weights: fingerprints of the weights of the model and of the graph's;
            None where it is used at once.
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
        """Of the spaces of a traced model; not a pass where there are none."""
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
        """Those of a sample of each input, where the model leaves some open."""
        return self.data.shapes if has_open_sizes(self.graph.model) else None

    def to_be_kept(self) -> "Calibration":
        """With fingerprints, so that it is noticed when the weights change."""
        return dataclasses.replace(self, weights=self._weights_now())

    def check(self, model, allow_inexact: bool) -> None:
        """Raise unless it is of this model as it is now, traced like this.

        Raises:
            ValueError: it is another model's, was traced otherwise, or the
                weights have changed.
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
        if self.weights not in (None, self._weights_now()):
            raise ValueError(
                f"data is a calibration of {model.name!r} with other weights "
                "than it has now: it was trained, or weights were assigned, "
                "since then. Calibrate it anew: kr.calibrate(model, data)."
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

    def __repr__(self):
        seen = "no statistics"
        if self.statistics is not None:
            samples, axes = self.statistics.samples, len(self.statistics.views)
            seen = f"what {axes} kernels read of {samples:,} samples"
        return f"<Calibration of {self.model.name!r}: {seen}>"


def check_steps(steps, data) -> None:
    """Raise unless there are batches that `steps` can count.

    Raises:
        ValueError: it is no count, or `data` is None or a `Calibration`.
    """
    if steps is None:
        return
    check_count("steps", steps)
    if data is None or isinstance(data, Calibration):
        given = "None" if data is None else "a calibration, made before"
        raise ValueError(
            f"steps={steps} says how many batches of data= are used, but data "
            f"is {given}. Leave steps= out, or pass the samples themselves."
        )
