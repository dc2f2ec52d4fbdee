"""The example scripts run."""

import contextlib
import io
import runpy
import subprocess
import sys
import types
from pathlib import Path

import example_data
import keras
import numpy as np
import pytest
import quickstart
from example_results import Results, digest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run_here(tmp_path, monkeypatch, capfd):
    """Runs a script in this process, for one takes seconds to start.

    Returns what it printed.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(path, *arguments):
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        # That of a script comes first when Python runs it.
        monkeypatch.syspath_prepend(Path(path).parent)
        runpy.run_path(str(path), run_name="__main__")
        return capfd.readouterr().out

    return run


def run_in_this_process(command, **options):
    """In place of `subprocess.run`, for a script that starts scripts."""
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patched,
        contextlib.redirect_stdout(printed),
    ):
        patched.setattr(sys, "argv", command[1:])
        runpy.run_path(command[1], run_name="__main__")
    if "stdout" not in options:
        print(printed.getvalue())
    return types.SimpleNamespace(stdout=printed.getvalue())


def test_quickstart(tmp_path, run_here):
    printed = run_here(
        ROOT / "examples/quickstart.py",
        *("--epochs", 1, "--tune", 1, "--tau", 0.5, "--target", 0.5),
    )
    assert "Redundancy of 'quickstart'" in printed
    header = next(x for x in printed.splitlines() if "fine-tuned" in x)
    assert header.split()[:3] == ["cut", "by", "params"]
    assert "50%, with data" in printed
    assert "opened without keras_redundancy" in printed
    assert (tmp_path / "small.keras").exists()


def test_a_folder_is_read(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "mnist.npz",
        x_train=rng.integers(0, 256, (64, 28, 28), "uint8"),
        y_train=rng.integers(0, 10, 64, "uint8"),
        x_test=rng.integers(0, 256, (32, 28, 28), "uint8"),
        y_test=rng.integers(0, 10, 32, "uint8"),
    )
    monkeypatch.setenv("KERAS_REDUNDANCY_DATA", str(tmp_path))
    ((images, _), _) = example_data.load("mnist")
    assert images.shape == (64, 28, 28, 1)


def test_quickstart_names_a_file_that_is_missing(tmp_path, run_here, capfd):
    options = ("--dataset", "cifar10", "--data", tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_here(ROOT / "examples/quickstart.py", *options)
    assert ended.value.code == 2
    assert "cifar10.npz" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        (
            "applications",
            ["MobileNet", "--repeats", 1, "--ways", "nothing"],
            "ours / clone",
        ),
        (
            "calibration",
            ["mlp", "--samples", 256, "--repeats", 1],
            "predict, s",
        ),
        ("data_pruning", ["quickstart", "--samples", 32], "total / predict"),
        ("clustering", ["--quick"], "Time over that of the bare products"),
        ("wide_layers", ["--quick"], "clusters"),
        ("ranking", ["--quick"], "ratio"),
        (
            "fit_and_prune",
            ["--repeats", 1, "--epochs", 3],
            "with a checkpoint after each epoch",
        ),
        ("monitor", ["--epochs", 2], "of it the monitor, s"),
        ("optimizer_state", ["--runs", 1, "--epochs", 1], "carried over"),
        (
            "low_rank",
            [
                *("--repeats", 1, "--steps", 2, "--no-xla"),
                *("--width", 20, "--hidden", 2),
            ],
            "a third fused",
        ),
    ],
)
def test_benchmarks(run_here, script, arguments, expected, monkeypatch):
    if script != "data_pruning":  # One starts a process as for a user.
        monkeypatch.setattr(subprocess, "run", run_in_this_process)
    path = ROOT / "examples" / "benchmarks" / f"{script}.py"
    assert expected in run_here(path, *arguments)


def test_pictures(tmp_path, run_here, monkeypatch):
    monkeypatch.setitem(quickstart.WIDTHS, "digits", (8, 16))
    options = ("--epochs", 1, "--samples", 200)
    run_here(ROOT / "examples/pictures.py", *options)
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == 9
    assert all(path.stat().st_size > 3000 for path in pictures)
    assert "Before and after" in (tmp_path / "pictures/report.html").read_text()
    assert (tmp_path / "pictures/logs/redundancy").is_dir()


def test_accuracy_compares_methods_and_goes_on_where_it_was(tmp_path, run_here):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 5300, "uint8")
    images = rng.integers(0, 64, (5300, 28, 28), "uint8")
    images[np.arange(5300), labels] += 128  # a bright row tells the class
    np.savez(
        tmp_path / "fashion_mnist.npz",
        x_train=images,
        y_train=labels,
        x_test=images[:200],
        y_test=labels[:200],
    )
    command = [ROOT / "examples/accuracy.py", "mlp", "--data", tmp_path]
    command += ["--seeds", 1, "--epochs", 2, "--tune", 1, "--samples", 200]
    command += ["--scratch", "--cuts", 0.5, "--methods"]
    command += ["L1, drop (Li et al.)", "greedy, least squares"]
    command += ["greedy, least squares, distilled"]
    printed = run_here(*command)
    assert "Accuracy without fine-tuning, %" in printed
    assert "Accuracy after fine-tuning, %" in printed
    assert "Accuracy from scratch, %" in printed
    kept = (tmp_path / "runs/mlp-2-seed0-test.json").read_text()
    again = run_here(*command)
    assert "training" not in again
    assert (tmp_path / "runs/mlp-2-seed0-test.json").read_text() == kept
    assert again.splitlines()[0] in printed


def test_recovery_compares_methods_and_draws(tmp_path, run_here):
    inputs = keras.Input((12, 12, 1))
    x = keras.layers.Conv2D(6, 3, name="first")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, keras.layers.Dense(3)(x)).save(tmp_path / "m.keras")
    images = np.random.default_rng(0).normal(size=(96, 12, 12, 1))
    labels = np.arange(96) % 3
    arrays = {"test_images": images, "test_labels": labels, "labels": labels}
    np.savez(tmp_path / "data.npz", images=images.astype("float32"), **arrays)
    command = [ROOT / "examples/recovery.py", "m.keras", "data.npz"]
    command += ["--cuts", 0.5, "--epochs", 1, "--distil", "greedy"]
    command += ["--without-data", "--synthetic-samples", 16, "--samples", 64]
    command += ["--synthetic-steps", 2, "--draw", "curves.png"]
    command += ["--labelled-epochs", 1]
    printed = run_here(*command)
    for word in (
        "Taylor, drop",
        "on synthetic images",
        "greedy, 1 epochs",
        "greedy, fine-tuned",
    ):
        assert word in printed
    assert (tmp_path / "curves.png").stat().st_size > 3000


def test_kept_results_are_of_the_same_things(tmp_path):
    path, found = tmp_path / "kept.json", iter((1.5, 2.5, 3.5))
    of = digest([np.arange(3), np.zeros(2)])
    for _ in range(2):
        kept = Results(path, of=of)
        assert kept.result("a", 0.5, find=lambda: next(found)) == 1.5
    assert kept.result("a", 0.7, find=lambda: next(found)) == 2.5
    other = digest([np.arange(3), np.ones(2)])
    with pytest.raises(ValueError, match="another model or of other data"):
        Results(path, of=other)


def test_recurrent(run_here):
    sizes = {"units": 4, "epochs": 1, "samples": 64, "data": 32, "test": 32}
    options = [x for name, n in sizes.items() for x in (f"--{name}", n)]
    command = [ROOT / "examples/recurrent.py", *options, "--networks", "gru"]
    command += ["--methods", "l1", "mended", "--verbose", 0]
    printed = run_here(*command)
    assert "Answers that stay the same, % of the original's" in printed
    (row,) = (x for x in printed.splitlines() if "gru" in x and "70%" in x)
    assert len(row.split()) == 5
