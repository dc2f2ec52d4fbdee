"""Log redundancy, rank and compression for TensorBoard."""

import collections
import itertools
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import check_count, check_option
from keras_redundancy._shared.extras import needing
from keras_redundancy._shared.files import writable_folder
from keras_redundancy._shared.warn import warn
from keras_redundancy.building.stock import unused_parameters
from keras_redundancy.calibration.observer import Observer, answers
from keras_redundancy.numbers.clustering import LINKAGES
from keras_redundancy.reports.analysis import check_taus, reports
from keras_redundancy.reports.heatmaps import pairwise, similarities

# The name of the run in TensorBoard, beside those of Keras's callback.
RUN = "redundancy"
# For counting zeros.
BATCH_SIZE = 128

# {measure: function of a `LayerReport` and the filters}. The model's measure
# is the mean over its layers.
MEASURES = {
    "mean_similarity": lambda layer, _: layer.mean_similarity,
    "max_similarity": lambda layer, _: layer.max_similarity,
    "effective_rank": lambda layer, _: layer.effective_rank,
    "stable_rank": lambda layer, _: layer.stable_rank,
    "trace_complexity": lambda layer, _: layer.trace_complexity,
    "energy_rank_share": lambda layer, W: layer.energy_rank / min(W.shape),
}


