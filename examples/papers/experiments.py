"""What the scripts of this folder share: data, kept results, a command.

An experiment is a function of data and settings that returns a dictionary of
numbers, or a trained network and such a dictionary. A `Run` keeps what it
returned, a file for each combination of settings, and does not make it again.
A view, which `Paper.figure` or `Paper.table` adds to a paper, turns results
into tables and a picture. `Paper.main` is the command of a script.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import example_data
from accuracy import accuracy as accuracy, train as momentum_training
from example_tables import spread as spread

from keras_redundancy._shared.tables import Table

# Training images that are held out, at most.
HELD_OUT = 5000
# Of the weights of VGGs and ResNets.
DECAY = 5e-4


# --- data -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Data:
    """Images in [0, 1], shape (n, height, width, channels), and labels.

    Attributes:
        train: (images, labels) to train on.
        held_out: the last twelfth of the training set, 5,000 at most; settings
            and cuts are decided on these.
        test: what accuracies are measured on.
    """

    train: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image."""
        return self.train[0].shape[1:]

    @property
    def classes(self) -> int:
        return 1 + int(self.train[1].max())


def load(name, folder=None, samples=None):
    """A `Data`; with `samples`, of the first training images only."""
    (x, y), test = example_data.load(name, folder)
    count = min(HELD_OUT, len(x) // 12)
    train = x[:-count][:samples], y[:-count][:samples]
    return Data(train, (x[-count:], y[-count:]), test)


def fitted(model, data, epochs, optimizer="adam", batch_size=128, **options):
    """Train a classifier that returns logits.

    Args:
        data: a `Data`.
        **options: further ones of `Model.fit`.

    Returns:
        `history`, a dictionary of lists with a number for each epoch; accuracy
        is in percent, and "cross_entropy" the loss without penalties.
    """
    entropy = keras.metrics.SparseCategoricalCrossentropy(
        name="cross_entropy", from_logits=True
    )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", entropy],
        jit_compile=False,  # faster so without a GPU
    )
    options = {"verbose": 0, "validation_data": data.test} | options
    done = model.fit(
        *data.train, batch_size=batch_size, epochs=epochs, **options
    )
    history = {k: [float(x) for x in v] for k, v in done.history.items()}
    for name in ("accuracy", "val_accuracy"):
        history[name] = [100 * x for x in history[name]]
    return history


def fitted_with_momentum(model, data, epochs, seed, rate=0.1, decay=DECAY):
    """Train by SGD with momentum, on images shifted and mirrored.

    The rate falls along a cosine; `decay` is that of weights. With 0 epochs,
    the network stays as it is.
    """
    if epochs:
        momentum_training(model, data.train, epochs, rate, True, seed, decay)
    return model


# --- results that are kept --------------------------------------------------


class Result:
    """What an experiment returned.

    Attributes:
        numbers: the dictionary.
    """

    def __init__(self, numbers, model_path):
        self.numbers, self._path = numbers, model_path

    def __getitem__(self, name):
        return self.numbers[name]

    @property
    def model(self):
        """The network that the experiment trained."""
        return keras.models.load_model(self._path)


class Run:
    """The settings of a command, and the experiments done with them.

    Attributes:
        args: the arguments of the command.
    """

    def __init__(self, paper, args):
        self.paper, self.args = paper, args
        self._data = {}

    @property
    def data(self):
        return self.data_of(self.args.dataset)

    def data_of(self, name):
        """The `Data` of that name, read once."""
        if name not in self._data:
            args = self.args
            self._data[name] = load(name, args.data, args.samples)
        return self._data[name]

    def seeds(self, experiment, **settings):
        """A list of a `Result` for each seed, as `one`."""
        return [
            self.one(experiment, seed=seed, **settings)
            for seed in range(self.args.seeds)
        ]

    def one(self, experiment, given=None, **settings):
        """What `experiment(data, **settings)` returns, or returned before.

        Args:
            experiment: a function that returns a dictionary of numbers, or a
                network to keep and such a dictionary.
            given: further arguments, such as a network that other experiments
                trained. The settings have to say all that they depend on.
            **settings: plain numbers, strings and lists.

        Raises:
            OtherSettingsError: the file is of other settings, or holds none.
        """
        settings = {
            "dataset": self.args.dataset,
            "samples": self.args.samples,
            **settings,
        }
        settings = json.loads(json.dumps(settings))
        path = self._path(experiment, settings)
        model_path = path.with_suffix(".keras")
        if not path.exists():
            print(f"{path.stem} {settings}", file=sys.stderr, flush=True)
            passed = {**settings, **(given or {})}
            del passed["samples"]
            keras.utils.set_random_seed(settings.get("seed", 0))
            found = experiment(self.data_of(passed.pop("dataset")), **passed)
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(found, tuple):
                model, found = found
                bare = keras.models.clone_model(model)  # without the optimizer
                bare.set_weights(model.get_weights())
                bare.save(model_path)
            # A process that is killed leaves no half of a file.
            fresh = path.with_suffix(".part")
            kept = {"settings": settings, "results": found}
            fresh.write_text(json.dumps(kept, indent=1))
            fresh.replace(path)
        return Result(_read(path, settings), model_path)

    def _path(self, experiment, settings):
        """The file of an experiment's results."""
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        module = experiment.__module__
        if module == "__main__":
            module = self.paper.name
        return self.args.out / f"{module}.{experiment.__name__}-{digest}.json"


