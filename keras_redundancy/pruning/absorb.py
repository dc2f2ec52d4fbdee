"""Map and absorb: what the variables of a smaller model hold.

Producers and carriers lose the removed units (or take the mean of a cluster);
each consumer axis becomes `M @ consumer`, where row k of M has a 1 for the
kept unit k and, when merging, the scale of every unit that k stands for.
"""

import dataclasses

import numpy as np
from scipy import sparse

from keras_redundancy.channels import Role, VariableAxis
from keras_redundancy.channels.labels import Copied, Filtered, Normalized
from keras_redundancy.pruning.filters import read


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


def new_values(graph, changes, keep: str, absorb: str) -> dict:
    """The arrays of all variables that change, by id(variable)."""
    if not changes:
        return {}
    means = {}
    if keep == "mean":
        means = _apply_all(_producers_and_carriers(changes), _mean_in_place)
    scales = {}
    if absorb == "merge":
        before = _gains(graph, read)
        after = before
        if means:
            after = _gains(graph, lambda v: means.get(id(v), read(v)))
        scales = {id(c): _scale(c, before, after) for c in changes}

    def smaller(change, value):
        if change.on.role is not Role.CONSUMER or absorb == "drop":
            return np.take(value, change.kept, change.on.axis)
        return _merge(change, value, scales[id(change)])

    return _apply_all(changes, smaller, means)


def _producers_and_carriers(changes):
    return [c for c in changes if c.on.role is not Role.CONSUMER]


def _apply_all(changes, function, start=()):
    """Arrays by id(variable) after `function` on each of their axes."""
    values = dict(start)
    for change in changes:
        variable = change.on.variable
        value = values.get(id(variable))
        value = read(variable) if value is None else value
        values[id(variable)] = function(change, value)
    return values


def _mean_in_place(change, value):
    """Full-size array with each cluster's mean at its representative."""
    size = len(change.on.group)
    owner = np.arange(size)
    owner[change.source] = change.target
    members = sparse.csr_array(
        (np.ones(size, value.dtype), (owner, np.arange(size))),
        shape=(size, size),
    )
    sums = _along(value, change.on.axis, members)
    counts = np.bincount(owner, minlength=size).clip(1)
    shape = [1] * value.ndim
    shape[change.on.axis] = size
    means = (sums / counts.reshape(shape)).astype(value.dtype)
    stays = np.ones(size, bool)
    stays[change.source] = False
    return np.where((stays & (counts > 1)).reshape(shape), means, value)


def _merge(change, value, scale):
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
    return _along(value, change.on.axis, matrix)


def _along(value, axis, matrix):
    """`matrix` of shape (k, n) times `value` along its axis of size n."""
    front = np.moveaxis(value, axis, 0)
    rows = matrix @ front.reshape(len(front), -1)
    return np.moveaxis(rows.reshape(-1, *front.shape[1:]), 0, axis)


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


def _gains(graph, value):
    """The gain of every label: how strongly its channel answers.

    A unit's gain is the norm of its filter, times gamma / sqrt(variance +
    epsilon) of each BatchNormalization behind it. With filters w and 3 w,
    and gammas 1 and 2 on equal variances, the second channel is 6 times the
    first behind BatchNormalization and ReLU. A value that no step leads to,
    since a function that is not positively homogeneous or a sum of several
    values made it, keeps the gain 1 that all labels start with: what reads
    it merges unscaled.

    Source: the scale of Kim et al., Neuron Merging (2020), which
    for duplicate filters is that of RoyChowdhury et al. (2017), 1.
    """
    gain = np.ones(len(graph.group))
    for step in graph.steps:
        match step:
            case Filtered(ids, kernel, axis, source):
                others = tuple(i for i in range(len(kernel.shape)) if i != axis)
                squares = np.square(value(kernel)).sum(axis=others)
                before = 1 if source is None else gain[source]
                gain[ids] = before * np.sqrt(squares)
            case Normalized(ids, source, gamma, variance, epsilon):
                factor = 1 / np.sqrt(value(variance) + epsilon)
                if gamma is not None:
                    factor = factor * value(gamma)
                gain[ids] = gain[source] * factor
            case Copied(ids, source):
                gain[ids] = gain[source]
    return gain
