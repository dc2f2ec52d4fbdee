"""A progress bar."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import keras


@contextlib.contextmanager
def progress(verbose: bool, count: int, unit: str) -> Iterator[Callable]:
    """Draw a progress bar on standard output, as `Model.fit` does.

    Args:
        verbose: whether to draw.
        count: the number of steps, at most.
        unit: what a step is, for the bar's text.

    Yields:
        A function to call after each step.
    """
    bar = keras.utils.Progbar(
        count, verbose=int(verbose and count > 0), unit_name=unit
    )
    numbers = itertools.count(1)
    # finalize=False: otherwise Keras prints the last line twice.
    yield lambda: bar.update(next(numbers), finalize=False)
    bar.update(count, finalize=True)
