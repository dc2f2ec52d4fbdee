"""Packages that only some functions need."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needing(extra: str, why: str) -> Iterator[None]:
    """Say how to install a package that an import in this context misses.

    Args:
        extra: the extra of this package that brings it along.
        why: what it is needed for, the beginning of the message.

    Raises:
        ImportError: an import has failed.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{why}: pip install 'keras-redundancy[{extra}]'."
        ) from error
