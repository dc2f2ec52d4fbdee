"""The kinds of numbers in calibration data: text is for inputs of text."""

import keras
import numpy as np

STRINGS = "OSU"  # The kinds of NumPy's dtypes that hold text.


class WrongKindError(ValueError):
    """Data are of a dtype that an input of the model does not take."""


def require_kinds(inputs, data) -> None:
    """Raise `WrongKindError` for text or complex numbers that do not fit.

    Args:
        inputs: those of the model.
        data: arrays for them, in their order or structure.
    """
    arrays = keras.tree.flatten(data)
    if len(arrays) != len(inputs):
        return  # Which is refused elsewhere.
    for x, array in zip(inputs, arrays, strict=True):
        words = str(getattr(array, "dtype", ""))
        is_array = isinstance(array, np.ndarray)
        is_text = "string" in words
        is_text = is_text or (is_array and array.dtype.kind in STRINGS)
        wanted = str(x.dtype)
        wrong = is_text and wanted != "string"
        if wrong or ("complex" in words and "complex" not in wanted):
            raise WrongKindError(
                f"data has the dtype {words} for the input {x.name!r}, which "
                f"takes {wanted}. Pass numbers, as the model was trained on: "
                f"data.astype({wanted!r}) makes them of text and objects that "
                "are numbers."
            )
