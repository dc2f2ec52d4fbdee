"""Image data sets for the examples: bundled, from a folder, or downloaded.

Every loader returns (x_train, y_train), (x_test, y_test): images as float32
in [0, 1] of shape (n, height, width, channels), labels as integers.
"""

import os
from pathlib import Path

import keras
import numpy as np

NAMES = ("digits", "fashion_mnist", "mnist", "cifar10")
FOLDER = "KERAS_REDUNDANCY_DATA"


def add_arguments(parser):
    """--dataset and --data, what `load` takes, to an `ArgumentParser`."""
    parser.add_argument("--dataset", choices=NAMES, default="digits")
    parser.add_argument("--data", help="folder with NAME.npz files")


def load(name, folder=None):
    """The data set `name`.

    Args:
        name: one of `NAMES`. "digits" ships with scikit-learn.
        folder: where NAME.npz lies, with x_train, y_train, x_test, y_test as
            keras.datasets returns them. By default the folder named by the
            environment variable KERAS_REDUNDANCY_DATA; where neither is
            given, keras.datasets downloads the data.

    Raises:
        FileNotFoundError: a folder was given and has no such file, or the
            data cannot be downloaded.
    """
    if name == "digits":
        return _digits()
    folder = folder or os.environ.get(FOLDER)
    if folder:
        path = Path(folder) / f"{name}.npz"
        if not path.exists():
            raise FileNotFoundError(
                f"There is no {path}. Put a file with x_train, y_train, x_test "
                f"and y_test there, or leave out --data and unset {FOLDER} to "
                "download the data set with keras.datasets."
            )
        with np.load(path) as file:
            arrays = [
                (file[f"x_{part}"], file[f"y_{part}"])
                for part in ("train", "test")
            ]
    else:
        arrays = _downloaded(name)
    return [(_images(x), y.reshape(-1).astype("int32")) for x, y in arrays]


def _downloaded(name):
    try:
        return getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises nothing more precise.
        raise FileNotFoundError(
            f"keras.datasets cannot download {name} ({error}). Put {name}.npz, "
            "with x_train, y_train, x_test and y_test, in a folder, and pass "
            f"--data FOLDER or set {FOLDER}."
        ) from error


def _images(x):
    x = x.astype("float32") / 255
    return x if x.ndim == 4 else x[..., None]


def _digits():
    """1,797 handwritten digits of 8x8 pixels, every fourth one for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images / 16).astype("float32")[..., None]
    y = digits.target.astype("int32")
    test = np.arange(len(x)) % 4 == 3
    return (x[~test], y[~test]), (x[test], y[test])
