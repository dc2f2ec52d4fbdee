"""Folders that a caller names."""

import tempfile
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
