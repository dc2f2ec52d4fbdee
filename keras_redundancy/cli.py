"""What the command `keras-redundancy` does with its arguments."""

import contextlib
import importlib
import json
import os
import sys
import warnings
import zipfile
import zlib
from functools import partial

import h5py
import keras
import numpy as np

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy._shared.files import (
    replaced,
    require_folder,
    require_no_folder,
)
from keras_redundancy._shared.progress import showing
from keras_redundancy.numbers.clustering import check_tau
from keras_redundancy.planning.levels import check_ratio, check_share
from keras_redundancy_command.parsing import parser, without_startup_lines

LEGACY = (".h5", ".hdf5")  # The suffixes of what Keras 2 has saved.
BROKEN = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
    *(json.JSONDecodeError, UnicodeDecodeError),
)


def main(arguments=None) -> int:
    """The command, for `python -m keras_redundancy.cli`."""
    return run(parser().parse_args(arguments))


def run(args) -> int:
    """Do what the arguments ask for; returns the exit code.

    Args:
        args: what `parser()` made of them.

    Returns:
        0, or 2 if it cannot be done, which is said on stderr.
    """
    try:
        if args.modules:
            sys.path.insert(0, os.getcwd())
        for module in args.modules:
            importlib.import_module(module)
        _require_levels(args)
        COMMANDS[args.command](args)
    except (ImportError, OSError, TypeError, ValueError) as error:
        _say(f"error: {error}")
        return 2
    return 0


def _say(words):
    print(f"keras-redundancy: {words}", file=sys.stderr)


def _require_levels(args):
    """Raise for a level out of range, by the name of its option."""
    checks = {"tau": check_tau, "ratio": check_ratio}
    checks |= {f"target_{x}": partial(check_share, x) for x in TARGETS}
    for name, check in checks.items():
        given = getattr(args, name, None)
        for value in given if isinstance(given, list) else [given]:
            if value is not None:
                check(value, f"--{name.replace('_', '-')}")


def _report(args):
    for path in (args.html, args.csv):
        _require_place(path, args.model)
    model = _load(args.model, args)
    found = kr.redundancy(model, args.tau)
    first = found.reports[0]
    if args.html is not None:
        first.to_html(args.html)
    if args.csv is not None:
        first.to_csv(args.csv)
    _show(found if found.taus[1:] else first, args)


def _prune(args):
    _require_place(args.out, args.model, args.data)
    if args.out.suffix != ".keras":
        raise ValueError(
            f"{str(args.out)!r} has to end in .keras, the format of Keras 3."
        )
    model = _load(args.model, args, compile=not args.no_compile)
    target = {
        kind: getattr(args, f"target_{kind}")
        for kind in TARGETS
        if getattr(args, f"target_{kind}") is not None
    }
    # Standard output is for the result alone.
    with contextlib.redirect_stdout(sys.stderr), showing(not args.json):
        plan = kr.plan(
            model,
            tau=args.tau,
            ratio=args.ratio,
            target=target or None,
            data=None if args.data is None else _read(args.data, model)[0],
            skip=args.skip or None,
            round_to=args.round_to,
        )
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


def _sensitivity(args):
    model = _load(args.model, args, compile=False)
    x, labels = _read(args.data, model)
    if labels is None:
        raise ValueError(
            f"{str(args.data)!r} has no array y. To tell how good a model is, "
            "put the labels of its inputs there, integers."
        )
    count = len(next(iter(x.values())) if isinstance(x, dict) else x)
    if not count or labels.size != count:
        raise ValueError(
            f"{str(args.data)!r} has {count} inputs, and y of the shape "
            f"{labels.shape}. Put one integer there for each input; of one-hot "
            "labels, labels.argmax(-1)."
        )
    labels = labels.reshape(-1)

    def accuracy(model):
        answers = model.predict(x, verbose=0)
        shape = getattr(answers, "shape", "several arrays")
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(
                f"{args.model.name!r} returns {shape}, but the accuracy is "
                "measured on a number for each sample and class: (samples, "
                "classes). For another measure, call kr.sensitivity(model, "
                "evaluate) in Python."
            )
        return float(np.mean(answers.argmax(axis=-1) == labels))

    levels = {"taus": args.tau} if args.tau else {"ratios": args.ratio}
    verbose = not args.json
    _show(kr.sensitivity(model, accuracy, **levels, verbose=verbose), args)


def _diff(args):
    models = [_load(path, args) for path in (args.model, args.other)]
    _show(kr.difference(*models), args)


def _export(args):
    _require_place(args.out, args.model, args.data, args.beside)
    model = _load(args.model, args)
    data = None if args.data is None else _read(args.data, model)[0]
    beside = None if args.beside is None else _load(args.beside, args)
    options = {"beside": beside, "overwrite": args.overwrite}
    with without_startup_lines():
        found = kr.deploy.export(
            model, args.out, data, args.quantize, **options
        )
    _show(found, args)


TARGETS = ("flops", "params", "units")
COMMANDS = {
    "report": _report,
    "prune": _prune,
    "sensitivity": _sensitivity,
    "diff": _diff,
    "export": _export,
}


def _show(found, args):
    if args.json:
        print(json.dumps(found.to_dict()))
    else:
        found.render()


