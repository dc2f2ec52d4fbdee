"""Runs the command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import keras_redundancy as kr

ROOT = Path(kr.__file__).parent.parent
# Of both packages in this checkout, whatever is installed.
PATHS = f"{ROOT}{os.pathsep}{ROOT / 'keras_redundancy' / 'entry'}"


def process(folder, *arguments):
    """What `subprocess.run` returns."""
    arguments = map(str, arguments)
    return subprocess.run(
        [sys.executable, "-m", "keras_redundancy_command", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": PATHS},
    )


def command(folder, *arguments):
    """Its exit code, what it printed, and what it said of errors."""
    done = process(folder, *arguments)
    said = done.stderr[done.stderr.find("keras-redundancy: error:") :]
    return done.returncode, done.stdout, said


def names(folder):
    return sorted(path.name for path in folder.iterdir())
