"""Folders and files that a caller names."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def writable_folder(name: str, folder) -> Path:
    """A folder that files can be written to; it is made where there is none.

    Args:
        name: that of the argument.
        folder: a path.

    Raises:
        ValueError: it is none, or cannot be written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise ValueError(
            f"{name}={str(folder)!r} has to be a folder to write to: {error}"
        ) from error
    return path


@contextlib.contextmanager
def replaced(path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when it is whole.

    If writing fails, nothing is left of it, and `path` is what it was.

    Raises:
        OSError: the folder is not there, or cannot be written to.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        fresh = Path(folder) / path.name
        yield fresh
        os.replace(fresh, path)
