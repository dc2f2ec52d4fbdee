"""Callbacks see several calls of `fit` as a single one."""

import time

import keras

from keras_redundancy import _keras


class WholeHistory(keras.callbacks.History):
    """A `History` that continues the one of a checkpoint."""

    def __init__(self, values=None, epochs=()):
        """Args:
        values: the history so far, {name: a number for each epoch}.
        epochs: the numbers of these epochs.
        """
        super().__init__()
        self.history, self.epoch = dict(values or {}), list(epochs)

    def on_train_begin(self, logs=None):
        """Keras would clear the history here."""


class OneFit(keras.callbacks.CallbackList):
    """Calls `on_train_begin` and `on_train_end` once for several `fit`s."""

    def __init__(self, callbacks, model, batches=None, *, verbose, **params):
        """Args:
        callbacks: a list; the progress bar is added behind it.
        model: the model of the first `fit`.
        batches: the `Batches` of the training data, or None.
        verbose, **params: the parameters that `fit` passes to callbacks.
        """
        super().__init__(
            callbacks,
            add_progbar=bool(verbose),
            model=model,
            verbose=verbose,
            **params,
        )
        self._begun, self._logs, self._batches = False, None, batches

    def set_model(self, model):
        # Read here, not at each batch: `self.model` copies the state on JAX.
        self._per_step = model.steps_per_execution
        super().set_model(model)

    def on_train_batch_begin(self, batch, logs=None):
        """Keras calls this once too often where it does not know the length."""
        if self._batches is None or self._batches.use(self._per_step):
            super().on_train_batch_begin(batch, logs)

    def on_train_begin(self, logs=None):
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs=None):
        """Keep the logs: `finish` calls the callbacks."""
        _keras.flush(self)
        self._logs = logs

    def finish(self) -> None:
        """Call `on_train_end` of the callbacks."""
        if self._begun:
            super().on_train_end(self._logs)


class Watch(keras.callbacks.Callback):
    """Logs the size of the model; it comes before all other callbacks.

    Attributes:
        sizes: {name: number} that is added to the logs of each epoch.
        first_step: seconds that the first step since `restart` took, most of
            them compiling; None before that step has ended.
    """

    def __init__(self):
        super().__init__()
        self.sizes = {}
        self.restart()

    def restart(self) -> None:
        self.first_step, self._began = None, None

    def on_train_batch_begin(self, batch, logs=None):
        # Not in on_train_batch_end: Keras would wait for each batch.
        if self.first_step is None:
            now = time.perf_counter()
            if self._began is not None:
                self.first_step = now - self._began
            self._began = now

    def on_epoch_end(self, epoch, logs=None):
        if self.first_step is None and self._began is not None:
            self.first_step = time.perf_counter() - self._began
        logs.update(self.sizes)


class Judge(keras.callbacks.Callback):
    """Decides after each epoch whether `fit` ends; the last callback.

    Attributes:
        was_stopped: whether another callback has ended the training.
    """

    def __init__(self, decide):
        """`decide(epoch, logs, model)` returns whether this `fit` ends."""
        super().__init__()
        self._decide = decide
        self.was_stopped = False
        self._weights = None

    def on_epoch_end(self, epoch, logs=None):
        model = self.model  # On JAX this writes the state to the variables.
        self.was_stopped = bool(model.stop_training)
        ends = self._decide(epoch, logs, model)
        if ends and _keras.averages_weights(model.optimizer):
            self._weights = copies(model.variables)
        if ends:
            model.stop_training = True

    def undo_averaging(self, model) -> None:
        """Restore the weights, which `fit` at its end replaced by averages."""
        if self._weights is not None:
            assign(model.variables, self._weights)
            self._weights = None


def copies(variables) -> list:
    """Copies of the values of variables, on their device."""
    return [keras.ops.copy(variable) for variable in variables]


def assign(variables, values) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
