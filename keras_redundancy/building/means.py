"""New units that are the means of clusters."""

import numpy as np

from keras_redundancy.building.changes import (
    NewValues,
    along,
    clusters_of,
    is_consumer,
    stand_ins_of,
    touched_groups,
)
from keras_redundancy.channels.filters import columns_of, norms_along, read
from keras_redundancy.channels.gains import Gains, Size
from keras_redundancy.channels.labels import Normalized, Shifted


def start_at_means(graph, changes, folded):
    """A function that reads a variable, with means at the representatives.

    Before the mean, the members of a cluster are scaled to the size of their
    representative: of w (the representative) and 3 w, the mean is w. So are
    the variables behind them that scale with the unit.

    Args:
        graph: the traced model.
        changes: every `AxisChange`.
        folded: as for `Gains`.
    """
    others = [change for change in changes if not is_consumer(change)]
    touched = touched_groups(graph, others)
    sizes = Gains(graph, read, touched, folded=folded).sizes

    def size_of(change):
        return sizes.get((id(change.on.variable), change.on.axis))

    means = NewValues(others, lambda c, v: mean_in_place(c, v, size_of(c)))
    variances = _variances_of_means(graph, others, size_of)

    def start(variable):
        variance = variances.get(id(variable))
        return means[variable] if variance is None else variance

    return start


def mean_in_place(change, value, size: Size | None = None):
    """The array with the mean of each cluster at its representative.

    Args:
        change: an `AxisChange`.
        value: an array, which is not changed.
        size: the sizes to scale the members by; None for the plain mean.
    """
    members, counts = clusters_of(change, value.dtype)
    shape = [1] * value.ndim
    shape[change.on.axis] = len(counts)
    scaled = value
    if size is not None:
        ratio = _relative(change, size).astype(value.dtype).reshape(shape)
        scaled = (value + size.added) / ratio
    sums = along(scaled, change.on.axis, members)
    means = sums / counts.clip(1).reshape(shape)
    if size is not None:
        means = means - size.added
    several = (counts > 1).reshape(shape)
    return np.where(several, means, value).astype(value.dtype)


def _relative(change, size):
    """The size of each unit over that of its stand-in, shape (n,)."""
    of = np.where(size.of > 0, size.of, 1)
    return of / of[stand_ins_of(change)]


def _variances_of_means(graph, changes, size_of):
    """{id(moving variance): array} of BatchNormalizations behind the means.

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
        producer = producers.get(id(step.made_by))
        if change is not None and producer is not None and producer.linear:
            found[id(step.variance)] = _variance_of_means(
                step, producer, change, size_of(change)
            )
    return found


def _variance_of_means(step, producer, change, size):
    variance = read(step.variance)
    filters = columns_of(read(producer.kernel), producer.axis)
    norms = norms_along(filters, -1)
    deviations = np.sqrt(variance + step.epsilon)
    if size is not None:
        deviations = deviations / np.sqrt(_relative(change, size))
    deviations = deviations / np.where(norms > 0, norms, 1)
    members, counts = clusters_of(change, variance.dtype)
    sums = members @ (filters * deviations).T
    of_means = np.einsum("nz,nz->n", sums, sums) / counts.clip(1) ** 2
    of_means = (of_means - step.epsilon).clip(0)
    return np.where(counts > 1, of_means, variance).astype(variance.dtype)