class RedundancyMonitor(keras.callbacks.Callback):
    """Logs redundancy, rank and compression for TensorBoard during `fit`.

    For each layer with units, and for the model, it logs what `analyze`
    measures: redundant units at each tau, similarity, rank, parameters and
    multiply-adds (also as shares of their values when the first `fit` began),
    histograms of the similarities of all pairs of units, and pictures of
    these, ordered by cluster. Training layers count as the stock layers that
    `strip` makes of them: a factorized layer has the filters of P W Q.

    The files are written to the folder "redundancy" in `log_dir`, which may
    be the `log_dir` of a `keras.callbacks.TensorBoard`; both count the same
    steps, epochs or batches. A tag is a measure and a layer, such as
    "n_r_at_0.5/conv2d"; tags of the whole model begin with "model/". A
    Sequential model without `keras.Input` is measured from its second batch.

    Args:
        log_dir: a folder, the argument of `tensorboard --logdir`.
        tau: the thresholds to count redundant units at, in (0, 1]. Pictures
            are ordered by the clusters at the middle one.
        every: "epoch", or a number of batches. With `steps_per_execution`,
            Keras calls callbacks only between two calls of the training
            function: the model is measured at the next of these.
        data: some hundred inputs of the model, to log the share of zeros in
            the outputs of its activations.
        images: whether to log pictures.
        linkage: "average", "complete" or "single".

    Attributes:
        history: {tag: [(step, value), ...]} of all scalars.

    Raises:
        ImportError: TensorBoard is not installed.
        TypeError, ValueError: an argument is of a wrong type or out of range,
            or `log_dir` cannot be written to; in `fit`, the model has no graph
            to follow, or no layer with units.

    Example:

        model.fit(x, y, callbacks=[
            keras.callbacks.TensorBoard("logs"),
            kr.callbacks.RedundancyMonitor("logs"),
        ])

    Source: see `analyze`.
    """

    def __init__(
        self,
        log_dir,
        tau: float | Iterable[float] = (0.5, 0.7, 0.9),
        every: int | str = "epoch",
        data=None,
        images: bool = True,
        linkage: str = "average",
    ):
        super().__init__()
        self.tau = check_taus(tau, "tau")
        check_option("linkage", linkage, LINKAGES)
        if every != "epoch":
            check_count("every", every)
        self.every, self.images, self.linkage = every, images, linkage
        with needing("tensorboard", "RedundancyMonitor needs TensorBoard"):
            from keras_redundancy.reports.event_files import EventFile
        self._writer = EventFile(
            writable_folder("log_dir", Path(log_dir) / RUN)
        )
        self._data, self._observed, self._observer = data, None, None
        self._at_first = None
        self.history = {}

    def on_train_begin(self, logs=None):
        model = self.model
        self._before = self._next = 0  # Batches of earlier epochs.
        self._begun = 0  # The number, in its epoch, of the last batch begun.
        self._at_once = model.steps_per_execution
        self._is_known = False
        self._look_at_model()

    def _look_at_model(self):
        """Once in each `fit`: check the model, and note its first costs.

        A Sequential model may be built only with the first batch.
        """
        if self._is_known:
            return
        model = self.model
        if isinstance(model, keras.Sequential) and not model.built:
            return
        first = self._reports()[0]
        if not first.layers:
            raise ValueError(
                f"The model {model.name!r} has no layer with a kernel, so "
                "there are no units to watch. Leave RedundancyMonitor out."
            )
        self._is_known = True
        if self._at_first is None:
            self._at_first = self._costs(first)

    def on_train_batch_begin(self, batch, logs=None):
        # Not in on_train_batch_end: Keras would wait for each batch.
        self._look_at_model()
        self._begun = batch
        is_due = self.every != "epoch" and self._before + batch >= self._next
        if is_due and self._is_known:
            done = self._before + self._trained_on(batch)
            if done >= self._next:
                self.log(done)
                self._next = done - done % self.every + self.every

    def on_epoch_begin(self, epoch, logs=None):
        self._updates = self._iterations() if self._steps() is None else 0

    def on_epoch_end(self, epoch, logs=None):
        self._look_at_model()
        if self.every == "epoch":
            self.log(epoch)
        steps, end = self._steps(), self._begun + self._at_once
        if steps is not None:
            self._before += min(end, steps)
            return
        on_tensorflow = keras.backend.backend() == "tensorflow"
        if on_tensorflow and self._at_once == 1:
            # The last batch begun was not there, but counts as an update.
            end = self._begun
        self._before += self._trained_on(end)

    def _steps(self):
        """The number of batches of an epoch; None if it is not known."""
        return (self.params or {}).get("steps")

    def _trained_on(self, most):
        """How many batches of this epoch were trained on, at most `most`."""
        if self._steps() is not None or self.model.optimizer is None:
            return most
        count = self._iterations() - self._updates
        least = max(0, self._begun - self._at_once + 1)
        return max(min(count, most), least)

    def _iterations(self):
        return int(getattr(self.model.optimizer, "iterations", 0))

    def log(self, step: int) -> None:
        """Measure the model as it is now, and write the event file."""
        try:
            found = self._reports()
        except ValueError as error:
            warn(
                f"RedundancyMonitor logs nothing at step {step}: {error}",
            )
            return
        scalars = _scalars(found) | self._compression(found[0])
        if self._data is not None:
            scalars |= self._zero_shares()
        for tag, value in scalars.items():
            self.history.setdefault(tag, []).append((step, value))
        pairs, pictures = {}, {}
        tau = self.tau[len(self.tau) // 2]
        for title, (_, W) in found[0].with_pairs.items():
            pairs[f"similarities/{title}"] = pairwise(W)
            if self.images:
                ordered = similarities(W, tau, self.linkage)
                pictures[f"by_cluster/{title}"] = ordered
        self._writer.write(step, scalars, pairs, pictures)

    def _zero_shares(self):
        if self._observed is not self.model:
            self._observed = self.model
            self._observer = ZeroShares(self.model)
        return self._observer.over(self._data)

    def _reports(self):
        return reports(self.model, self.tau, self.linkage)

    def _costs(self, report):
        """Parameters and multiply-adds of the model after `strip`."""
        return {
            "parameters": report.parameters - unused_parameters(self.model),
            "multiply_adds": report.multiply_adds,
        }

    def _compression(self, report):
        scalars = {}
        for name, now in self._costs(report).items():
            if now is not None:
                scalars[f"model/{name}"] = now
            if now:  # Not None, nor the 0 multiply-adds of an Embedding.
                scalars[f"model/{name}_left"] = now / self._at_first[name]
        return scalars


def _scalars(found):
    """{tag: number} for all layers, and their means for the model."""
    scalars = {}
    for report in found:
        tau = f"{report.layers[0].tau:g}"
        shares = []
        for title, (layer, _) in report.by_title.items():
            shares.append(layer.n_r / layer.n)
            scalars[f"n_f_at_{tau}/{title}"] = layer.n_f
            scalars[f"n_r_at_{tau}/{title}"] = layer.n_r
            scalars[f"redundant_share_at_{tau}/{title}"] = shares[-1]
        scalars[f"model/n_r_at_{tau}"] = report.n_r
        scalars[f"model/redundant_share_at_{tau}"] = float(np.mean(shares))
    for measure, of_layer in MEASURES.items():
        values = {
            title: of_layer(layer, matrix)
            for title, (layer, matrix) in found[0].with_pairs.items()
        }
        scalars |= {f"{measure}/{name}": v for name, v in values.items()}
        if values:
            scalars[f"model/{measure}"] = float(np.mean(list(values.values())))
    return scalars


class ZeroShares(Observer):
    """Returns the share of zeros in each sample for each activation.

    That of a layer that is called several times is the mean of its calls.
    Operations on the outputs of the user's layers would stay in their graph.
    """

    def __init__(self, model):
        found = collections.defaultdict(list)
        for call in _keras.flat_graph(model).calls:
            if _activates(call.operation):
                found[call.operation.name].append(call.makes[0])
        super().__init__(model, frozenset(itertools.chain(*found.values())))
        self.names, self.of_layers = tuple(found), tuple(found.values())

    def over(self, data) -> dict[str, float]:
        """{tag: share of zeros over some samples} of all activations."""
        if not self.names:
            return {}
        sums, count = np.zeros(len(self.names)), 0
        for size, found in answers(self, data, BATCH_SIZE):
            sums += [np.sum(shares, dtype=float) for shares in found]
            count += size
        return {
            f"zeros/{name}": float(share)
            for name, share in zip(self.names, sums / count, strict=True)
        }

    def look(self, run):
        return [
            sum(_share_of_zeros(run.seen[key]) for key in keys) / len(keys)
            for keys in self.of_layers
        ]


def _share_of_zeros(x):
    is_zero = ops.cast(ops.equal(x, 0), "float32")
    return ops.mean(is_zero, axis=tuple(range(1, len(x.shape))))


def _activates(operation):
    if isinstance(operation, keras.layers.ReLU):
        return True
    activation = getattr(operation, "activation", None)
    return activation not in (None, keras.activations.linear)
