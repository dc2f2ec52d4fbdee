"""The arguments of the command, and a quiet start of TensorFlow."""

import argparse
import contextlib
import importlib.metadata
import os
import re
import sys
import tempfile
from pathlib import Path

# What TensorFlow and LiteRT write to stderr when they start, and no errors.
STARTUP = re.compile(
    r"[IW]0000 |WARNING: All log messages before absl|To enable"
    r"|fully_quantize: |INFO: Created TensorFlow Lite "
)

EXAMPLES = """\
examples:
  keras-redundancy report model.keras --tau 0.5
  keras-redundancy report model.keras --html report.html
  keras-redundancy prune model.keras --tau 0.9 -o small.keras
  keras-redundancy prune model.keras --target-flops 0.5 --data images.npz \\
      -o small.keras
  keras-redundancy sensitivity model.keras --data held_out.npz
  keras-redundancy diff model.keras small.keras
  keras-redundancy export small.keras --quantize int8 --data images.npz \\
      --beside model.keras -o small.tflite

MODEL is a file of model.save(): .keras, or .h5 or .hdf5 of older versions.
--data takes FILE.npz with an array x; for a model of several inputs, with an
array for each of them by its name; and, where labels are needed, with y. Or
FILE.npy with x alone.
"""


@contextlib.contextmanager
def without_startup_lines():
    """Keep the lines that TensorFlow and LiteRT write as they start off stderr.

    Everything else that is written to stderr meanwhile is written afterwards.
    """
    # Later lines of the same kind, such as of the LiteRT converter.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written.read().decode(errors="replace").splitlines():
                if not STARTUP.match(line):
                    print(line, file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """What reads the arguments; `command` is the name of the subcommand."""
    parser = argparse.ArgumentParser(
        prog="keras-redundancy",
        description="Measure and remove the redundancy of Keras models.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND"
    )
    _add_report(commands)
    _add_prune(commands)
    _add_sensitivity(commands)
    command = _add(commands, "diff", "The widths of two models, side by side.")
    command.add_argument("other", type=Path, metavar="OTHER")
    _add_export(commands)
    return parser


def _version():
    """That of the installed package, which need not be imported."""
    return importlib.metadata.version("keras-redundancy")


def _add_report(commands):
    command = _add(commands, "report", "What is redundant in each layer.")
    add = command.add_argument
    add(
        "--tau",
        type=float,
        nargs="+",
        default=[0.5],
        help="similarities in (0, 1] above which units are redundant; with "
        "several, a table of how many there are at each; files are written "
        "for the lowest",
    )
    add("--html", type=Path, help="write a page with pictures there")
    add("--csv", type=Path, help="write a line for each layer there")


def _add_prune(commands):
    command = _add(commands, "prune", "Write a smaller model.")
    add = command.add_argument
    add("-o", "--out", type=Path, required=True)
    how = command.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--tau", type=float, help="similarity above which units are removed"
    )
    how.add_argument("--ratio", type=float, help="the share of units to remove")
    for kind in ("flops", "params", "units"):
        how.add_argument(
            f"--target-{kind}", type=float, help="the share to keep"
        )
    add("--data", type=Path, help="inputs to calibrate on, .npz or .npy")
    add(
        "--skip",
        nargs="+",
        help="layers to leave alone, by name or regular expression",
    )
    add(
        "--round-to",
        type=int,
        default=1,
        help="keep multiples of this many units, such as 8",
    )
    add(
        "--no-compile",
        action="store_true",
        help="leave out the optimizer, the loss and the metrics",
    )


def _add_sensitivity(commands):
    what = "The accuracy of the model when one layer at a time is cut."
    command = _add(commands, "sensitivity", what)
    inputs = ".npz with the inputs and labels y"
    command.add_argument("--data", type=Path, required=True, help=inputs)
    how = command.add_mutually_exclusive_group()
    how.add_argument("--tau", type=float, nargs="+", help="similarities to try")
    how.add_argument(
        "--ratio", type=float, nargs="+", help="shares of units to try"
    )


def _add_export(commands):
    what = (
        "Write a file for LiteRT (.tflite), for ONNX (.onnx), or a SavedModel "
    )
    what += "(a folder), and measure it."
    add = _add(commands, "export", what).add_argument
    add("-o", "--out", type=Path, required=True)
    add(
        "--quantize",
        choices=("dynamic", "int8"),
        help="for LiteRT: store large kernels as integers, or compute with "
        "integers throughout, which needs --data",
    )
    add("--data", type=Path, help="inputs to compare on, .npz or .npy")
    add(
        "--beside",
        type=Path,
        help="a model to compare with, such as the unpruned one",
    )
    add("--overwrite", action="store_true", help="replace what is there")


def _add(commands, name, what):
    command = commands.add_parser(name, help=what, description=what)
    add = command.add_argument
    add("model", type=Path, metavar="MODEL")
    add("--json", action="store_true", help="print JSON, for programs")
    add(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import it first: it registers layers of your own",
    )
    add(
        "--unsafe",
        action="store_true",
        help="load Lambda layers too, which can run any code",
    )
    return command
