"""`fit_and_prune`: training with cuts in between, down to a floor."""

import math
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_redundancy._shared.arguments import (
    check_count,
    check_finite,
    check_option,
    check_seed,
)
from keras_redundancy.planning.plans import prune as pruned_by
from keras_redundancy.training.batches import build_on, shared
from keras_redundancy.training.checkpoints import Checkpoint
from keras_redundancy.training.results import Pruned
from keras_redundancy.training.run import Run
from keras_redundancy.training.state import Settings

MODES = ("auto", "min", "max")


def fit_and_prune(
    model,
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
    """Train a model, and make it smaller while it holds a floor.

    It is `Model.fit` with cuts in between: after an epoch in which what is
    monitored held the floor, units go, and training goes on in the smaller
    model with the optimizer's state and `NoiseOutputs`. To callbacks it is one
    `fit`.

    Args:
        model: a compiled functional or Sequential `keras.Model`, trained or
            not. It is never changed: a copy is trained. A Sequential model
            without `keras.Input` is built on the shape of x, as by `fit`.
        x, y: what `Model.fit` takes. Each batch of a generator is used once;
            when it has no more, training ends.
        prune: how to make it smaller: options of `kr.prune`, such as
            {"ratio": 0.1}, for each cut; or a list of them, one for each cut,
            such as a schedule of tau; or a function that takes the model and
            returns a smaller one, such as

                lambda model: kr.merge_correlated(
                    model, x, count=10, optimizer=True
                )
        epochs: how many there are in all, as for `Model.fit`.
        floor: what `monitor` has to hold for a cut, and for a model to count.
            By default what it is at best in the first `start` epochs, less
        max_drop: by how much it may fall below that.
        monitor: an entry of the logs, a number, of validation data for one
            that starts with "val_". After epochs without it, as by
            `validation_freq`, nothing is decided: that waits for the next one
            with it. What is NaN or infinite does not hold the floor.
        mode: "max" if more is better, "min" if less is, as of a loss, which
            makes of the floor a ceiling; "auto" tells by the name.
        start: after so many epochs the first cut may come.
        every: the epochs between two cuts, at least.
        patience: so many epochs in a row may miss the floor before training
            ends.
        checkpoint: a folder in which all is kept after each epoch: call it
            again with the same arguments after it was killed, and it goes on
            there. `epochs`, `callbacks` and `verbose` may be others; all else
            is compared, the weights and data too, so that a model with random
            weights has to be made after `keras.utils.set_random_seed`. Of
            large arrays some rows are compared; of data in batches, what kind
            they are. Files of others in that folder are left alone.
        seed: given, or chosen for `checkpoint`, each epoch or, without
            checkpoint, each cut begins with `keras.utils.set_random_seed` of
            it and the epoch, so that what was killed ends as if it was not.
        callbacks: as for `Model.fit`. With `checkpoint`, what they keep for
            themselves, such as the counter of `EarlyStopping`, is lost when a
            process is killed.
        verbose, initial_epoch, **options: as for `Model.fit`:
            `validation_data`, `batch_size`, ...

    Returns:
        A `Pruned`: its `model` is the smallest one that held the floor, as it
        was after its best epoch, without `NoiseOutputs`.

    Raises:
        TypeError: an argument is of a wrong type, or the model has no graph.
        ValueError: the model is not compiled, `monitor` is not in the logs or
            needs validation data that are not there, a callback wants to
            restore weights, an argument is out of range, `checkpoint` holds
            another training, or `prune` returns something else than a smaller
            model.

    Warns:
        UserWarning: the floor was never held, so nothing was cut; or of what
            was lost when a process was killed.

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
    the threshold is reached, remove, go on.
    """
    check_count("epochs", epochs)
    check_count("start", start)
    check_count("every", every)
    check_count("patience", patience, least=0)
    check_count("initial_epoch", initial_epoch, least=0)
    check_finite("max_drop", max_drop)
    check_option("mode", mode, MODES)
    check_seed(seed)
    if floor is not None:
        check_finite("floor", floor, least=-math.inf)
    _require_validation_data(monitor, options)
    _require_no_restoring(callbacks)
    settings = Settings(
        cutter=_cutter_of(prune),
        epochs=epochs,
        floor=floor,
        max_drop=max_drop,
        monitor=monitor,
        less_is_better=_is_less_better(monitor, mode),
        first=initial_epoch + start,
        every=every,
        patience=patience,
        seed=seed,
        speaks=verbose != 0,
    )
    batches = shared(x, options.get("steps_per_epoch"))
    build_on(model, batches)
    run = Run(settings, model, initial_epoch)
    if checkpoint is not None:
        compared = {
            "x": x,
            "y": y,
            "prune": prune,
            "floor": floor,
            "max_drop": max_drop,
            "monitor": monitor,
            "mode": mode,
            "start": start,
            "every": every,
            "patience": patience,
            "seed": seed,
            "initial_epoch": initial_epoch,
            **options,
        }
        run.keep_in(Checkpoint(checkpoint, model, compared))
    return run.through(batches, y, callbacks or [], verbose, options)


def _require_validation_data(monitor, options):
    if not isinstance(monitor, str):
        raise TypeError(
            f"monitor is {monitor!r}, but has to be the name of an entry of "
            "the logs, such as 'val_accuracy'."
        )
    if (
        monitor.startswith("val_")
        and options.get("validation_data") is None
        and not options.get("validation_split")
    ):
        raise ValueError(
            f"monitor={monitor!r} is measured on validation data, but there "
            "are none. Pass validation_data=(x, y) or validation_split=0.1; "
            "on the training data alone a smaller model looks better than it "
            "is."
        )


def _require_no_restoring(callbacks):
    for callback in keras.tree.flatten(callbacks or []):
        if getattr(callback, "restore_best_weights", False):
            raise ValueError(
                f"{type(callback).__name__}(restore_best_weights=True) would "
                "give the weights of one model to a smaller one. Leave "
                "restore_best_weights out: fit_and_prune returns the best "
                "model that held the floor."
            )
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "BackupAndRestore cannot restore a model of another size. "
                "Pass checkpoint=<folder> to fit_and_prune instead."
            )


def _is_less_better(monitor, mode):
    if mode == "auto":
        return monitor.endswith(("loss", "error"))
    return mode == "min"


def _cutter_of(prune) -> Callable:
    """A function of a model and the number of the cut that returns a model.

    Or None if no more is to be cut.
    """
    if callable(prune):
        return lambda model, number: prune(model)
    if isinstance(prune, Mapping):
        return lambda model, number: _pruned(model, prune)
    is_list = isinstance(prune, Sequence) and not isinstance(prune, str)
    if not is_list or not all(isinstance(each, Mapping) for each in prune):
        raise TypeError(
            "prune is a mapping of options of kr.prune, a list of them, or a "
            f"function of a model, but received {prune!r}."
        )
    return lambda model, number: (
        _pruned(model, prune[number]) if number < len(prune) else None
    )


def _pruned(model, options):
    return pruned_by(model, **{"optimizer": True, **options})
