"""What units are compared and ranked by: weights, or activations."""

import functools

import numpy as np
from scipy import linalg

from keras_redundancy.channels.labels import Normalized, Shifted
from keras_redundancy.pruning.filters import (
    carried,
    joined_filters,
    kernel_matrix,
    read,
)
from keras_redundancy.pruning.selection import RANKS, Units
from keras_redundancy.regression import (
    rank_by_outputs,
    rank_by_pivots,
    varies,
)

CRITERIA = ("filters", "folded", "activations")


def units_of(space, criterion: str, select: str, graph, statistics) -> Units:
    """The units of a space, as `select` has to know them.

    Args:
        space: the space.
        criterion: one of `CRITERIA`.
        select: a key of `SELECTORS`.
        graph: the traced model.
        statistics: those of the calibration data, or None.

    Raises:
        ValueError: a kernel holds NaN or infinity.
    """
    views = statistics.of_space(space) if statistics is not None else []
    known = functools.partial(carried, space)
    if criterion == "activations" and views:
        filters = np.concatenate([_roots(view, own) for view, own in views])
        norms = np.linalg.norm(filters, axis=0)
        known = functools.partial(_constants, views)
    else:
        fold = _folding(graph) if criterion == "folded" else None
        filters, norms = joined_filters(space, fold)
    ranking = None
    if select in RANKS:
        ranking = RANKS[select](filters)
    elif select == "pivoted" and views:
        ranking = rank_by_pivots(*_joined_views(views), len(views))
    elif select == "greedy" and views:
        ranking = rank_by_outputs(
            [
                (view.moments.part(own).covariance, reads_of(view, own))
                for view, own in views
            ]
        )
    return Units(filters, norms, known, ranking)


def _roots(view, own):
    """Columns whose cosines are the correlations of the units: (n, n)."""
    covariance = view.moments.part(own).covariance
    values, vectors = linalg.eigh(covariance)
    roots = np.sqrt(values.clip(0))[:, None] * vectors.T
    roots[:, ~varies(np.diag(covariance))] = 0
    return roots / (np.sqrt(np.trace(covariance)) or 1)


def _constants(views, units):
    """What units that do not vary always are, shape (units, views)."""
    means = [view.moments.mean[own[units]] for view, own in views]
    return np.float32(means).T


def _joined_views(views):
    """One covariance for all consumers, and how strongly they read units."""
    n = len(views[0][1])
    total = np.zeros((n, n))
    for view, own in views:
        covariance = view.moments.part(own).covariance
        strength = np.diag(reads_of(view, own))
        scale = (np.diag(covariance) * strength).sum()
        if scale > 0:
            strength = np.sqrt(strength / scale)
            total += covariance * strength * strength[:, None]
    return total, np.ones(n)


def reads_of(view, own):
    """W W^T of the kernel that reads the units as W^T x, shape (n, n)."""
    kernel = kernel_matrix(view.on).T
    return sum(
        part @ part.T
        for part in (
            kernel[column].astype(float) for column in view.positions[own].T
        )
    )


def _folding(graph):
    """A function of a producer's axis and kernel matrix, for `joined_filters`.

    What the next layer sees of a unit: its filter with the bias below it,
    and both times what a BatchNormalization directly behind makes of them.
    """
    shifted = {
        (id(step.kernel), step.axis): step
        for step in graph.steps
        if isinstance(step, Shifted)
    }
    normalized = {
        id(step.after): step
        for step in graph.steps
        if isinstance(step, Normalized) and step.after is not None
    }

    def fold(on, kernel):
        n = kernel.shape[1]
        factor, offset = np.ones(n, kernel.dtype), np.zeros(n, kernel.dtype)
        shift = shifted.get((id(on.variable), on.axis))
        if shift is None:
            return kernel
        if shift.bias is not None:
            offset = read(shift.bias)
        step = normalized.get(id(shift.layer)) if shift.linear else None
        if step is not None:
            factor = 1 / np.sqrt(read(step.variance) + step.epsilon)
            if step.gamma is not None:
                factor = factor * read(step.gamma)
            offset = (offset - read(step.mean)) * factor
            if step.beta is not None:
                offset = offset + read(step.beta)
        return np.vstack([kernel * factor, offset])

    return fold
