"""Fuse what has become parallel while a model is trained."""

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import (
    check_count,
    check_finite,
    check_positive,
)
from keras_redundancy.low_rank.factorized import Factorized, share_out
from keras_redundancy.low_rank.fusion import Fusion
from keras_redundancy.low_rank.rare import SIDES


class DynamicLowRank(keras.callbacks.Callback):
    """Dynamic low-rank approximation: joins parallel vectors during `fit`.

    Of the factorized layers (see `factorize`), those rows and columns of W
    that have become parallel are joined, `every` so many steps and at the end
    of each epoch, without a change of what the model computes; the optimizer's
    momenta with them. RaRe (see `apply_rare`) makes them parallel. Shapes
    stay, so that nothing is compiled anew, until `shrink` or, after `fit`,
    `compact` makes the layers smaller.

    At the end of each epoch it logs "factorized_weights", how many numbers of
    W are in use, of all such layers.

    Args:
        tau_cos: two vectors with 1 - |cos| below it are parallel, if also
        tau_euc: their distance, with magnitudes equalised, is below it, in
            units of the root mean square of the sizes of the vectors in use.
        every: the steps (calls of the training function) between two looks.
        dropout: whether to lower the rate of a `Dropout` behind a factorized
            layer by its share of columns left, of those at the start of `fit`.
            That needs a functional or Sequential model. The training function
            is compiled anew at the end of an epoch after which a rate is to
            change by a tenth or more.
        shrink: the share of the numbers of W, of all layers together, that
            have to be out of use for W to be made smaller at the end of an
            epoch, with its slots; None leaves this to `compact`. The training
            function is compiled anew. What keeps weights to restore them, such
            as `EarlyStopping(restore_best_weights=True)`, cannot go back
            behind that.
        verbose: 1 prints the sizes at the end of each epoch.

    Attributes:
        sizes: {layer name: (rows, columns)} at the end of each epoch, a list.

    Raises:
        TypeError, ValueError: an argument is of a wrong type or out of range;
            in `fit`, the model has no factorized layer, or is to shrink on
            several devices.

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
        self.tau_cos = check_positive("tau_cos", tau_cos)
        if self.tau_cos >= 1:
            raise ValueError(
                f"tau_cos={tau_cos!r} counts all vectors as parallel, and all "
                "would be joined. Pass a number in (0, 1), e.g. 1e-4."
            )
        self.tau_euc = check_finite("tau_euc", tau_euc)
        check_count("every", every)
        if shrink is not None and check_positive("shrink", shrink) >= 1:
            raise ValueError(
                f"shrink={shrink!r} waits for W to be out of use as a whole. "
                "Pass a share in (0, 1), e.g. 0.2, or None."
            )
        self.every, self.dropout, self.verbose = every, dropout, verbose
        self.shrink = shrink
        self.sizes = []

    def on_train_begin(self, logs=None):
        self._layers = [
            layer
            for layer in _keras.flat_layers(self.model)
            if isinstance(layer, Factorized)
        ]
        if not self._layers:
            raise ValueError(
                f"The model {self.model.name!r} has no factorized layer, so "
                "there is nothing to join. Make a copy with them by "
                "kr.factorize(model), and compile and fit that."
            )
        if self.shrink is not None and _keras.replicas(self.model) > 1:
            raise ValueError(
                f"The model {self.model.name!r} is trained on "
                f"{_keras.replicas(self.model)} devices at once, where the "
                "shapes of variables cannot change. Pass shrink=None, and call "
                "kr.compact(model) after fit."
            )
        self._steps = 0
        lowers = self.dropout and _has_dropout(self.model)
        self._rates = None if lowers else []
        if self.model.built:
            self._note_rates()

    def _note_rates(self):
        """What rates and numbers of columns there are at the start of `fit`.

        A Sequential model without an Input is built in the first step.
        """
        if self._rates is None:
            self._rates = [
                (dropout, dropout.rate, [(x, x.sizes[1]) for x in before])
                for dropout, before in _dropouts(self.model, self._layers)
            ]

    def on_train_batch_begin(self, batch, logs=None):
        # With something to do at the end of a batch, Keras waits for each.
        if self._steps and self._steps % self.every == 0:
            self.fuse()
        self._steps += 1

    def on_epoch_end(self, epoch, logs=None):
        self.fuse()
        sizes = {layer.name: layer.sizes for layer in self._layers}
        self.sizes.append(sizes)
        if logs is not None:
            logs["factorized_weights"] = self._in_use()
        is_lower = self._lower_dropout()
        if self._shrink():
            _keras.forget_functions(self.model)
        elif is_lower:
            self.model.make_train_function(force=True)
        if self.verbose:
            shown = (f"{x} {m} x {n}" for x, (m, n) in sizes.items())
            print(f"Epoch {epoch + 1}: in use are", ", ".join(shown))

    def fuse(self) -> int:
        """Join what is parallel now; how many vectors went."""
        model = self.model  # On JAX this brings the state to its variables.
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

    def _lower_dropout(self):
        """Lower the rates that are to change; whether there was one."""
        changed = False
        for dropout, rate, layers in self._rates:
            # One that is behind several: as the layer with most columns left.
            rate *= max(layer.sizes[1] / count for layer, count in layers)
            if abs(rate - dropout.rate) > 0.1 * dropout.rate:
                dropout.rate = rate
                changed = True
        return changed

    def _shrink(self):
        """Make W smaller where that pays; whether it was."""
        if self.shrink is None:
            return False
        held = sum(np.prod(layer.kernel.shape) for layer in self._layers)
        if self._in_use() > (1 - self.shrink) * held:
            return False
        optimizer = self.model.optimizer
        done = [layer.shrink(optimizer) for layer in self._layers]
        return any(done)


def join_slots(optimizer, variable, fusions: list[tuple[str, Fusion]]) -> None:
    """Do to an optimizer's slots what `fuse_parallel` did to a kernel.

    One that is not of the kernel's shape starts again from zeros.
    """
    for slot, kind in _keras.slots(optimizer, variable):
        if tuple(slot.shape) != tuple(variable.shape):
            slot.assign(np.zeros(slot.shape))
            continue
        array = np.array(ops.convert_to_numpy(slot), np.float64)
        if kind == "size":
            array = array**2
        for side, fusion in fusions:
            squares = kind in ("square", "size")
            fusion.join(array, SIDES[side], squares=squares)
        slot.assign(np.sqrt(array) if kind == "size" else array)


def _has_dropout(model):
    """Whether it has a `Dropout` layer.

    Raises:
        TypeError: it has, and no graph that tells what it is behind of.
    """
    kind = keras.layers.Dropout
    if not any(isinstance(x, kind) for x in _keras.flat_layers(model)):
        return False
    try:
        _keras.graph_of(model)
    except TypeError as error:
        raise TypeError(
            f"{error} Or pass dropout=False to DynamicLowRank, so that the "
            "rates of its Dropout layers stay as they are."
        ) from None
    except ValueError:
        pass  # It is built in the first step, and has a graph then.
    return True


def _dropouts(model, layers):
    """The `Dropout` layers that the units of some layers go to, one by one.

    Returns:
        [(dropout, [layers that it is behind of]), ...].
    """
    found = {}
    units = {}  # Of whose layers a tensor has the units, by its key.
    for call in _keras.flat_graph(model, steps=True).calls:
        operation, inner = call.operation, _innermost(call.operation)
        read = [x for key in call.reads for x in units.get(key, ())]
        if isinstance(operation, keras.layers.Dropout):
            _, before = found.setdefault(id(operation), (operation, {}))
            before |= {id(layer): layer for layer in read}
        elif any(layer is inner for layer in layers):
            units |= dict.fromkeys(call.makes, (inner,))
        elif _is_by_unit(operation):
            units |= dict.fromkeys(call.makes, tuple(read))
    return [(x, [*before.values()]) for x, before in found.values() if before]


def _innermost(operation):
    """The layer in a wrapper, or in wrappers of it; else the layer itself."""
    while _keras.wraps_one_layer(operation):
        operation = operation.layer
    return operation


def _is_by_unit(operation):
    kinds = (
        keras.layers.Activation,
        keras.layers.ReLU,
        keras.layers.LeakyReLU,
        keras.layers.ELU,
        keras.layers.PReLU,
        keras.layers.BatchNormalization,
    )
    return isinstance(operation, kinds)
