"""Results that are kept in a file as soon as they are known."""

import hashlib
import json
from pathlib import Path

import numpy as np


class Results:
    """Numbers by name, in a JSON file: what is in there is not found anew."""

    def __init__(self, path: Path, of: str | None = None):
        """Read the file, if there is one.

        Args:
            path: that of the file.
            of: says what the results are of, such as a `digest`.

        Raises:
            ValueError: the file holds results of something else.
        """
        self._path = path
        self._kept = {} if of is None else {"of": of}
        if path.exists():
            kept = json.loads(path.read_text())
            if of is not None and kept.get("of") != of:
                raise ValueError(
                    f"{str(path)!r} holds results of another model or of "
                    "other data. Pass another folder as --out."
                )
            self._kept = kept

    def result(self, *key, find):
        """What `find()` returns, or what it returned before."""
        key = " / ".join(map(str, key))
        if key not in self._kept:
            self._kept[key] = find()
            self._path.write_text(json.dumps(self._kept, indent=1))
        return self._kept[key]


def digest(arrays) -> str:
    """A few letters that differ if any of the numbers does."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]
