"""A bar for what takes long."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import keras


@contextlib.contextmanager
def progress(verbose: bool, count: int, unit: str) -> Iterator[Callable]:
    """A function to call after each of up to `count` units, for a bar.

    It is drawn on standard output, as those of `Model.fit`.
    """
    bar = keras.utils.Progbar(
        count, verbose=int(verbose and count > 0), unit_name=unit
    )
    numbers = itertools.count(1)
    # Else the last line would be there twice.
    yield lambda: bar.update(next(numbers), finalize=False)
    bar.update(count, finalize=True)
