"""Models on several devices stay there."""

import json
import subprocess
import sys

import keras
import pytest


@pytest.mark.skipif(
    keras.backend.backend() not in ("tensorflow", "jax"),
    reason="Keras distributes models with TensorFlow and JAX",
)
def test_models_on_two_devices(tmp_path):
    """One test: the process that makes two devices takes long to run."""
    command = [sys.executable, "-m", "tests.distributed_run", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["devices"] == [2]
    # Smaller models are where the model was: their weights and slots, made
    # inside of the scope or outside of it.
    assert said["found"] == {
        f"{name} {place}": [[2], 6]
        for name in ("prune", "data", "calibrate", "fit_and_prune")
        for place in ("inside", "outside")
    }
    assert_values_are_the_same_ones(said)
    # Batches that mending looks at are spread over both.
    assert len(said["walk"]) == 2
    if keras.backend.backend() == "tensorflow":
        assert_vectors_are_fused(**said["fused"])
    # The monitor sees a batch as a whole.
    assert len(said["zeros"]) == 2
    assert set(said["differences"]) == {"mended", "distilled", "trained"}
    # Distilling takes Adam, which makes of a difference in the last digit one
    # of its step.
    assert said["differences"].pop("distilled") < 1e-3
    assert max(said["differences"].values()) < 1e-5


def assert_vectors_are_fused(sizes, parameters, error):
    assert sum(sizes) < 8 * 12 + 12 * 12 + 12 * 3
    assert len(parameters) == 4
    assert parameters[-1] < parameters[0]
    # Shapes cannot change on two devices.
    assert "on 2 devices" in error


def assert_values_are_the_same_ones(said):
    assert said["unchanged"]
    assert said["error"] < 1e-6
    assert said["apart"] < 1e-4
    assert len(said["slots"]) > 2
    assert max(said["slots"]) == 0
