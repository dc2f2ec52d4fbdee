"""Warnings that name the line of the caller's code that led to them."""

import sys
import warnings

# The first part of the names of modules that are nobody's own code.
BETWEEN = frozenset(
    {
        "keras_redundancy",
        "keras",
        "tensorflow",
        "jax",
        "torch",
        "contextlib",
        "functools",
    }
)


def warn(message: str) -> None:
    """Warn at the innermost line that belongs to no module of `BETWEEN`."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_between(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _is_between(frame):
    name = frame.f_globals.get("__name__") or ""
    return name.partition(".")[0] in BETWEEN
