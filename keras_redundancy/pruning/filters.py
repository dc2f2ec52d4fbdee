"""Compare: the filters of a space's units, and their clusters."""

import dataclasses

import keras
import numpy as np

from keras_redundancy.channels import Role
from keras_redundancy.channels.labels import Constant
from keras_redundancy.clustering import cluster_filters


def read(variable) -> np.ndarray:
    """The value of a Keras variable as a float32 or float64 array.

    A `Constant` is read as it is.
    """
    if isinstance(variable, Constant):
        return variable.value
    value = np.asarray(keras.ops.convert_to_numpy(variable))
    if value.dtype in (np.float32, np.float64):
        return value
    return value.astype(np.float32)


def finite_kernel_matrix(axis) -> np.ndarray:
    """The kernel that `axis` belongs to, as a matrix of shape (z, n).

    The n units of the axis are its columns: one filter of z weights each.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    kernel = read(axis.variable)
    size = kernel.shape[axis.axis]
    matrix = np.moveaxis(kernel, axis.axis, -1).reshape(-1, size)
    _require_finite(matrix, axis.layer)
    return matrix


def joined_filters(space) -> tuple[np.ndarray, np.ndarray]:
    """The filters of a space's units, and their norms.

    With several producers (a residual stream) each unit's filters are
    stacked, each producer's kernel divided by its Frobenius norm, so that
    all producers count alike and units are parallel only where they are so
    in all producers, by the same factor.

    Returns:
        The filters, shape (z, units), one per column, and the norms of the
        units' weights before any normalisation, shape (units,).

    Raises:
        ValueError: a kernel holds NaN or infinity.
    """
    parts = []
    for place in space.axes_of(Role.PRODUCER):
        kernel = finite_kernel_matrix(place.on)
        parts += [_columns(kernel, column) for column in place.positions.T]
    norms = [np.linalg.norm(part, axis=0) for part in parts]
    if len(parts) == 1:
        return parts[0], norms[0]
    norms = np.stack(norms)
    totals = np.linalg.norm(norms, axis=1)
    weighted = [
        part / (total or 1) for part, total in zip(parts, totals, strict=True)
    ]
    return np.concatenate(weighted), np.linalg.norm(norms, axis=0)


def _columns(matrix, numbers):
    if np.array_equal(numbers, np.arange(matrix.shape[1])):
        return matrix
    return matrix[:, numbers]


def _require_finite(numbers, layer, what="filters"):
    """`numbers` has a column for each unit of `layer`."""
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=0))
    if len(bad):
        shown = ", ".join(map(str, bad[:5])) + (", ..." * (len(bad) > 5))
        raise ValueError(
            f"The layer {layer.name!r} has NaN or infinite weights in "
            f"{len(bad)} of its {numbers.shape[1]} {what} ({shown}): they "
            "cannot be compared. Restore the weights from a checkpoint from "
            "before the training diverged."
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """The units of a space, compared.

    Attributes:
        filters: joined filters, shape (z, n).
        norms: Euclidean norms of the units' weights as they are, shape (n,).
        labels: integer cluster of each unit, shape (n,).
    """

    filters: np.ndarray
    norms: np.ndarray
    labels: np.ndarray


def compare(space, tau: float, linkage: str) -> Comparison:
    """Cluster the units of a space by the cosine of their filters.

    A zero filter has no direction. Such units are redundant to one another
    only where all else about them (bias, BatchNormalization) is equal too.

    Raises:
        ValueError: a kernel holds NaN or infinity.
    """
    filters, norms = joined_filters(space)
    for place in space.axes_of(Role.CARRIER):
        variable = place.on.variable
        _require_finite(read(variable)[None], place.on.layer, variable.name)
    labels = cluster_filters(filters, tau, linkage)
    zero = np.flatnonzero(norms == 0)
    if len(zero) > 1:
        _, alike = np.unique(_carried(space, zero), axis=0, return_inverse=True)
        labels[zero] = labels.max() + 1 + alike.reshape(-1)
    return Comparison(filters, norms, labels)


def _carried(space, units):
    """What the space's carriers hold for `units`, shape (units, numbers)."""
    rows = [np.zeros((len(units), 1))]
    for place in space.axes_of(Role.CARRIER):
        value = np.moveaxis(read(place.on.variable), place.on.axis, 0)
        rows.append(value[place.positions[units]].reshape(len(units), -1))
    return np.concatenate(rows, axis=1)