class OtherSettingsError(ValueError):
    """A file in --out that is not of the settings that are asked for."""


def _read(path, settings):
    try:
        kept = json.loads(path.read_text())
        known, results = kept["settings"], kept["results"]
    except (KeyError, TypeError, ValueError) as error:
        raise OtherSettingsError(
            f"{path} holds no results ({error!r}). Remove the file, and they "
            "are made again."
        ) from error
    differences = [
        f"{name}: {known.get(name)!r}, not {settings.get(name)!r}"
        for name in {**known, **settings}
        if known.get(name) != settings.get(name)
    ]
    if differences:
        raise OtherSettingsError(
            f"{path} holds results of other settings "
            f"({'; '.join(differences)}). Results are never mixed: pass "
            "another folder as --out, or remove the file."
        )
    return results


# --- the command ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a view shows.

    Attributes:
        tables: the tables to print.
        draw: returns a matplotlib figure; None if there is no picture.
    """

    tables: Sequence[Table]
    draw: Callable | None = None


@dataclasses.dataclass(frozen=True)
class View:
    """A figure or table of a paper.

    Attributes:
        name: such as "figure 2".
        function: takes a `Run`, returns a `Shown`.
        picture: whether it has a picture to draw.
        defaults: the defaults of --dataset, --epochs and other arguments.
    """

    name: str
    function: Callable
    picture: bool
    defaults: dict

    @property
    def title(self):
        return self.function.__doc__.splitlines()[0]


class Paper:
    """The figures and tables of a paper, and the command that makes them.

    Args:
        name: of the folder of the results.
        doc: what --help says.
    """

    def __init__(self, name, doc):
        self.name, self.doc = name, doc
        self.views = {}
        self._arguments = []

    def figure(self, number, **defaults):
        """Make a function of a `Run` the view "figure `number`"."""
        return self._view(f"figure {number}", True, defaults)

    def table(self, number, picture=False, **defaults):
        """Make a function of a `Run` the view "table `number`"."""
        return self._view(f"table {number}", picture, defaults)

    def argument(self, name, **options):
        """An argument of this paper's command, as of `add_argument`."""
        self._arguments.append((name, options))

    def _view(self, name, picture, defaults):
        def add(function):
            self.views[name] = View(name, function, picture, defaults)
            return function

        return add

    def main(self, arguments=None):
        """Run the command; prints tables, and draws a picture with --plot."""
        parser = self._parser()
        args = parser.parse_args(arguments)
        chosen = (
            f"figure {args.figure}"
            if args.figure is not None
            else f"table {args.table}"
        )
        if chosen not in self.views:
            parser.error(f"There is no {chosen}. There are:\n{self._listed()}")
        view = self.views[chosen]
        if args.plot and not view.picture:
            parser.error(
                f"{chosen} has no picture: leave out --plot {args.plot}."
            )
        for name, value in view.defaults.items():
            if getattr(args, name) is None:
                setattr(args, name, value)
        run = Run(self, args)
        try:
            shown = view.function(run)
        except (FileNotFoundError, OtherSettingsError) as error:
            parser.error(str(error))
        for table in shown.tables:
            print(table)
        if args.plot:
            args.plot.parent.mkdir(parents=True, exist_ok=True)
            shown.draw().savefig(args.plot, dpi=80)

    def _listed(self):
        return "\n".join(
            f"  --{view.name:<10} {view.title}" for view in self.views.values()
        )

    def _parser(self):
        parser = argparse.ArgumentParser(
            description=f"{self.doc}\n{self._listed()}",
            formatter_class=argparse.RawTextHelpFormatter,
        )
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--figure", metavar="N")
        which.add_argument("--table", metavar="N")
        add = parser.add_argument
        add("--dataset", choices=example_data.NAMES)
        add("--data", help="folder with NAME.npz files")
        add("--samples", type=int, help="training images; default: all")
        add("--seeds", type=int, default=3, help="how many; default: 3")
        add("--epochs", type=int)
        add(
            "--out",
            type=Path,
            default=Path("runs"),
            help="folder that keeps results; default: runs",
        )
        add("--plot", type=Path, help="a picture to draw, such as out.png")
        for name, options in self._arguments:
            add(name, **options)
        return parser


def caption(run, *also):
    """What results are of, a line below a table."""
    args = run.args
    said = [args.dataset]
    if args.samples:
        said.append(f"{args.samples:,} training images")
    if args.epochs:
        said.append(f"{args.epochs} epoch{'s' * (args.epochs > 1)}")
    said.append("1 seed" if args.seeds == 1 else f"{args.seeds} seeds")
    return ", ".join([*said, *also])
