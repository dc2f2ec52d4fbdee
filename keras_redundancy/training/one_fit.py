"""Several calls of `fit` that are one to the callbacks."""

import time

import keras

from keras_redundancy import _keras


class WholeHistory(keras.callbacks.History):
    """A `History` that may have begun before this process."""

    def __init__(self, values=None, epochs=()):
        """Args:
        values: what it knows already, {name: a number for each epoch}.
        epochs: the numbers of these epochs.
        """
        super().__init__()
        self.history, self.epoch = dict(values or {}), list(epochs)

    def on_train_begin(self, logs=None):
        """Keras would forget the epochs."""


class OneFit(keras.callbacks.CallbackList):
    """Tells callbacks of the first beginning and the last end alone."""

    def __init__(self, callbacks, model, batches=None, *, verbose, **params):
        """Args:
        callbacks: in their order, before the progress bar.
        model: the first one that is trained.
        batches: the `Batches` that are trained on, or None.
        verbose, **params: those that `fit` gives to callbacks.
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
        # To be asked for at each batch: on JAX `self.model` copies the state.
        self._per_step = model.steps_per_execution
        super().set_model(model)

    def on_train_batch_begin(self, batch, logs=None):
        """Keras begins one more than there are, if it was not told."""
        if self._batches is None or self._batches.use(self._per_step):
            super().on_train_batch_begin(batch, logs)

    def on_train_begin(self, logs=None):
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs=None):
        """Not yet: see `finish`."""
        _keras.flush(self)
        self._logs = logs

    def finish(self) -> None:
        """Tell the callbacks that training has ended."""
        if self._begun:
            super().on_train_end(self._logs)


class Watch(keras.callbacks.Callback):
    """Logs the size of the model, before all others look at the logs.

    Attributes:
        sizes: what is logged, {name: number}.
        first_step: how long the first step since `restart` took, in seconds,
            which is mostly compiling; None if it is not known yet.
    """

    def __init__(self):
        super().__init__()
        self.sizes = {}
        self.restart()

    def restart(self) -> None:
        self.first_step, self._began = None, None

    def on_train_batch_begin(self, batch, logs=None):
        # With something to do at the end of a batch, Keras waits for each.
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
    """Asks after each epoch, when all others have seen it, how to go on.

    Attributes:
        was_stopped: whether another callback has ended the training.
    """

    def __init__(self, decide):
        """`decide(epoch, logs, model)`: whether this call of `fit` ends."""
        super().__init__()
        self._decide = decide
        self.was_stopped = False
        self._weights = None

    def on_epoch_end(self, epoch, logs=None):
        model = self.model  # On JAX this brings the state to its variables.
        self.was_stopped = bool(model.stop_training)
        ends = self._decide(epoch, logs, model)
        if ends and _keras.averages_weights(model.optimizer):
            self._weights = copies(model.variables)
        if ends:
            model.stop_training = True

    def undo_averaging(self, model) -> None:
        """At its end `fit` makes averages the weights: go on with these."""
        if self._weights is not None:
            assign(model.variables, self._weights)
            self._weights = None


def copies(variables) -> list:
    """The values of variables, on their device."""
    return [keras.ops.copy(variable) for variable in variables]


def assign(variables, values) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
