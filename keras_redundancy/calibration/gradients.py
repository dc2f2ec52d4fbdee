"""How much it matters to a model's answers what a kernel reads."""

import dataclasses

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_redundancy import _keras
from keras_redundancy.calibration.observer import Observer, Run, answers
from keras_redundancy.calibration.outputs import Output, kind_made
from keras_redundancy.channels.labels import Place

# A backward pass keeps all activations: batches are no larger than this.
BATCH_SIZE = 32
# Rounding changes answers by no more, as a share of the largest of them.
NOISE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Sensitivity:
    """How a model's answers depend on n units that a consumer reads.

    With x the units' activations at one position, and g the gradient there of
    the log-probability of an answer.

    Attributes:
        fisher: F, shape (n, n): the mean over samples of the sum of g g^T
            over positions. If x is changed by e, the model's distribution of
            answers diverges by about E e^T F e / 2, as long as e is small.
        to_removal: shape (n,): the mean over samples of the square of the sum
            of g x over positions: about twice the divergence if a unit becomes
            0.
    """

    fisher: NDArray[np.float64]
    to_removal: NDArray[np.float64]

    def part(self, units) -> "Sensitivity":
        """That to some of the n units."""
        of_both = self.fisher[np.ix_(units, units)]
        return Sensitivity(of_both, self.to_removal[units])


def sensitivities_of(
    model, statistics, data, batch_size: int
) -> dict[int, Sensitivity] | None:
    """How the model's answers depend on what consumers read.

    The answers are drawn from what the model itself returns, so labels are
    not needed. An output that is no softmax or sigmoid counts as the mean of
    a normal distribution.

    Args:
        model: the model that was calibrated.
        statistics: a `Statistics`.
        data, batch_size: as for `observe`.

    Returns:
        {id(view): `Sensitivity`} for all views, 0 where nothing depends on
        what is read; None where gradients do not reach all that is read:
        behind operations that have none, or inside of layers.

    Source: Amari, Natural Gradient Works Efficiently in Learning (1998);
    Molchanov et al., Importance Estimation for Neural Network Pruning (2019).
    """
    views = [view for each in statistics.views.values() for view in each]
    probes = _probes(model, views)
    if probes is None or not all(view.each == 1 for view in views):
        return None
    observer = GradientObserver(model, probes)
    total, samples = [np.zeros(p.shape) for p in probes], 0
    found = answers(observer, data, min(batch_size, BATCH_SIZE))
    for count, sums in found:
        samples += count
        for own, part in zip(total, sums, strict=True):
            own += part
    sensitivities = {}
    silent = [p for p, own in zip(probes, total, strict=True) if not own.any()]
    if silent and _matter(model, silent, data, batch_size):
        return None
    for probe, own in zip(probes, total, strict=True):
        if not np.isfinite(own).all():
            return None
        # What several kernels read at once is shared among them.
        own = own / (samples * len(probe.views))
        for view in probe.views:
            sensitivities[id(view)] = Sensitivity(own[:-1], own[-1])
    return sensitivities


def _matter(model, probes, data, batch_size) -> bool:
    """Whether the answers change if what the probes look at becomes 0.

    If they do, a gradient that is 0 everywhere says that the operations in
    between have none. All backends return zeros there.
    """
    observer = RemovalObserver(model, probes)
    found = answers(observer, data, min(batch_size, BATCH_SIZE))
    changes = np.max([np.asarray(x, float) for _, x in found], axis=0)
    return any(change > NOISE * size for change, size in changes)


class _Probe:
    """Where some views are read.

    Attributes:
        views: these views, which read the same units of the same tensors.
        reads: {(key of a call, key of a tensor): (channel axis, where each
            unit is on it, shape (n, m))}.
    """

    def __init__(self, reads):
        self.views, self.reads = [], reads

    @property
    def shape(self) -> tuple[int, int]:
        """(n + 1, n) of n units: for F, and below it for `to_removal`."""
        n = len(next(iter(self.reads.values()))[1])
        return n + 1, n


def _probes(model, views) -> list[_Probe] | None:
    """A `_Probe` for each of the views; None if some cannot be reached."""
    calls = _Calls(model)
    found = {}
    for view in views:
        reads = {}
        for read in view.on.reads:
            name = calls.names.get(read.place.key)
            if name is None or not isinstance(read.place, Place):
                return None
            columns = read.columns[view.positions]
            for call in calls.reading(name, view.on.variable):
                reads[call.key, name] = read.place.axis, columns
        if not reads:
            return None
        same = tuple(
            (key, axis, columns.shape, columns.tobytes())
            for key, (axis, columns) in reads.items()
        )
        found.setdefault(same, _Probe(reads)).views.append(view)
    return list(found.values())


