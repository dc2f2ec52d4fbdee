"""`fit_and_prune`: train a model and prune it between epochs."""

from __future__ import annotations  # help() shows the names of types.

import inspect
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_redundancy._shared.arguments import check_count
from keras_redundancy._shared.tables import shown
from keras_redundancy._shared.warn import warn
from keras_redundancy.calibration.data import comes_in_batches
from keras_redundancy.planning.plans import require_possible
from keras_redundancy.training.batches import (
    begin_anew,
    build_on,
    require_samples,
    shared,
)
from keras_redundancy.training.checkpoints import Checkpoint
from keras_redundancy.training.results import Pruned
from keras_redundancy.training.run import PruningRun
from keras_redundancy.training.state import Settings


def fit_and_prune(
    model: keras.Model,
    x=None,
    y=None,
    *,
    prune: Mapping | Sequence[Mapping] | Callable,
    epochs: int,
    floor: float | None = None,
    max_drop: float = 0.0,
    monitor: str = "val_accuracy",
    mode: str = "auto",
    start: int = 1,
    every: int = 1,
    patience: int = 10,
    checkpoint=None,
    seed: int | None = None,
    callbacks=None,
    verbose: int | str = "auto",
    initial_epoch: int = 0,
    **options,
) -> Pruned:
    """Train a model and prune it between epochs, down to a floor.

    This is `Model.fit` with cuts in between. After an epoch in which the
    monitored value reaches the floor, units are removed. Training then goes on
    with the smaller model, which keeps the optimizer's state and its
    `NoiseOutputs`. Callbacks see a single `fit`.

    Args:
        model: a compiled functional or Sequential `keras.Model`, trained or
            not. It is never changed: a copy is trained. A Sequential model
            without `keras.Input` is built on the shape of x, as `fit` does.
        x, y: what `Model.fit` takes. Each batch of a generator is used once;
            training ends when the generator has no more batches.
        prune: how to make the model smaller: options of `kr.prune` for all
            cuts, such as {"ratio": 0.1}; or a list with the options of each
            cut, such as a schedule of tau; or a function that takes the model
            and returns a smaller one, such as

                lambda model: kr.merge_correlated(
                    model, x, count=10, optimizer=True
                )
        epochs: the total number of epochs, as for `Model.fit`. No cut comes
            after the last one: there have to be more than `start`.
        floor: the value that `monitor` must reach for a cut, and for a model
            to be returned. Default: the best value of the first `start`
            epochs, minus `max_drop`.
        max_drop: how far `monitor` may fall below that best value.
        monitor: the name of a number in the logs. Names that start with
            "val_" need validation data. Epochs whose logs lack it, as with
            `validation_freq`, decide nothing. NaN and infinity never reach the
            floor.
        mode: "max" if more is better; "min" if less is better, as for a loss:
            the floor is then an upper bound; "auto" asks the metric, or else
            goes by the end of the name.
        start: the first cut comes after this many epochs at the earliest.
        every: the least number of epochs between two cuts.
        patience: training ends when more than this many epochs in a row miss
            the floor.
        checkpoint: a folder that keeps the training after each epoch. If the
            process is killed, call `fit_and_prune` again with the same
            arguments and it continues. `epochs`, `callbacks` and `verbose`
            may change. All other arguments are compared, with the weights and
            the data: make a model with random weights after
            `keras.utils.set_random_seed`, so that they are the same again. Of
            large arrays only some rows are compared, and of data in batches
            only the class.
            Other files in the folder are left alone.
        seed: each epoch (without `checkpoint`: each call of `fit`, which ends
            at a cut) begins with `keras.utils.set_random_seed(seed + epoch)`,
            so that a training that was killed ends as if it had not been.
            With `checkpoint` a seed is drawn if none is given.
        callbacks: as for `Model.fit`. State that callbacks keep for
            themselves, such as the counter of `EarlyStopping`, is not in the
            checkpoint.
        verbose, initial_epoch, **options: as for `Model.fit`:
            `validation_data`, `batch_size`, ...

    Returns:
        A `Pruned`. Its `model` is the smallest one that reached the floor,
        with the weights of its best epoch and without `NoiseOutputs`.

    Raises:
        TypeError: an argument is of a wrong type, or the model has no graph.
        ValueError: the model is not compiled, `monitor` is not in the logs or
            needs validation data that are not there, data hold no samples,
            mode="auto" cannot tell whether more of it is better, a callback
            would restore weights, an argument is out of range,
            `steps_per_epoch` leaves out batches of arrays without shuffling,
            `checkpoint` holds another training or cannot keep the model, or
            `prune` returns something else than a smaller model.

    Warns:
        UserWarning: the floor was never reached, so nothing was cut;
            `max_drop` allows every accuracy; or callbacks lost their state
            because the process was killed.

    Example:

        found = kr.fit_and_prune(
            model,
            x,
            y,
            prune={"ratio": 0.1, "data": x[:2000]},
            max_drop=0.005,
            epochs=50,
            validation_split=0.1,
        )
        found.render()
        found.model.save("small.keras")

    Source: Babaeizadeh, Smaragdis and Campbell, A Simple yet Effective Method
    to Prune Dense Layers of Neural Networks (2016), algorithm 1: train until
    the threshold is reached, remove units, repeat.
    """
    settings = Settings(
        prune=prune,
        floor=floor,
        max_drop=max_drop,
        monitor=monitor,
        mode=mode,
        start=start,
        every=every,
        patience=patience,
        seed=seed,
        initial_epoch=initial_epoch,
    )
    check_count("epochs", epochs)
    if floor is None and max_drop >= 1 and monitor.endswith("accuracy"):
        warn(
            f"max_drop={max_drop:g} allows every accuracy from 0 to 1. For one "
            "percentage point, pass max_drop=0.01.",
        )
    _require_options_of_fit(model, options)
    _require_compiled(model)
    _require_validation_data(monitor, options)
    _require_no_restoring(callbacks)
    batches = shared(x, options.get("steps_per_epoch"))
    require_samples(batches, y, options)
    _require_targets(model, x, y)
    if begin_anew(batches, y, options) and not options.get("shuffle", True):
        raise _same_batches(options)
    build_on(model, batches)
    if not callable(prune):
        for cut in settings.options_of_cuts:
            require_possible(model, cut)
    run = PruningRun(settings, model, epochs, verbose)
    if checkpoint is not None:
        compared = {"x": x, "y": y, **vars(settings), **options}
        run.keep_in(Checkpoint(checkpoint, model, compared))
    return run.through(batches, y, callbacks or [], options)


