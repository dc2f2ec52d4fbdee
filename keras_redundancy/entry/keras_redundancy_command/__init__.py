"""The arguments of the command `keras-redundancy`.

They are installed as a package of their own, beside `keras_redundancy`, which
imports Keras and with it a backend: that takes seconds, and `--help` needs
none of it.
"""

import argparse
import importlib.metadata
from pathlib import Path

EXAMPLES = """\
examples:
  keras-redundancy report model.keras --tau 0.5
  keras-redundancy report model.keras --html report.html
  keras-redundancy prune model.keras --tau 0.9 -o small.keras
  keras-redundancy prune model.keras --target-flops 0.5 --data images.npz \\
      -o small.keras
  keras-redundancy sensitivity model.keras --data held_out.npz
  keras-redundancy diff model.keras small.keras

MODEL is a file of model.save(): .keras, or .h5 or .hdf5 of older versions.
--data takes FILE.npz with an array x; for a model of several inputs, with an
array for each of them by its name; and, where labels are needed, with y. Or
FILE.npy with x alone.
"""


def main(arguments=None) -> int:
    """Run the command; returns its exit code: 2 if it cannot be done."""
    args = parser().parse_args(arguments)
    from keras_redundancy import cli

    return cli.run(args)


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
    return parser


def _version():
    """That of the installed package, which need not be imported."""
    return importlib.metadata.version("keras-redundancy")


def _add_report(commands):
    command = _add(commands, "report", "What is redundant in each layer.")
    command.add_argument(
        "--tau",
        type=float,
        nargs="+",
        default=[0.5],
        help="similarities in (0, 1] above which units are redundant; with "
        "several, a table of how many there are at each; files are written "
        "for the lowest",
    )
    command.add_argument(
        "--html", type=Path, help="write a page with pictures there"
    )
    command.add_argument(
        "--csv", type=Path, help="write a line for each layer there"
    )


def _add_prune(commands):
    command = _add(commands, "prune", "Write a smaller model.")
    command.add_argument("-o", "--out", type=Path, required=True)
    how = command.add_mutually_exclusive_group(required=True)
    how.add_argument("--tau", type=float, help="units this similar go")
    how.add_argument("--ratio", type=float, help="the share of units to go")
    for kind in ("flops", "params", "units"):
        how.add_argument(
            f"--target-{kind}", type=float, help="the share to be left"
        )
    command.add_argument(
        "--data", type=Path, help="inputs to calibrate on, .npz or .npy"
    )
    command.add_argument(
        "--skip", nargs="+", help="layers that stay, by name or expression"
    )
    command.add_argument(
        "--no-compile",
        action="store_true",
        help="leave out the optimizer, the loss and the metrics",
    )


def _add_sensitivity(commands):
    command = _add(
        commands, "sensitivity", "What each layer costs when it alone is cut."
    )
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        help=".npz with the inputs and labels y",
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument("--tau", type=float, nargs="+", help="to try")
    how.add_argument(
        "--ratio", type=float, nargs="+", help="shares of units to try"
    )


def _add(commands, name, what):
    command = commands.add_parser(name, help=what, description=what)
    command.add_argument("model", type=Path, metavar="MODEL")
    command.add_argument(
        "--json", action="store_true", help="print JSON, for programs"
    )
    command.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import it first: it registers layers of your own",
    )
    command.add_argument(
        "--unsafe",
        action="store_true",
        help="load Lambda layers too, which can run any code",
    )
    return command