class _Calls(_keras.Interpreter):
    """The calls of a model, and the names of the tensors that they read.

    Attributes:
        names: {key of a tensor: key of its first name}: see `FlatCall`.
    """

    def __init__(self, model):
        self.names, self._read = {}, []
        inputs = _keras.graph_of(model).inputs
        self.outputs = self.run(model, [(id(x),) for x in inputs])

    def call(self, call, values):
        self._read.append((call, {values[id(x)] for x in call.inputs}))
        return [call.key_of(x) for x in call.outputs]

    def made(self, x, value, path):
        self.names[(*path, id(x))] = value

    def reading(self, name, variable) -> list:
        """The calls that read a tensor, of layers with this variable."""
        return [
            call
            for call, names in self._read
            if name in names
            and isinstance(call.operation, keras.Layer)
            and any(variable is own for own in call.operation.variables)
        ]

    @property
    def makers(self) -> list:
        """For each output of the model the call that makes it, or None."""
        calls = {
            call.key_of(x): call for call, _ in self._read for x in call.outputs
        }
        return [calls.get(name) for name in self.outputs]


class GradientObserver(Observer):
    """Returns the sums over a batch for each `_Probe`: see `_probed`."""

    keeps_all = True

    def __init__(self, model, probes):
        super().__init__(model)
        calls = _Calls(model)
        self._probes, self._names = probes, calls.names
        kinds = [kind_made(call) or "values" for call in calls.makers]
        self._outputs = [Output(kind) for kind in kinds]

    def call(self, inputs):
        *tensors, start = inputs
        outputs = self._outputs

        def log_probability(*sums):
            run = _Changing(self._probes, self._names, _probed, sums)
            found = run.run(self.model, tensors)
            return sum(
                output.log_probability(x, start[0])
                for output, x in zip(outputs, found, strict=True)
            )

        zeros = [ops.zeros(probe.shape, "float32") for probe in self._probes]
        return _keras.gradients(log_probability, zeros)


class RemovalObserver(Observer):
    """Returns, for each output, how much it changes and how large it is.

    It changes as all that the probes look at becomes 0. Of a batch, both are
    the largest absolute values.
    """

    def __init__(self, model, probes):
        super().__init__(model)
        self._probes, self._names = probes, _Calls(model).names

    def call(self, inputs):
        *tensors, _ = inputs
        runs = Run(), _Changing(self._probes, self._names, _removed)
        found = [run.run(self.model, tensors) for run in runs]
        return ops.stack([_change(*each) for each in zip(*found, strict=True)])


def _change(before, after):
    before, after = (ops.cast(x, "float32") for x in (before, after))
    both = [ops.max(ops.abs(x)) for x in (after - before, before)]
    return ops.stack(both)


class _Changing(Run):
    """A run in which calls read something else of what is looked at.

    Args:
        probes: what to look at.
        names: those of tensors, of `_Calls`.
        change: a function of a tensor, its channel axis, where each unit is
            on it, and the entry of `others` of the probe.
        others: something for each probe.
    """

    def __init__(self, probes, names, change, others=None):
        super().__init__()
        self._names, self._change, self._at = names, change, {}
        for probe, own in zip(probes, others or probes, strict=True):
            for (call, name), where in probe.reads.items():
                self._at.setdefault(call, []).append((name, *where, own))

    def call(self, call, values):
        values = {id(x): values[id(x)] for x in call.inputs}
        for name, *where in self._at.get(call.key, ()):
            for x in call.inputs:
                if self._names[call.key_of(x)] == name:
                    given = values[id(x)]
                    seen = self._change(given, *where)
                    mask = _keras.mask_of(given)
                    values[id(x)] = _keras.with_mask(seen, mask)
        return super().call(call, values)


def _removed(x, axis, columns, _):
    """`x` with 0 in place of the units."""
    shape = [1] * len(x.shape)
    shape[axis] = x.shape[axis]
    stays = np.ones(x.shape[axis])
    stays[columns] = 0
    return x * ops.cast(stays.reshape(shape), x.dtype)


def _probed(x, axis, columns, sums):
    """`x`; on the way back, the gradient by `sums` is what is to be summed.

    That is the sum of g g^T, and below it that of the squares of what a
    sample's g x are together.
    """
    n = len(columns)
    order = np.transpose(columns).reshape(-1)

    def rows(x):
        """Shape (samples, positions, n)."""
        x = ops.cast(ops.moveaxis(x, axis, -1), sums.dtype)
        if not np.array_equal(order, np.arange(x.shape[-1])):
            x = ops.take(x, order, axis=-1)
        return ops.reshape(x, (ops.shape(x)[0], -1, n))

    @ops.custom_gradient
    def probe(x, sums):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            g = rows(upstream)
            removal = ops.sum(ops.square(ops.sum(g * rows(x), 1)), 0)
            g = ops.reshape(g, (-1, n))
            fisher = ops.matmul(ops.transpose(g), g)
            return upstream, ops.concatenate([fisher, removal[None]])

        return x + ops.zeros_like(x), gradient

    return probe(x, sums)
