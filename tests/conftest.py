import gc
import os
import re
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS"),
)
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process for every core: more threads only wait for another.
    for name in THREADS:
        os.environ.setdefault(name, "1")

from tests import faster_jax  # noqa: E402

faster_jax.set_environment()

import keras  # noqa: E402
import pytest  # noqa: E402

if keras.backend.backend() == "jax":
    faster_jax.add_flag()
    faster_jax.share_context()

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # To optimise the graph of a function takes longer than to run it as it is.
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}
    )
    make_train_function = keras.Model.make_train_function

    def _with_built_optimizer(model, force=False):
        # TensorFlow traces a step twice if the first time makes variables.
        optimizer = model.optimizer
        is_whole = all(layer.built for layer in model._flatten_layers())
        if is_whole and optimizer is not None and not optimizer.built:
            with model.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)
        return make_train_function(model, force)

    keras.Model.make_train_function = _with_built_optimizer

TESTS = Path(__file__).parent
SAMPLED = re.compile(
    # Numbers in, numbers out, by NumPy alone; files of code.
    "numbers/|shared/|rooms"
    # The graph, and what is said of it.
    "|_rules|correspondence|explain|hidden_widths|trace|bad_input|hostile"
    # Data, plans, and what is made of them.
    "|calibration/|evaluation/|noise_out/|planning/|inner_reads|attention_data"
    "|building/test_shifts"
    "|test_low_rank|dynamic_low_rank|refit|optimizer_state|fit_and_prune"
    # Mending, but for the test that compares the backends.
    "|mend/(?!test_backends)"
    # What is shown of them.
    "|reports/|deploy/|command_line|examples|guides|papers|readme"
)
# Many tests of a kind, of layers and models that each backend computes.
MORE_SAMPLED = re.compile(
    "channels/test_(activations|inside|tied)|test_(prune|properties|traps)"
    "|building/test_(rebuild|model_classes|stock_forms|closing)"
    "|low_rank/test_(regularizers|frobenius|factorized|units_axes|apply_rare)"
)


def pytest_addoption(parser):
    parser.addoption(
        "--all-applications",
        action="store_true",
        help="test all 40 keras.applications, not some that stand for them",
    )
    parser.addoption(
        "--sample",
        type=int,
        default=1,
        help="run one of so many tests of some files: they test what is the "
        "same on every backend, and JAX takes seconds for each model; of some "
        "more nine times as many; on PyTorch one of so many of all files but "
        "that about PyTorch",
    )


def _name(item):
    """The path of its file below this folder, as numbers/test_rank.py."""
    return item.path.relative_to(TESTS).as_posix()


def _one_of(name, count):
    """One of how many tests of a file is run, where `count` is asked for."""
    if keras.backend.backend() == "torch":
        return 1 if name == "test_torch.py" else count
    if SAMPLED.search(name):
        return count
    return max(count // 9, 1) if MORE_SAMPLED.search(name) else 1


def pytest_collection_modifyitems(config, items):
    # Chosen by their names: a test more elsewhere leaves the sample as it is.
    count = config.getoption("--sample")
    left_out = {
        id(x)
        for x in items
        if zlib.crc32(x.nodeid.encode()) % _one_of(_name(x), count)
    }
    if left_out:
        config.hook.pytest_deselected(
            items=[x for x in items if id(x) in left_out]
        )
        items[:] = [x for x in items if id(x) not in left_out]


def pytest_collection_finish(session):
    # What is imported by now stays. Looking through it for what can be freed
    # takes a third of a second, and would be done several times in each test.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def stock_keras():
    """One `StockKeras` for all tests: it takes seconds to start."""
    from tests.stock import StockKeras

    stock = StockKeras()
    yield stock
    stock.end()


@pytest.fixture(autouse=True, scope="module")
def _unused_freed():
    """What a file's tests leave behind is freed, or looked through no more."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same weights and the same layer names."""
    keras.utils.set_random_seed(0)
    keras.backend.clear_session(free_memory=False)
