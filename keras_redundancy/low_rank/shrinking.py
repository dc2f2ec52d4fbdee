"""Make the kernel W of a factorized layer as small as the part in use."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy.low_rank.sides import SIDES, SIZES


class InUse(NamedTuple):
    """The rows and columns of W that P and Q use.

    Attributes:
        arrays: the rows and columns in use of each variable asked for.
        indices: {side: for each input or unit, the row or column of these
            arrays that it uses}, of the sides that are factorized.
    """

    arrays: list[np.ndarray]
    indices: dict[str, np.ndarray]


def in_use(layer, variables) -> InUse:
    """The part in use of variables of the shape of W, such as W itself."""
    arrays = [np.array(ops.convert_to_numpy(x)) for x in variables]
    indices = {}
    for side in layer.sides:
        index, _ = layer.factor(side)
        used, indices[side] = np.unique(index, return_inverse=True)
        arrays = [np.take(x, used, axis=SIDES[side]) for x in arrays]
    return InUse(arrays, indices)


def shrink(layer, optimizer=None) -> bool:
    """Make W as small as the part in use, in place.

    The layer computes what it did before. A model that was compiled with it
    has to compile its functions again.

    Args:
        layer: a `Factorized` layer.
        optimizer: the optimizer that trains it, whose slots shrink too.

    Returns:
        Whether W was made smaller: it is not if a slot of the optimizer has
        another shape than the kernel, so that its rows are not known.
    """
    slots = [slot for slot, _ in _keras.slots(optimizer, layer.kernel)]
    shape = tuple(layer.kernel.shape)
    if any(tuple(slot.shape) != shape for slot in slots):
        return False
    variables = [layer.kernel, *slots]
    arrays, indices = in_use(layer, variables)
    for side, index in indices.items():
        layer.factor_variables(side)[0].assign(index)
        setattr(layer, SIZES[side], arrays[0].shape[SIDES[side]])
    for variable, array in zip(variables, arrays, strict=True):
        _keras.resize(variable, array, optimizer)
    kept = layer.kept_pairs
    if kept is not None:
        _keras.resize(kept.pairs, kept.empty(layer.kernel))
        kept.age.assign(0)
    return True
