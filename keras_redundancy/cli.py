"""The command `keras-redundancy`."""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

import keras
import numpy as np

import keras_redundancy as kr
from keras_redundancy.folders import replaced

EXAMPLES = """\
examples:
  keras-redundancy report model.keras --tau 0.5
  keras-redundancy report model.keras --html report.html
  keras-redundancy prune model.keras --tau 0.9 -o small.keras
  keras-redundancy prune model.keras --target-flops 0.5 --data images.npz \\
      -o small.keras
  keras-redundancy sensitivity model.keras --data held_out.npz
  keras-redundancy diff model.keras small.keras

--data takes FILE.npz with arrays x and, where labels are needed, y; or
FILE.npy with x alone.
"""


def main(arguments=None) -> int:
    """Run the command; returns its exit code: 2 if it cannot be done."""
    args = _parser().parse_args(arguments)
    try:
        if args.modules:
            sys.path.insert(0, os.getcwd())
        for module in args.modules:
            importlib.import_module(module)
        args.run(args)
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"keras-redundancy: error: {error}", file=sys.stderr)
        return 2
    return 0


def report(args):
    """What is redundant in each layer."""
    for path in (args.html, args.csv):
        _require_place(path)
    model = _load(args.model, args)
    found = kr.redundancy(model, args.tau)
    first = found.reports[0]
    if args.html is not None:
        first.to_html(args.html)
    if args.csv is not None:
        first.to_csv(args.csv)
    _show(found if found.taus[1:] else first, args)


def prune(args):
    """Write a smaller model."""
    _require_place(args.out)
    if args.out.suffix != ".keras":
        raise ValueError(
            f"{str(args.out)!r} has to end in .keras, the format of Keras 3."
        )
    model = _load(args.model, args, compile=not args.no_compile)
    options = {"data": None if args.data is None else _read(args.data)["x"]}
    target = {
        kind: getattr(args, f"target_{kind}")
        for kind in ("flops", "params", "units")
        if getattr(args, f"target_{kind}") is not None
    }
    for name, value in (
        ("tau", args.tau),
        ("ratio", args.ratio),
        ("target", target or None),
    ):
        if value is not None:
            options[name] = value
    plan = kr.plan(model, skip=args.skip or None, **options)
    small = plan.apply(verbose=not args.json)
    if small.compiled:
        # A file without its variables is loaded with a warning.
        small.optimizer.build(small.trainable_variables)
    with replaced(args.out) as path:
        small.save(path)
    if args.json:
        before, after = kr.difference(model, small).to_dict()["total"]
        sizes = {"before": before, "after": after}
        print(json.dumps({"output": str(args.out), **sizes}))
    else:
        plan.render()
        print(f"saved {args.out}")


def sensitivity(args):
    """What each layer costs when it alone is cut."""
    model = _load(args.model, args, compile=False)
    arrays = _read(args.data)
    if "y" not in arrays:
        raise ValueError(
            f"{str(args.data)!r} has no array y. To tell how good a model is, "
            "put the labels of x there, integers."
        )
    x, labels = arrays["x"], arrays["y"].reshape(-1)

    def accuracy(model):
        answers = model.predict(x, verbose=0)
        shape = getattr(answers, "shape", "of several outputs")
        if len(shape) != 2 or shape[0] != len(labels) or shape[1] < 2:
            raise ValueError(
                f"The answers of {args.model.name!r} are {shape}, but for the "
                f"accuracy on {len(labels)} labels they have to be a number "
                "for each of them and each class. For all else, call "
                "kr.sensitivity(model, evaluate) with a function of your own."
            )
        return float(np.mean(answers.argmax(axis=-1) == labels))

    levels = {"taus": args.tau} if args.tau else {"ratios": args.ratio}
    verbose = not args.json
    _show(kr.sensitivity(model, accuracy, **levels, verbose=verbose), args)


def diff(args):
    """The widths of two models, side by side."""
    models = [_load(path, args) for path in (args.model, args.other)]
    _show(kr.difference(*models), args)


def _show(found, args):
    if args.json:
        print(json.dumps(found.to_dict()))
    else:
        found.render()


def _load(path, args, compile=False):
    """The model in a file.

    Raises:
        ValueError: there is none, or it has objects that are not known.
    """
    if not path.is_file():
        raise ValueError(
            f"There is no file {str(path)!r}. Pass one that model.save() has "
            "written, such as model.keras."
        )
    try:
        return keras.models.load_model(
            path, compile=compile, safe_mode=not args.unsafe
        )
    # What a file of another kind makes of it is of any kind.
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} cannot be loaded: {error}\nIf it has layers or "
            "functions of your own, name the module that registers them "
            "(keras.saving.register_keras_serializable) by --import MODULE. "
            "If it has a Lambda layer, and you trust it, pass --unsafe."
        ) from error


def _read(path):
    """{"x": array, "y": array} of a file, or what there is of them."""
    loaded = np.load(path)
    if isinstance(loaded, np.ndarray):
        return {"x": loaded}
    with loaded:
        arrays = {name: loaded[name] for name in ("x", "y") if name in loaded}
        if "x" not in arrays:
            raise ValueError(
                f"{str(path)!r} has the arrays {', '.join(loaded)}, but has "
                "to have one named x, the inputs of the model."
            )
    return arrays


def _require_place(path):
    """Raise unless a file can be written there.

    Raises:
        ValueError: its folder is not there.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise ValueError(
            f"There is no folder {str(path.absolute().parent)!r} to write "
            f"{path.name!r} to. Make it, or choose another path."
        )


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-redundancy",
        description="Measure and remove the redundancy of Keras models.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=kr.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _add(commands, report)
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

    command = _add(commands, prune)
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

    command = _add(commands, sensitivity)
    command.add_argument(
        "--data", type=Path, required=True, help=".npz with x and labels y"
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument("--tau", type=float, nargs="+", help="to try")
    how.add_argument(
        "--ratio", type=float, nargs="+", help="shares of units to try"
    )

    command = _add(commands, diff)
    command.add_argument("other", type=Path, metavar="OTHER.keras")
    return parser


def _add(commands, run):
    command = commands.add_parser(
        run.__name__, help=run.__doc__, description=run.__doc__
    )
    command.set_defaults(run=run)
    command.add_argument("model", type=Path, metavar="MODEL.keras")
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


if __name__ == "__main__":
    sys.exit(main())
