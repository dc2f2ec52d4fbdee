"""Packages that only some functions need."""

import contextlib
import importlib.metadata
from collections.abc import Iterator

PACKAGE = "keras-redundancy"


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
        raise ImportError(f"{why}: pip install {_packages(extra)}.") from error


def _packages(extra):
    """What pip has to install: the packages of an extra, or the extra."""
    try:
        needed = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        needed = []
    ending = f'extra == "{extra}"'
    found = [x.partition(";")[0].strip() for x in needed if ending in x]
    return " ".join(f"'{x}'" for x in found or [f"{PACKAGE}[{extra}]"])
