"""Cells of the tables that the examples print."""

import numpy as np


def spread(values, digits=2) -> str:
    """Mean and standard deviation of the numbers of several seeds."""
    values = np.array(values, float)
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"
