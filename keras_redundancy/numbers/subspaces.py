"""How much two layers say the same: `svcca`."""

from __future__ import annotations  # help() shows the names of types.

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_redundancy.numbers.rank import energy_rank


def svcca(A: ArrayLike, B: ArrayLike, energy: float = 0.99) -> NDArray:
    """Correlations of two layers' activations on the same samples.

    Of each layer's activations, the principal directions that hold `energy` of
    the variance are kept. The canonical correlations of the two sets of
    directions are returned. Their mean is 1 if one layer is a linear map of
    the other.

    Args:
        A, B: shapes (samples, units), or (samples, ..., channels), whose
            positions count as samples then. As many samples in both, more
            than units.
        energy: share of the variance, in (0, 1].

    Returns:
        Correlations in [0, 1], descending: as many as the smaller set has
        directions.

    Raises:
        TypeError: `energy` is no number, or A or B do not hold real numbers.
        ValueError: A and B differ in their number of samples, or one of them
            has no more samples than units, no variance, or NaN or infinity.

    Source: Raghu et al., SVCCA (2017), section 2.
    """
    bases = []
    for name, activations in (("A", A), ("B", B)):
        matrix = _as_samples(name, activations)
        U, values, _ = np.linalg.svd(
            matrix - matrix.mean(axis=0), full_matrices=False
        )
        count = energy_rank(values, energy)
        if count == 0:
            raise ValueError(
                f"{name} is the same for all samples, so it correlates with "
                "nothing. Pass other samples, or another layer."
            )
        bases.append(U[:, :count])
    if len(bases[0]) != len(bases[1]):
        raise ValueError(
            f"A has {len(bases[0])} samples and B has {len(bases[1])}, but "
            "they have to be what two layers make of the same ones."
        )
    found = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return np.clip(found, 0, 1)


def _as_samples(name, activations):
    array = np.asarray(activations)
    if array.dtype.name == "bfloat16":  # NumPy has no number of that kind.
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} has dtype {array.dtype}, but activations are real "
            "numbers. Pass what model.predict(x) returns."
        )
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape}, but has to have samples and "
            "units: what model.predict(x) returns."
        )
    matrix = array.reshape(-1, array.shape[-1]).astype(np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} holds NaN or infinity.")
    if len(matrix) <= matrix.shape[1]:
        raise ValueError(
            f"{name} has {len(matrix)} samples of {matrix.shape[1]} units, "
            "which always correlate. Pass more samples than units."
        )
    return matrix
