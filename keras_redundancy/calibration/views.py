"""Statistics of the activations that the consumers of a space read."""

import dataclasses

import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.tables import listed
from keras_redundancy.calibration.moments import Divided, Moments
from keras_redundancy.calibration.observer import Window, observe
from keras_redundancy.channels import Role, VariableAxis


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Units that a consumer reads side by side, and their moments.

    Attributes:
        on: the consumer's axis.
        positions: shape (units, m): where on the axis each unit sits. Each of
            the m columns holds every unit once.
        divided: mean and covariance of the units' activations, over samples,
            positions of the input, calls and columns: of the samples to fit
            to, and of those held out.
        each: how many numbers of the moments belong to each unit: 1, or more
            where units are vectors, such as heads of an attention layer. Then
            the numbers at the m positions of a unit belong to it together.
    """

    on: VariableAxis
    positions: np.ndarray
    divided: Divided
    each: int = 1

    @property
    def moments(self) -> Moments:
        """Those of all samples."""
        return self.divided.whole

    def entries(self, units) -> np.ndarray:
        """Where in the moments some units are, shape (units * each,)."""
        units = np.asarray(units)
        return (units[:, None] * self.each + np.arange(self.each)).reshape(-1)

    def rows_of(self, kernel, units) -> list[np.ndarray]:
        """The matrices of the kernel that read some units.

        Args:
            kernel: one with the axis `on`, an array.
            units: numbers of units of this view, shape (k,).

        Returns:
            Matrices of shape (k, outputs), one for each of the m columns; or
            one of shape (k * each, outputs) where units are vectors.
        """
        kernel = np.moveaxis(kernel, self.on.axis, 0)
        rows = kernel[self.positions[units]]
        if self.each > 1:
            return [rows.reshape(len(units) * self.each, -1)]
        return [
            rows[:, i].reshape(len(units), -1) for i in range(rows.shape[1])
        ]

    def numbers_of(self, positions) -> np.ndarray:
        """For each position of the axis the number of its unit, or -1."""
        unit = np.full(len(self.on.group), -1)
        unit[self.positions] = np.arange(len(self.positions))[:, None]
        return unit[positions]


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Moments of the activations of the units of some spaces.

    Attributes:
        views: {id(axis): views} of the consumers' axes. An axis that reads a
            tensor inside a layer has none if no rule computes that tensor.
        samples: the number of samples.
    """

    views: dict[int, list[View]]
    samples: int

    def of_space(self, space) -> list[tuple[View, np.ndarray]]:
        """[(view, the numbers of the space's units in that view), ...]."""
        found = []
        for place in space.axes_of(Role.CONSUMER):
            for view in self.views.get(id(place.on), ()):
                numbers = view.numbers_of(place.positions[:, 0])
                if (numbers >= 0).all():
                    found.append((view, numbers))
        return found


def statistics_of(graph, spaces, data, batch_size: int) -> Statistics:
    """Run the model over `data` and observe what consumers of `spaces` read.

    Args:
        graph: the traced model.
        spaces: their units are observed, and all units that the same
            consumers read beside them.
        data, batch_size: as for `observe`.

    Raises:
        ValueError: `data` is empty, does not fit the model's inputs, or gives
            activations that are NaN or infinite.
    """
    windows, observed = {}, []
    for on, positions in _read_together(graph, spaces):
        of_axis = [_window(read, positions) for read in on.reads]
        name = tuple(window.identity for window in of_axis)
        windows.setdefault(name, of_axis)
        each = len(of_axis[0].columns) // len(positions)
        observed.append((on, positions, name, each))
    moments = observe(graph.model, windows, data, batch_size)
    views = {}
    for on, positions, name, each in observed:
        _require_finite(moments[name], on, graph.model)
        view = View(on, positions, moments[name], each)
        views.setdefault(id(on), []).append(view)
    samples = max((m.samples for m in moments.values()), default=0)
    return Statistics(views, samples)


def _window(read, positions):
    columns = read.columns[positions]
    # All numbers of all vectors make one row.
    vectors = columns.ndim > positions.ndim
    return Window(read.place, columns.reshape(-1, 1) if vectors else columns)


def _read_together(graph, spaces):
    """Yield (consumer axis, positions of all units read with `spaces`)."""
    beside = {}
    for space in graph.spaces:
        for place in space.axes_of(Role.CONSUMER):
            if place.on.reads and None not in place.on.reads:
                by_columns = beside.setdefault(id(place.on), (place.on, {}))[1]
                columns = place.positions.shape[1]
                by_columns.setdefault(columns, []).append((space, place))
    wanted = set(map(id, spaces))
    for on, by_columns in beside.values():
        for together in by_columns.values():
            if any(id(space) in wanted for space, _ in together):
                positions = [place.positions for _, place in together]
                yield on, np.concatenate(positions)


def _require_finite(divided, on, model):
    parts = divided.fitted, divided.held_out
    if all(np.isfinite(x).all() for part in parts for x in part.blocks):
        return
    advice = (
        "Look for NaN in the data, and scale it as it was scaled for training."
    )
    broken = [
        variable.path
        for variable in model.variables
        if not np.isfinite(_keras.as_array(variable)).all()
    ]
    if broken:
        advice = (
            f"The weights {listed(broken, 3)} hold NaN or infinity: restore "
            "them from a checkpoint from before the training diverged."
        )
    raise ValueError(
        f"The layer {on.layer.name!r} reads activations that are NaN or "
        f"infinite for the calibration data. {advice}"
    )
