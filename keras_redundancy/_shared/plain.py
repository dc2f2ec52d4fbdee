"""Values as JSON can hold them."""

from collections.abc import Mapping

import keras
import numpy as np

# Kinds of NumPy's dtypes that `tolist` turns into Python's own.
NUMBERS_AND_TEXT = "biufU"


def plain(value):
    """A value made of what JSON knows: numbers, strings, lists and dicts.

    NumPy's numbers and arrays, and tensors, become numbers and lists. What
    can be none of these becomes its `str`.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    try:
        if keras.ops.is_tensor(value):
            value = keras.ops.convert_to_numpy(value)
        array = np.asarray(value)
        if array.dtype.kind not in NUMBERS_AND_TEXT:
            array = array.astype(float)  # E.g. of bfloat16.
    except (TypeError, ValueError):
        return str(value)
    return array.tolist()