def _require_options_of_fit(model, options):
    """Raise for an argument that neither this function nor `fit` takes."""
    taken = inspect.signature(getattr(model, "fit", keras.Model.fit)).parameters
    if any(x.kind is x.VAR_KEYWORD for x in taken.values()):
        return
    for name in options:
        if name not in taken:
            raise TypeError(
                f"{name}= is no argument of fit_and_prune or Model.fit. What "
                "kr.prune takes goes into prune=, as in prune={'ratio': 0.1}."
            )


def _require_compiled(model):
    if isinstance(model, keras.Model) and not model.compiled:
        raise ValueError(
            f"{model.name!r} is not compiled, so that it cannot be trained. "
            "Call compile() before, with an optimizer, a loss and metrics."
        )


def _require_targets(model, x, y):
    """Raise if a loss is to compare the outputs for arrays with nothing."""
    if y is not None or comes_in_batches(x):
        return
    kind = type(model)
    has_own_step = (
        kind.train_step is not keras.Model.train_step
        or kind.compute_loss is not keras.Model.compute_loss
    )
    if getattr(model, "loss", None) is not None and not has_own_step:
        raise ValueError(
            f"y is None, but {model.name!r} is compiled with the loss "
            f"{shown(model.loss)}, which compares its outputs with targets. "
            "Pass them: fit_and_prune(model, x, y, ...)."
        )


def _same_batches(options):
    """The error to raise: each `fit` would read the same part of the data."""
    return ValueError(
        f"steps_per_epoch={options['steps_per_epoch']} is less than there are "
        "batches, and shuffle=False: after each cut the first batches would "
        "be read again, and the others never. Leave one of both out, or pass "
        "a generator or a tf.data.Dataset, which goes on after cuts."
    )


def _require_validation_data(monitor, options):
    if (
        monitor.startswith("val_")
        and options.get("validation_data") is None
        and not options.get("validation_split")
    ):
        raise ValueError(
            f"monitor={monitor!r} is measured on validation data, but there "
            "are none. Pass validation_data=(x, y) or validation_split=0.1: "
            "scores on training data would hide what pruning costs."
        )


def _require_no_restoring(callbacks):
    for callback in keras.tree.flatten(callbacks or []):
        if getattr(callback, "restore_best_weights", False):
            raise ValueError(
                f"{type(callback).__name__}(restore_best_weights=True) would "
                "assign the weights of a larger model to a smaller one. Leave "
                "restore_best_weights out: fit_and_prune returns the best "
                "model that held the floor."
            )
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "BackupAndRestore cannot restore a model of another size. "
                "Pass checkpoint=<folder> to fit_and_prune instead."
            )
