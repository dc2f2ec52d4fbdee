"""Map and absorb: what the variables of a smaller model hold.

Producers and carriers lose the removed units (or take the mean of a cluster);
each consumer axis becomes `M @ consumer`, where row k of M has a 1 for the
kept unit k and, when merging, the scale of every unit that k stands for.
What calibration data adds is in `refit`.
"""

import dataclasses
import math
import types
from collections.abc import Mapping

import numpy as np
from scipy import sparse

from keras_redundancy.channels import Role, VariableAxis
from keras_redundancy.channels.labels import (
    Copied,
    Filtered,
    Normalized,
    Shifted,
)
from keras_redundancy.pruning.filters import columns_of, norms_along, read


@dataclasses.dataclass(eq=False)
class AxisChange:
    """What happens to one axis of a variable.

    Attributes:
        on: the axis.
        kept: positions that stay, shape (kept,).
        source, target: positions that go, and the positions that stand for
            them, both of shape (removed,).
    """

    on: VariableAxis
    kept: np.ndarray
    source: np.ndarray
    target: np.ndarray


def is_consumer(change: AxisChange) -> bool:
    return change.on.role is Role.CONSUMER


def axis_changes(decisions) -> list[AxisChange]:
    """What the decisions about spaces mean for every axis they touch."""
    touched = {}
    for decision in decisions:
        removed = decision.selection.removed
        stand_in = decision.selection.stands_for[removed]
        if len(removed):
            for place in decision.space.axes:
                pair = place.positions[removed], place.positions[stand_in]
                touched.setdefault(id(place.on), (place.on, []))[1].append(pair)
    changes = []
    for on, pairs in touched.values():
        source, target = (
            np.concatenate([pair[side].reshape(-1) for pair in pairs])
            for side in (0, 1)
        )
        stays = np.ones(len(on.group), bool)
        stays[source] = False
        changes.append(AxisChange(on, np.flatnonzero(stays), source, target))
    return changes


class NewValues(Mapping):
    """The arrays of all variables that change, by id(variable).

    Each is made when it is asked for and not kept, so that the whole smaller
    model is never held twice.
    """

    def __init__(self, changes, function, start=read, others=()):
        """`function(change, value)` for each change, from start(variable).

        Of the variables `others` it is start(variable) even without a change.
        """
        self._function, self._start = function, start
        self._changes = {}
        self._variables = {id(variable): variable for variable in others}
        # What is cut first need not be merged.
        for change in sorted(changes, key=is_consumer):
            variable = change.on.variable
            self._changes.setdefault(id(variable), []).append(change)
            self._variables[id(variable)] = variable

    def __getitem__(self, key):
        value = self._start(self._variables[key])
        for change in self._changes.get(key, ()):
            value = self._function(change, value)
        return value

    def __iter__(self):
        return iter(self._variables)

    def __len__(self):
        return len(self._variables)


def new_values(graph, changes, keep: str, absorber) -> NewValues:
    """The arrays of all variables that change, by id(variable).

    Args:
        graph: the traced model.
        changes: every `AxisChange`.
        keep: "mean" for units that are the means of their clusters.
        absorber: one of this module: what the consumers' axes become.
    """
    start = read
    if keep == "mean":
        others = [c for c in changes if not is_consumer(c)]
        means = NewValues(others, mean_in_place)
        variances = _variances_of_means(graph, others)

        def start(variable):
            if id(variable) in variances:
                return variances[id(variable)]
            mean = means.get(id(variable))
            return read(variable) if mean is None else mean

    absorber.prepare(graph, changes, start)

    def smaller(change, value):
        if is_consumer(change):
            return absorber.absorb(change, value)
        return np.take(value, change.kept, change.on.axis)

    def shifted(variable):
        return absorber.start(variable, start(variable))

    return NewValues(changes, smaller, shifted, absorber.added_to)


class Drop:
    """What reads a removed unit loses that input.

    Attributes:
        created: {id(layer): (`Shifted`, array)}: biases that have to be made.
        added_to: variables that get something without being cut.
        merges: whether a unit that stays does what others did besides.
    """

    created: Mapping = types.MappingProxyType({})
    added_to = ()
    merges = False

    def biases_for(self, graph, changes) -> list:
        """The `Shifted` of the layers that will get a bias."""
        return []

    def prepare(self, graph, changes, start) -> None:
        """Learn all that changes; `start` reads a variable's old value."""

    def start(self, variable, value):
        """What a variable holds before it is cut."""
        return value

    def absorb(self, change, value):
        """What the axis of a consumer becomes."""
        return np.take(value, change.kept, change.on.axis)


class Merge(Drop):
    """What reads a removed unit reads its stand-in, scaled where it may be."""

    merges = True

    def prepare(self, graph, changes, start):
        touched = _touched_groups(graph, changes)
        before = after = _gains(graph, read, touched)
        if start is not read:
            after = _gains(graph, start, touched)
        self._scales = {
            id(c): _scale(c, before, after) for c in changes if is_consumer(c)
        }

    def absorb(self, change, value):
        return merge(change, value, self._scales[id(change)])


def _touched_groups(graph, changes):
    """Whether each group goes or stands for one that goes, a bool array."""
    touched = np.zeros(graph.group.max(initial=-1) + 1, bool)
    for change in changes:
        touched[change.on.group[change.source]] = True
        touched[change.on.group[change.target]] = True
    return touched


