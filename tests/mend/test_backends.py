"""All backends give the same fits."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.mend import mended_run

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the test runs all backends itself: once is enough",
)


def fits(backend, folder):
    """{name: weights} of a mended model, made in a process of its own."""
    path = folder / f"{backend}.npz"
    command = [sys.executable, "-m", "tests.mend.mended_run", path]
    settings = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(
        command, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = tmp_path_factory.mktemp("fits") / "tensorflow.npz"
    mended_run.main(path)
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backends_give_the_same_fits(backend, expected, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = fits(backend, tmp_path)
    assert len(found) == len(expected) > 8
    for name in expected:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            found[name], expected[name], atol=1e-4 * scale
        )
