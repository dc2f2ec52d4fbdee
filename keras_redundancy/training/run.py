"""One run of `fit_and_prune`: train, cut, keep the best model."""

import dataclasses
import math
import time
from collections.abc import Mapping

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared.plain import plain
from keras_redundancy._shared.warn import warn
from keras_redundancy.building.copying import copy_for_training
from keras_redundancy.building.stock import parameters_after_training
from keras_redundancy.building.stripping import stock
from keras_redundancy.planning.budgets import OutOfReachError
from keras_redundancy.planning.plans import prune
from keras_redundancy.training import one_fit
from keras_redundancy.training.batches import Batches, begin_anew
from keras_redundancy.training.directions import less_is_better
from keras_redundancy.training.results import Cut, Pruned
from keras_redundancy.training.state import Best, Progress


class PruningRun:
    """One training with cuts between epochs."""

    def __init__(self, settings, model, epochs: int, verbose):
        self.settings, self.epochs = settings, epochs
        self.verbose = 1 if verbose == "auto" else verbose
        self.model = copy_for_training(model)
        self.best, self.checkpoint = None, None
        self.progress = Progress(
            settings.initial_epoch, settings.floor, settings.seed
        )
        self.history = one_fit.WholeHistory()
        self._due, self._goes_on = False, False
        self._validation_freq, self._begins_anew = 1, False
        self._less_is_better = None  # Asked once there are metrics.

    def keep_in(self, checkpoint) -> None:
        """Continue from a checkpoint, and save each epoch to it."""
        self.checkpoint = checkpoint
        found = checkpoint.load()
        if found is None:
            if self.progress.seed is None:
                drawn = np.random.SeedSequence().generate_state(1)[0]
                self.progress.seed = int(drawn) % 2**31
            return
        state, self.model, best = found
        self.history = one_fit.WholeHistory(**state["history"])
        self._goes_on = True
        cuts = [Cut(**cut) for cut in state["progress"].pop("cuts")]
        self.progress = Progress(**state["progress"], cuts=cuts)
        if self.progress.epoch < self.epochs and self.progress.ran_out:
            self.progress.reason = None
        if best is not None:
            weights = one_fit.copies(best.variables)
            self.best = Best(best, weights, **state["best"])

    def through(self, x, y, callbacks, options) -> Pruned:
        """Train until the end.

        Args:
            x: what `Model.fit` takes, or `Batches`.
            y, callbacks: as for `Model.fit`.
            options: further arguments of `Model.fit`.
        """
        callbacks = keras.tree.flatten(callbacks)
        self._validation_freq = options.get("validation_freq", 1)
        if isinstance(x, Batches) or _keras.is_torch_dataloader(x):
            # Keras warns that it cannot shuffle them.
            options = {"shuffle": False, **options}
        if isinstance(x, Batches):
            batches, steps = x, options.get("steps_per_epoch")
        else:
            batches, steps = None, _keras.number_of_batches(x, y, options)
        self._begins_anew = begin_anew(x, y, options)
        self.watch, self.judge = one_fit.Watch(), one_fit.Judge(self._decide)
        self.one_fit = one_fit.OneFit(
            [self.watch, *callbacks, self.history, self.judge],
            self.model,
            batches,
            verbose=self.verbose,
            epochs=self.epochs,
            steps=steps,
        )
        if self._goes_on and callbacks and self.progress.reason is None:
            self._say_what_was_lost(callbacks)
        if self.checkpoint is not None and not self._goes_on:
            self._save()
            self.checkpoint.check()
        while not self._is_over(batches):
            self._fit(x if batches is None else batches.rest(), y, options)
            self._after_fit()
        self.one_fit.finish()
        return self._result()

    def _is_over(self, batches):
        """Whether training has ended; sets `progress.reason` if so."""
        progress = self.progress
        if progress.reason is None and progress.epoch >= self.epochs:
            progress.reason = f"there were no more than {self.epochs} epochs"
            settings = self.settings
            if self.epochs <= settings.initial_epoch + settings.start:
                progress.reason += "; no cut comes after the last one"
            progress.ran_out = True
        elif progress.reason is None and batches and batches.have_ended():
            progress.reason = "the data had no more batches"
        return progress.reason is not None

    def _fit(self, x, y, options):
        """Train until a cut or a checkpoint is due."""
        progress = self.progress
        if progress.seed is not None:
            keras.utils.set_random_seed(progress.seed + progress.epoch)
        elif self._begins_anew and self.watch.first_step is not None:
            # TensorFlow would shuffle as in the call before.
            keras.utils.set_random_seed(int(np.random.randint(2**31)))
        self.watch.restart()
        self.watch.sizes = {"parameters": parameters_after_training(self.model)}
        with _keras.quiet_about_retracing():
            self.model.fit(
                x,
                y,
                callbacks=self.one_fit,
                epochs=self.epochs,
                initial_epoch=progress.epoch,
                **options,
            )

    def _say_what_was_lost(self, callbacks):
        names = sorted({type(callback).__name__ for callback in callbacks})
        warn(
            f"Training goes on after epoch {self.progress.epoch}. What "
            f"{', '.join(names)} kept for themselves is not in the checkpoint: "
            "they begin anew.",
        )

    def _decide(self, epoch, logs, model):
        """Record an epoch; whether this call of `fit` ends after it."""
        progress = self.progress
        progress.epoch = epoch + 1
        if progress.cuts and progress.cuts[-1].retrace is None:
            progress.cuts[-1].retrace = self.watch.first_step
        self._due, value = False, self._value_in(logs)
        if value is not None:
            self._weigh(value, model)
        is_number = value is not None and math.isfinite(value)
        progress.value = value if is_number else None
        if self.judge.was_stopped:
            progress.reason = "a callback ended the training"
        ends = self._due or progress.reason is not None
        return ends or self.checkpoint is not None

    def _weigh(self, value, model):
        """Compare a monitored value with the floor: is a cut or the end due?"""
        settings, progress = self.settings, self.progress
        if self._less_is_better is None:
            self._less_is_better = less_is_better(
                settings.monitor, settings.mode, model
            )
        is_finite = math.isfinite(value)
        if is_finite and (
            progress.top is None or self._holds(value, progress.top)
        ):
            progress.top = value
        ready = progress.epoch >= settings.initial_epoch + settings.start
        if ready and progress.floor is None and progress.top is not None:
            sign = 1 if self._less_is_better else -1
            progress.floor = progress.top + sign * settings.max_drop
        held = is_finite and progress.floor is not None
        held = held and self._holds(value, progress.floor)
        if held:
            self._remember(model, value)
        progress.missed = 0 if held or not ready else progress.missed + 1
        rested = (
            progress.last_cut is None
            or progress.epoch - progress.last_cut >= settings.every
        )
        is_last = progress.epoch >= self.epochs
        self._due = held and ready and rested and not is_last
        if progress.missed > settings.patience:
            progress.reason = self._why_missed()

    def _why_missed(self):
        floor, count = self.progress.floor, self.progress.missed
        how = "was not finite"
        if floor is not None:
            side = "above" if self._less_is_better else "below"
            how = f"stayed {side} {floor:g}"
        return f"{self.settings.monitor} {how} for {count} epochs"

    def _value_in(self, logs):
        """The monitored value, or None if this epoch has not measured it."""
        monitor = self.settings.monitor
        if monitor not in logs:
            if self._is_not_due(monitor):
                return None
            known = ", ".join(sorted(set(logs) - {"parameters"}))
            raise ValueError(
                f"monitor={monitor!r} is not in the logs, which have {known}. "
                "Pass one of these, or compile the model with that metric."
            )
        value = np.asarray(logs[monitor])
        if value.size != 1:
            raise ValueError(
                f"monitor={monitor!r} is an array of shape {value.shape} in "
                "the logs, but has to be one number. Monitor another entry, "
                "or add a number to the logs with a callback."
            )
        return float(value.reshape(()))

    def _is_not_due(self, monitor):
        """Whether the logs of this epoch may lack the monitored value."""
        epoch, frequency = self.progress.epoch, self._validation_freq
        if isinstance(frequency, int):
            is_validated = epoch % frequency == 0
        else:
            is_validated = epoch in frequency
        was_seen = monitor in self.history.history
        return was_seen or (monitor.startswith("val_") and not is_validated)

    def _holds(self, value, floor):
        if self._less_is_better:
            return value <= floor
        return value >= floor

    def _remember(self, model, value):
        """Keep the smallest model, and of several epochs of it the best."""
        parameters, best = parameters_after_training(model), self.best
        is_better = best is None or parameters < best.parameters
        if not is_better and parameters == best.parameters:
            is_better = self._holds(value, best.value)
        if is_better:
            weights = one_fit.copies(model.variables)
            epoch = self.progress.epoch
            self.best = Best(model, weights, value, epoch, parameters)

    def _after_fit(self):
        self.judge.undo_averaging(self.model)
        if self._due and self.progress.reason is None:
            self._cut()
        if self.checkpoint is not None:
            self._save()

    def _cut(self):
        progress = self.progress
        start = time.perf_counter()
        try:
            smaller = self._smaller()
        except OutOfReachError as error:
            progress.reason = f"no more units can be removed: {error}"
            return
        took = time.perf_counter() - start
        progress.number += 1
        progress.last_cut = progress.epoch
        if smaller is None:
            return
        _require_trainable(smaller, self.model)
        before, after = map(parameters_after_training, (self.model, smaller))
        if after >= before:
            return
        progress.cuts.append(
            Cut(progress.epoch, progress.value, before, after, took)
        )
        if self.verbose:
            print(
                f"Cut after epoch {progress.epoch}: {before:,} -> {after:,} "
                "parameters",
                flush=True,
            )
        self.model = smaller
        self.one_fit.set_model(smaller)

    def _smaller(self):
        """The model after the next cut; None if there is no further cut."""
        if callable(self.settings.prune):
            return self.settings.prune(self.model)
        options, number = self.settings.prune, self.progress.number
        if not isinstance(options, Mapping):
            if number >= len(options):
                return None
            options = options[number]
        return prune(self.model, **{"optimizer": True, **options})

    def _save(self):
        best, progress = self.best, self.progress
        kept = ("value", "epoch", "parameters")
        state = {
            "progress": dataclasses.asdict(progress),
            "best": best and {x: getattr(best, x) for x in kept},
            "history": {
                "values": plain(self.history.history),
                "epochs": self.history.epoch,
            },
        }
        is_new = best is not None and best.epoch == progress.epoch
        self.checkpoint.save(state, self.model, best.model if is_new else None)

    def _result(self):
        best, progress = self.best, self.progress
        if best is not None:
            one_fit.assign(best.model.variables, best.weights)
        else:
            best = Best(self.model, [], progress.value, progress.epoch, 0)
            warn(
                f"{self._why_never_held()} Nothing was cut; the returned model "
                "is that of the last epoch. Train longer, or lower floor=.",
            )
        return Pruned(
            stock(best.model),
            best.value,
            best.epoch,
            self.settings.monitor,
            progress.floor,
            tuple(progress.cuts),
            self.history,
            progress.reason,
        )

    def _why_never_held(self):
        monitor, progress = self.settings.monitor, self.progress
        epochs = f"in all {progress.epoch} epochs."
        if progress.top is None:
            return f"{monitor} was not measured, or not finite, {epochs}"
        if progress.floor is None:
            return f"Training ended before the floor of {monitor} was known."
        return (
            f"{monitor} never held the floor of {progress.floor}: at best it "
            f"was {progress.top:g} {epochs}"
        )


def _require_trainable(smaller, model):
    if not isinstance(smaller, keras.Model):
        raise TypeError(
            f"prune returned {type(smaller).__name__}, but it has to return "
            "a keras.Model, or None for no further cut."
        )
    if not smaller.compiled:
        raise ValueError(
            "prune returned a model that is not compiled, so training cannot "
            "go on. Return what kr.prune(model, ..., optimizer=True) returns, "
            "or call compile() on it."
        )
    shapes = [
        [tuple(x.shape) for x in keras.tree.flatten(m.outputs)]
        for m in (smaller, model)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"prune returned a model with outputs of shapes {shapes[0]}, but "
            f"it was given one with {shapes[1]}. Return a smaller model that "
            "answers the same."
        )
