"""Progress bars."""

import contextlib
import contextvars
import itertools
from collections.abc import Callable, Iterator, Sequence

import keras

_shows = contextvars.ContextVar("shows progress bars", default=False)


@contextlib.contextmanager
def showing(verbose: bool) -> Iterator[None]:
    """Draw the bars of all that goes on in the block, or none of them.

    A bar outside of any such block is not drawn.
    """
    token = _shows.set(bool(verbose))
    try:
        yield
    finally:
        _shows.reset(token)


@contextlib.contextmanager
def progress(
    verbose: bool | None, count: int | None, unit: str
) -> Iterator[Callable]:
    """Draw a progress bar on standard output, as `Model.fit` does.

    Args:
        verbose: whether to draw; None: as `showing` says.
        count: the number of steps, at most; None where it is not known.
        unit: what a step is, for the bar's text.

    Yields:
        A function to call after each step.
    """
    shows = (_shows.get() if verbose is None else verbose) and count != 0
    bar = keras.utils.Progbar(count, verbose=int(shows), unit_name=unit)
    numbers = itertools.count(1)
    # finalize=False: otherwise Keras prints the last line twice.
    yield lambda: bar.update(next(numbers), finalize=False)
    if count is None:
        bar.target = count = next(numbers) - 1
    bar.update(count, finalize=True)


def tracked(items: Sequence, unit: str) -> Iterator:
    """The items, with a progress bar as `showing` says."""
    with progress(None, len(items), unit) as done:
        for item in items:
            yield item
            done()
