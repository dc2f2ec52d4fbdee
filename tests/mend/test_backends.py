"""TensorFlow and JAX give the same fits."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

BACKENDS = "tensorflow", "jax"


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the test runs both backends itself: once is enough",
)
def test_backends_give_the_same_fits(tmp_path):
    for backend in BACKENDS:
        pytest.importorskip(backend)
        path = tmp_path / f"{backend}.npz"
        command = [sys.executable, "-m", "tests.mend.mended_run", path]
        settings = os.environ | {"KERAS_BACKEND": backend}
        done = subprocess.run(
            command, env=settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, other = (np.load(tmp_path / f"{name}.npz") for name in BACKENDS)
    assert len(one.files) == len(other.files) > 8
    for name in one.files:
        scale = np.abs(one[name]).max()
        np.testing.assert_allclose(one[name], other[name], atol=1e-4 * scale)
