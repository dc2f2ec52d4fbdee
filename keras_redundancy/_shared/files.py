"""Folders and files that a caller names."""

import contextlib
import errno
import os
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
def replaced(path, *, of_model: bool = False) -> Iterator[Path]:
    """A temporary path to write to; in the end it replaces `path`.

    If writing fails, `path` is unchanged and what was written is deleted. Of
    a symbolic link, the file that it leads to is replaced.

    Args:
        path: a file; with `of_model`, the folder of a SavedModel as well.
        of_model: whether such a folder may be replaced.

    Raises:
        OSError: the path is another folder; or the folder that it is in does
            not exist, or cannot be written to.
    """
    require_no_folder(path, of_model=of_model)
    path = Path(os.path.realpath(path))
    try:
        beside = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError as error:
        words = f"{str(path)!r} cannot be written to: {error.strerror}"
        raise OSError(error.errno, words) from error
    with beside as folder:
        fresh = Path(folder) / path.name
        yield fresh
        if path.is_dir():
            os.replace(path, Path(folder) / f"{path.name}.old")
        os.replace(fresh, path)


def require_no_folder(path, *, of_model: bool = False) -> None:
    """Raise for a folder where a file is to be written.

    Args:
        path: a path.
        of_model: whether it may be the folder of a SavedModel, or empty.

    Raises:
        IsADirectoryError: it is a folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    if of_model and (is_saved_model(folder) or not any(folder.iterdir())):
        return
    advice = "a SavedModel" if of_model else "a file"
    raise IsADirectoryError(
        errno.EISDIR,
        f"{str(path)!r} is a folder, and what is in it would be lost. Name "
        f"{advice} in it, or choose another path",
    )


def is_saved_model(folder: Path) -> bool:
    """Whether a folder is that of a SavedModel."""
    return (folder / "saved_model.pb").is_file()


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
