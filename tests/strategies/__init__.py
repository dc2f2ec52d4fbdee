"""Random small graphs, drawn by hypothesis.

A graph is a list of steps on a pool of images of the same height and width,
or of sequences of the same length, so that any two of them can be combined.
A step is a function of a `Builder`, two tensors of the pool and a width.
"""

from hypothesis import strategies as st

from tests.strategies import combined, kernels, moved, pointwise, sequences
from tests.strategies.builder import build, build_sequences
from tests.strategies.inexact import INEXACT
from tests.strategies.pointwise import POINTWISE
from tests.strategies.tensors import padding_apart

__all__ = [
    "EXACT",
    "HOMOGENEOUS",
    "INEXACT",
    "POINTWISE",
    "SEQUENCES",
    "build",
    "build_sequences",
    "heads",
    "padding_apart",
    "seeds",
    "steps_of",
]

EXACT = kernels.KERNELS + POINTWISE + moved.MOVED + combined.COMBINED
# Between these kernels nothing is but f with f(s x) = s f(x), s > 0, and what
# scales with x: copies w and s w go as well as w and w.
HOMOGENEOUS = [
    step
    for module in (kernels, pointwise, moved, combined)
    for step in module.HOMOGENEOUS
]
SEQUENCES = [
    *EXACT,
    *3 * [*sequences.RECURRENT, *sequences.ATTENTION, sequences.over_time],
]

seeds = st.integers(0, 2**31 - 1)


heads = st.sampled_from(["flatten", "pool", "map"])


def steps_of(*tables):
    """Lists of (step, place of x in the pool, place of y, width)."""
    step = st.tuples(
        st.sampled_from([step for table in tables for step in table]),
        st.integers(0, 50),
        st.integers(0, 50),
        st.integers(5, 9),
    )
    return st.lists(step, min_size=2, max_size=7)
