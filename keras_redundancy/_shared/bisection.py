"""Bisection of intervals of real numbers.

For indices, the standard library has `bisect` with its `key=`.
"""

from collections.abc import Callable


def bisected(
    holds: Callable[[float], bool], good: float, bad: float, steps: int
) -> tuple[float, float]:
    """Two numbers between which `holds` turns from true to false.

    Args:
        holds: a function of a number: true on one side of some number, false
            on the other.
        good, bad: the ends of the interval: one on the side where `holds` is
            true, one on the other side. `holds` is not called with them.
        steps: how often the interval is halved.

    Returns:
        (the last number found where it holds, the last where it does not).
    """
    for _ in range(steps):
        middle = (good + bad) / 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good, bad
