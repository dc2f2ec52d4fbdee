"""JAX compiles faster, for tests, which run what it compiles a few times.

It compiles each operation by itself, for each shape: that takes far longer
than to run it. To be imported before JAX starts.
"""

import atexit
import functools
import os
import subprocess
import sys
import tempfile

FLAGS = "XLA_FLAGS"
# XLA's older way to write code for a CPU takes a third of the time less.
OLDER_WAY = "--xla_cpu_use_fusion_emitters=false"


def set_environment():
    """For this process and those that it starts."""
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    # All processes of a run share what one of them has compiled.
    compiled = tempfile.TemporaryDirectory()
    atexit.register(compiled.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def add_flag():
    """For all processes, if this JAX knows it: XLA ends one that does not."""
    flags = os.environ.get(FLAGS, "")
    if OLDER_WAY in flags:
        return
    environment = os.environ | {FLAGS: f"{flags} {OLDER_WAY}".strip()}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(
        command, env=environment, capture_output=True, check=False
    )
    if not done.returncode:
        os.environ[FLAGS] = environment[FLAGS]


def share_context():
    """One context of MLIR for all that is compiled.

    To make one takes half of the time in which JAX lowers an operation.
    """
    from jax._src.interpreters import mlir

    mlir.make_ir_context = functools.cache(mlir.make_ir_context)
