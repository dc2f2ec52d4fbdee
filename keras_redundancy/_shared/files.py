"""Folders and files that a caller names."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def writable_folder(name: str, folder) -> Path:
    """A folder to write files to; it is created if it does not exist.

    Args:
        name: the argument's name, for messages.
        folder: a path.

    Raises:
        ValueError: the path is no folder, or cannot be written to.
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
    """A temporary path to write to, a file or a folder; it replaces `path`.

    If writing fails, `path` is unchanged and the temporary file is deleted.

    Raises:
        OSError: the folder does not exist, or cannot be written to.
    """
    path = Path(path)
    try:
        beside = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError as error:
        words = f"{str(path)!r} cannot be written to: {error.strerror}"
        raise OSError(error.errno, words) from error
    with beside as folder:
        fresh = Path(folder) / path.name
        yield fresh
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(fresh, path)


def require_folder(path: Path) -> None:
    """Raise unless the folder of a file is there.

    Raises:
        ValueError: it is not.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {str(folder)!r} to write {path.name!r} to. "
            "Make it, or choose another path."
        )
