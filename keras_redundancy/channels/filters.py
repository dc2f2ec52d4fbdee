"""The filters of a space's units: what the units are compared by."""

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.tables import listed
from keras_redundancy.channels import Role
from keras_redundancy.channels.labels import Constant


def read(variable) -> np.ndarray:
    """The value of a Keras variable as a float32 or float64 array.

    Do not write to the array: it can be the variable's own memory. Of a
    `Constant`, its value is returned.
    """
    if isinstance(variable, Constant):
        return variable.value
    # On TensorFlow, convert_to_numpy(variable) copies twice.
    value = _keras.as_array(keras.ops.stop_gradient(variable))
    if value.dtype in (np.float32, np.float64):
        return value
    return value.astype(np.float32)


def finite_kernel_matrix(axis) -> np.ndarray:
    """The kernel that `axis` belongs to, as a matrix of shape (z, n).

    The n units of the axis are its columns: one filter of z weights each.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    matrix = kernel_matrix(axis)
    _require_finite(matrix, axis.layer)
    return matrix


def kernel_matrix(axis):
    return columns_of(read(axis.variable), axis.axis)


def columns_of(kernel, axis):
    size = kernel.shape[axis]
    return np.moveaxis(kernel, axis, -1).reshape(-1, size)


def norms_along(kernel, axis: int) -> np.ndarray:
    """Euclidean norms of what is at each place of `axis`, shape (n,)."""
    matrix = columns_of(kernel, axis)
    return np.sqrt(np.einsum("zi,zi->i", matrix, matrix))


def joined_filters(space, fold=None) -> tuple[np.ndarray, np.ndarray]:
    """The filters of a space's units, and their norms.

    With several producers (a residual stream) each unit's filters are
    stacked, each producer's kernel divided by its Frobenius norm. So all
    producers count alike, and two units are parallel only if their filters
    are multiples by the same factor in all producers.

    Args:
        space: the space.
        fold: a function of a producer's axis and kernel matrix (z, n) that
            returns the matrix to compare in its place.

    Returns:
        The filters, shape (z, units), one per column, and the norms of the
        units' weights before any normalisation, shape (units,).

    Raises:
        ValueError: a kernel holds NaN or infinity.
    """
    parts, norms = [], []
    for place in space.axes_of(Role.PRODUCER):
        kernel = kernel_matrix(place.on)
        lengths = norms_along(kernel, -1)
        if not np.isfinite(lengths).all():
            _require_finite(kernel, place.on.layer)
        if fold is not None:
            kernel = fold(place.on, kernel)
            lengths = norms_along(kernel, -1)
        for column in place.positions.T:
            parts.append(_columns(kernel, column))
            norms.append(lengths[column])
    if len(parts) == 1:
        return parts[0], norms[0]
    norms = np.stack(norms)
    totals = np.linalg.norm(norms, axis=1)
    weighted = np.concatenate(parts)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    for rows, total in zip(np.split(weighted, ends), totals, strict=True):
        rows /= total or 1
    return weighted, np.linalg.norm(norms, axis=0)


def _columns(matrix, numbers):
    if np.array_equal(numbers, np.arange(matrix.shape[1])):
        return matrix
    return np.take(matrix, numbers, axis=1)


def _require_finite(numbers, layer, what="filters"):
    """`numbers` has a column for each unit of `layer`."""
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=0))
    if len(bad):
        raise ValueError(
            f"The layer {layer.name!r} has NaN or infinite weights in "
            f"{len(bad)} of its {numbers.shape[1]} {what} "
            f"({listed(bad, 5)}): they "
            "cannot be compared. Restore the weights from a checkpoint from "
            "before the training diverged."
        )


def require_finite_carriers(spaces) -> None:
    """Raise unless the values of all carriers of the spaces are finite.

    Raises:
        ValueError: a bias, a BatchNormalization or another carrier holds NaN
            or infinity.
    """
    carriers = {
        id(place.on.variable): place.on
        for space in spaces
        for place in space.axes_of(Role.CARRIER)
    }
    for axis in carriers.values():
        value = read(axis.variable)
        if not np.isfinite(value).all():
            _require_finite(value[None], axis.layer, axis.variable.name)


def scales_of(space, units) -> np.ndarray:
    """The gammas of each `BatchNormalization` of a space, (layers, units)."""
    found = [
        read(place.on.variable)[place.positions[units]].T
        for place in space.axes_of(Role.CARRIER)
        if isinstance(place.on.layer, keras.layers.BatchNormalization)
        and place.on.variable is place.on.layer.gamma
    ]
    return np.concatenate(found) if found else np.empty((0, len(units)))


def carried(space, units) -> np.ndarray:
    """The values of the space's carriers, shape (units, numbers).

    Args:
        space: the space.
        units: numbers of the units to return them for.
    """
    rows = [np.zeros((len(units), 1))]
    for place in space.axes_of(Role.CARRIER):
        value = np.moveaxis(read(place.on.variable), place.on.axis, 0)
        rows.append(value[place.positions[units]].reshape(len(units), -1))
    return np.concatenate(rows, axis=1)
