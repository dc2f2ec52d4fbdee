"""Fuse vectors that have become parallel, while a model is trained."""

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy._shared import arguments
from keras_redundancy.building.stock import warn_of_layers
from keras_redundancy.low_rank.dropouts import DropoutRates, has_dropout
from keras_redundancy.low_rank.factorized import factorized_layers
from keras_redundancy.low_rank.joining import join_slots
from keras_redundancy.low_rank.kept_pairs import share_out
from keras_redundancy.low_rank.shrinking import shrink


class DynamicLowRank(keras.callbacks.Callback):
    """Dynamic low-rank approximation: fuses parallel vectors during `fit`.

    Every `every` steps, and at the end of each epoch, the rows and columns of
    W that have become parallel are fused in all factorized layers (see
    `factorize`), and the optimizer's momenta with them. Up to the angles that
    `tau_cos` allows, the model computes what it did before. `apply_rare` has
    training make vectors parallel. Shapes do not change, so nothing is
    compiled again, until `shrink` or, after `fit`, `compact` makes the layers
    smaller.

    At the end of each epoch the logs get "factorized_weights": how many
    numbers of W are in use, in all factorized layers together.

    Args:
        tau_cos: vectors with 1 - |cos| below this are parallel, if `tau_euc`
            holds too.
        tau_euc: the limit of their distance, after the shorter one is scaled
            to the norm of the longer one, in units of the root mean square
            norm of the vectors in use.
        every: after how many steps (calls of the training function) parallel
            vectors are looked for.
        dropout: whether to lower the rate of a `Dropout` behind a factorized
            layer as columns are fused: to the rate at the start of `fit` times
            the share of columns in use now among those in use then. This needs
            a functional or Sequential model. If a rate changes by a tenth or
            more at the end of an epoch, the training function is compiled
            again.
        shrink: the share of the numbers of W, in all layers together, that
            must be out of use for W and its slots to be made smaller at the
            end of an epoch; None leaves this to `compact`. The training
            function is compiled again. A callback that restores weights, such
            as `EarlyStopping(restore_best_weights=True)`, cannot go back to
            weights from before.
        verbose: 1 prints the sizes in use at the end of each epoch.

    Attributes:
        sizes: a list with {layer name: (rows, columns)} of each epoch: the
            sizes in use at its end.

    Raises:
        TypeError, ValueError: an argument is of a wrong type or out of range;
            or, in `fit`, the model has no factorized layer, or `shrink` is
            given and it is trained on several devices.

    Example:

        model = kr.factorize(kr.apply_rare(model, 1.0))
        model.fit(x, y, callbacks=[kr.callbacks.DynamicLowRank()])
        small = kr.compact(model)

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021), algorithm 1.
    """

    def __init__(
        self,
        tau_cos: float = 1e-4,
        tau_euc: float = 0.1,
        every: int = 200,
        dropout: bool = True,
        shrink: float | None = None,
        verbose: int = 0,
    ):
        super().__init__()
        self.tau_cos = arguments.check_fraction(
            "tau_cos",
            tau_cos,
            "the 1 - |cos| below which vectors are fused",
            example=1e-4,
        )
        self.tau_euc = arguments.check_finite("tau_euc", tau_euc)
        arguments.check_count("every", every)
        if shrink is not None:
            meaning = "the share of W that must be out of use to shrink it"
            arguments.check_fraction("shrink", shrink, meaning, example=0.2)
        self.every, self.dropout, self.verbose = every, dropout, verbose
        self.shrink = shrink
        self.sizes = []

    def on_train_begin(self, logs=None):
        self._layers = factorized_layers(self.model)
        if not self._layers:
            raise ValueError(
                f"The model {self.model.name!r} has no factorized layer, so "
                "there is nothing to fuse. Make a copy that has some with "
                "kr.factorize(model), and compile and fit that copy."
            )
        if self.shrink is not None and _keras.replicas(self.model) > 1:
            raise ValueError(
                f"The model {self.model.name!r} is trained on "
                f"{_keras.replicas(self.model)} devices at once, where the "
                "shapes of variables cannot change. Pass shrink=None, and call "
                "kr.compact(model) after fit."
            )
        warn_of_layers(self.model)
        self._steps = 0
        self._lowers_dropout = self.dropout and has_dropout(self.model)
        self._rates = None
        if self.model.built:
            self._note_rates()

    def _note_rates(self):
        """Remember the `Dropout` rates at the start of `fit`.

        A Sequential model without an Input is built in the first step, and
        has no graph before that.
        """
        if self._lowers_dropout and self._rates is None:
            self._rates = DropoutRates(self.model, self._layers)

    def on_train_batch_begin(self, batch, logs=None):
        # Not at the end of a batch: if a callback has a method for that, Keras
        # waits for each step to be done.
        if self._steps and self._steps % self.every == 0:
            self.fuse()
        self._steps += 1

    def on_epoch_end(self, epoch, logs=None):
        self.fuse()
        sizes = {layer.name: layer.sizes for layer in self._layers}
        self.sizes.append(sizes)
        if logs is not None:
            logs["factorized_weights"] = self._in_use()
        is_lower = self._rates is not None and self._rates.lower()
        if self._shrink():
            _keras.forget_functions(self.model)
        elif is_lower:
            self.model.make_train_function(force=True)
        if self.verbose:
            shown = (f"{x} {m} x {n}" for x, (m, n) in sizes.items())
            print(f"Epoch {epoch + 1}: sizes in use:", ", ".join(shown))

    def fuse(self) -> int:
        """Fuse the vectors that are parallel now.

        Returns:
            How many vectors are no longer in use.
        """
        model = self.model  # On JAX, this updates the model's variables.
        self._note_rates()
        count = 0
        for layer in self._layers:
            done = layer.fuse_parallel(self.tau_cos, self.tau_euc)
            if done:
                join_slots(model.optimizer, layer.kernel, done)
            count += len(done)
        if count:
            share_out(self._layers)
        return count

    def _in_use(self):
        return sum(layer.weights_of(layer.sizes) for layer in self._layers)

    def _shrink(self):
        """Make W smaller if enough of it is out of use.

        Returns:
            Whether the W of a layer was made smaller.
        """
        if self.shrink is None:
            return False
        held = sum(np.prod(layer.kernel.shape) for layer in self._layers)
        if self._in_use() > (1 - self.shrink) * held:
            return False
        optimizer = self.model.optimizer
        return any([shrink(layer, optimizer) for layer in self._layers])
