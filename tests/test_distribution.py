"""Models on several devices stay there."""

import json
import subprocess
import sys

import keras
import pytest

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() not in ("tensorflow", "jax"),
        reason="Keras distributes models with TensorFlow and JAX",
    ),
    # One worker runs the process for all of them.
    pytest.mark.xdist_group("distribution"),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Devices have to be made before all else: in a process of its own."""
    command = [sys.executable, "-m", "tests.distributed_run"]
    folder = tmp_path_factory.mktemp("distributed")
    done = subprocess.run(
        [*command, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("place", ["inside", "outside"])
@pytest.mark.parametrize(
    "name", ["prune", "data", "calibrate", "fit_and_prune"]
)
def test_smaller_models_are_where_the_model_was(name, place, said):
    """Their weights and slots, made inside of the scope or outside of it."""
    assert said["devices"] == [2]
    devices, units = said["found"][f"{name} {place}"]
    assert devices == [2]
    assert units == 6


def test_values_are_the_same_ones(said):
    assert said["unchanged"]
    assert said["error"] < 1e-6
    assert said["apart"] < 1e-4
    assert len(said["slots"]) > 2
    assert max(said["slots"]) == 0


def test_the_monitor_sees_a_batch_as_a_whole(said):
    assert len(said["zeros"]) == 2