def mean_in_place(change, value):
    """Full-size array with each cluster's mean at its representative."""
    members, counts = clusters_of(change, value.dtype)
    sums = along(value, change.on.axis, members)
    shape = [1] * value.ndim
    shape[change.on.axis] = len(counts)
    means = (sums / counts.clip(1).reshape(shape)).astype(value.dtype)
    return np.where((counts > 1).reshape(shape), means, value)


def clusters_of(change, dtype):
    """Which unit stands for which, (n, n), and for how many, shape (n,)."""
    size = len(change.on.group)
    owner = np.arange(size)
    owner[change.source] = change.target
    members = sparse.csr_array(
        (np.ones(size, dtype), (owner, np.arange(size))), shape=(size, size)
    )
    return members, np.bincount(owner, minlength=size)


def _variances_of_means(graph, changes):
    """{id(moving variance): array} where the means of clusters are normalised.

    The mean of k numbers varies less than they do: by 1/k^2 of the sum of
    their covariances, which are sigma_i sigma_j times the cosine of the
    filters i and j, if what these read were white.

    Source: Wang et al., Forget the Data and Fine-Tuning! Just Fold the
    Network to Compress (2025): the repair without data, here from all
    cosines within a cluster in place of their mean.
    """
    producers = {
        id(step.layer): step
        for step in graph.steps
        if isinstance(step, Shifted)
    }
    by_variable = {id(change.on.variable): change for change in changes}
    found = {}
    for step in graph.steps:
        if not isinstance(step, Normalized):
            continue
        change = by_variable.get(id(step.variance))
        producer = producers.get(id(step.after))
        if change is None or producer is None:
            continue
        variance = read(step.variance)
        filters = columns_of(read(producer.kernel), producer.axis)
        norms = norms_along(filters, -1)
        deviations = np.sqrt(variance) / np.where(norms > 0, norms, 1)
        members, counts = clusters_of(change, variance.dtype)
        sums = members @ (filters * deviations).T
        of_means = np.einsum("nz,nz->n", sums, sums) / counts.clip(1) ** 2
        found[id(step.variance)] = np.where(
            counts > 1, of_means.astype(variance.dtype), variance
        )
    return found


def merge(change, value, scale):
    """M @ value along the axis of the change."""
    size, kept = len(change.on.group), change.kept
    row = np.empty(size, int)
    row[kept] = np.arange(len(kept))
    matrix = sparse.csr_array(
        (
            np.concatenate([np.ones(len(kept)), scale]).astype(value.dtype),
            (
                np.concatenate([np.arange(len(kept)), row[change.target]]),
                np.concatenate([kept, change.source]),
            ),
        ),
        shape=(len(kept), size),
    )
    return along(value, change.on.axis, matrix)


def along(value, axis, matrix):
    """`matrix` of shape (k, n) times `value` along its axis of size n."""
    before, n, after = (
        value.shape[:axis],
        matrix.shape[0],
        value.shape[axis + 1 :],
    )
    if math.prod(after) == 1:
        rows = value.reshape(-1, value.shape[axis])
        return (matrix @ rows.T).T.reshape(*before, n, *after)
    blocks = value.reshape(-1, value.shape[axis], math.prod(after))
    result = np.empty((len(blocks), n, math.prod(after)), value.dtype)
    for block, product in zip(blocks, result, strict=True):
        product[:] = matrix @ block
    return result.reshape(*before, n, *after)


def _scale(change, before, after):
    """How many times its stand-in each removed position's channel is.

    The ratio of the two channels' gains, the mean over the calls of a shared
    layer. A channel that answers with the opposite sign is not a positive
    multiple of its stand-in: its scale is 0.
    """
    gone = before[change.on.ids[:, change.source]]
    stand_in = after[change.on.ids[:, change.target]]
    alive = stand_in != 0
    ratio = np.divide(
        gone, stand_in, out=(gone == 0).astype(gone.dtype), where=alive
    )
    return np.maximum(ratio, 0).mean(axis=0)


def _gains(graph, value, touched):
    """The gain of every label: how strongly its channel answers.

    A unit's gain is the norm of its filter, times gamma / sqrt(variance +
    epsilon) of each BatchNormalization behind it. With filters w and 3 w,
    and gammas 1 and 2 on equal variances, the second channel is 6 times the
    first behind BatchNormalization and ReLU. A value that no step leads to,
    since a function that is not positively homogeneous or a sum of several
    values made it, keeps the gain 1 that all labels start with: what reads
    it merges unscaled. Kernels whose groups are not `touched` are not read.

    Source: the scale of Kim et al., Neuron Merging (2020), which
    for duplicate filters is that of RoyChowdhury et al. (2017), 1.
    """
    gain = np.ones(len(graph.group))
    for step in graph.steps:
        match step:
            case Filtered(ids, kernel, axis, source):
                if touched[graph.group[ids]].any():
                    before = 1 if source is None else gain[source]
                    gain[ids] = before * norms_along(value(kernel), axis)
            case Normalized(ids, source, gamma, variance, epsilon):
                factor = 1 / np.sqrt(value(variance) + epsilon)
                if gamma is not None:
                    factor = factor * value(gamma)
                gain[ids] = gain[source] * factor
            case Copied(ids, source):
                gain[ids] = gain[source]
    return gain