def _load(path, args, compile=False):
    """The model in a file.

    Raises:
        ValueError: there is none, it is broken, or it has objects that are
            not known.
    """
    _require_model(path)
    options = {"safe_mode": not args.unsafe}
    try:
        with warnings.catch_warnings():
            # The optimizer of a model that was not trained has no variables.
            warnings.filterwarnings("ignore", "Skipping variable loading")
            if compile and path.suffix in LEGACY:
                return _load_legacy(path, options)
            return keras.models.load_model(path, compile=compile, **options)
    except BROKEN as error:
        raise _broken(path, error) from error
    # What a file of another kind makes of it is of any kind.
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} cannot be loaded: {error}\nIf it has layers or "
            "functions of your own, name the module that registers them "
            "(keras.saving.register_keras_serializable) by --import MODULE. "
            "If it has a Lambda layer, and you trust it, pass --unsafe."
        ) from error


def _load_legacy(path, options):
    """A model of Keras 2, compiled if Keras 3 knows what it was compiled with.

    It seldom does: optimizers had other arguments.
    """
    try:
        return keras.models.load_model(path, **options)
    except Exception as error:
        model = keras.models.load_model(path, compile=False, **options)
        _say(
            f"{str(path)!r} is loaded without its optimizer, loss and "
            f"metrics, which Keras 3 cannot read ({_first_line(error)})"
        )
        return model


def _require_model(path):
    if not path.is_file():
        raise ValueError(
            f"There is no file {str(path)!r}. Pass one that model.save() has "
            "written, such as model.keras."
        )
    if path.suffix not in (".keras", *LEGACY):
        raise ValueError(
            f"{str(path)!r} cannot be loaded: it has to be a .keras file, or "
            ".h5 or .hdf5 of older versions, that model.save() has written."
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} cannot be loaded: it is empty.")
    if path.suffix == ".keras":
        if not zipfile.is_zipfile(path):
            raise _broken(path, "it is no zip file, as Keras 3 writes them")
        with zipfile.ZipFile(path) as file:
            if "config.json" not in file.namelist():
                raise _broken(path, "it has no config.json, as of Keras 3")
    if path.suffix in LEGACY:
        if not h5py.is_hdf5(path):
            raise _broken(path, "it is no HDF5 file")
        try:
            with h5py.File(path) as file:
                has_model = "model_config" in file.attrs
        except OSError as error:
            raise _broken(path, error) from error
        if not has_model:
            raise ValueError(
                f"{str(path)!r} holds no model, but perhaps weights alone. "
                "Pass a file that model.save() has written."
            )


def _broken(path, reason):
    return ValueError(
        f"{str(path)!r} cannot be loaded, and may be cut short or of another "
        f"kind: {_first_line(reason)}."
    )


def _first_line(reason):
    return str(reason).strip().partition("\n")[0].rstrip(".")


def _read(path, model):
    """What is in a file of arrays for a model: (inputs, labels or None).

    Raises:
        ValueError: it is broken, or has no arrays of the inputs' names.
        OSError: there is no file, or it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file {str(path)!r}. Pass one that numpy.savez(path, "
            "x=array) or numpy.save has written."
        )
    with path.open("rb") as file:
        with _reading(path):
            arrays = np.load(file)
        if isinstance(arrays, np.ndarray):
            arrays = {"x": arrays}
        inputs, labels = _names_in(path, list(arrays), model)
        with _reading(path):
            found = {
                name: None if key is None else _text_as_tensor(arrays[key])
                for name, key in inputs.items()
            }
            labels = None if labels is None else arrays[labels]
    return found if len(found) > 1 else next(iter(found.values())), labels


@contextlib.contextmanager
def _reading(path):
    """NumPy, zipfile and pickle each have exceptions of their own."""
    try:
        yield
    except Exception as error:
        reason = error
        if "allow_pickle" in str(error):
            reason = "it is neither of numpy.savez nor of numpy.save"
            if "Object arrays" in str(error):
                reason = "it holds Python objects, which are not read"
        raise _broken(path, reason) from error


def _names_in(path, names, model):
    """({input: its array's name, or None}, the labels' name, or None)."""
    inputs = {x.name: x for x in _keras.graph_of(model).inputs}
    labels = "y" if "y" in names and "y" not in inputs else None
    needed = [
        name for name, x in inputs.items() if not _keras.origin(x).optional
    ]
    if set(needed) <= set(names) and set(inputs) & set(names):
        given = {name: name if name in names else None for name in inputs}
        return given, labels
    if len(inputs) == 1:
        (name,) = inputs
        if "x" in names:
            return {name: "x"}, labels
        if set(names) - {"y"} == {"arr_0"}:
            return {name: "arr_0"}, labels
    wanted = "has to have one named x, the inputs of the model"
    if len(inputs) > 1:
        listed = ", ".join(inputs)
        wanted = f"the inputs of the model are named {listed}"
    found = f"the arrays {', '.join(names)}" if names else "no arrays"
    raise ValueError(
        f"{str(path)!r} has {found}, but {wanted}. Write it by "
        "numpy.savez(path, name=array, ...)."
    )


def _text_as_tensor(array):
    """Text as `Model.predict` takes it."""
    if array.dtype.kind in "US":
        return keras.ops.convert_to_tensor(array, dtype="string")
    return array


def _require_place(path, *inputs):
    """Raise unless a file can be written there.

    Raises:
        ValueError: its folder is not there, or it is a file that is read.
        IsADirectoryError: it is a folder, and not that of a SavedModel.
    """
    if path is None:
        return
    require_folder(path)
    require_no_folder(path, of_model=True)
    for given in inputs:
        exist = given is not None and path.exists() and given.exists()
        if exist and path.samefile(given):
            raise ValueError(
                f"{str(path)!r} is a file that is read, and would be "
                "overwritten. Choose another path to write to."
            )


if __name__ == "__main__":
    sys.exit(main())
