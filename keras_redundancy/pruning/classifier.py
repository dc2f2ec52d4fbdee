"""Fit the last kernel of a classifier to the original's probabilities.

Least squares take an error of a score for what it is, though it says little
of the classes where they are clear. The cross-entropy knows: the last kernel
of the smaller model is fitted to the probabilities of the original one, which
takes no labels.

Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network
(2015), for one layer, where the problem is convex.
"""

import dataclasses

import keras
import numpy as np
from keras import layers, ops
from scipy import optimize, special

from keras_redundancy import _keras_internals as internals
from keras_redundancy.calibration.data import batches
from keras_redundancy.calibration.observer import Run, Watch, unchanged
from keras_redundancy.calibration.pairs import paired_calls

# So many samples are looked at, of no more numbers in all: they are kept.
SAMPLES = 8192
NUMBERS = 2**25
STEPS = 200

# The probabilities that losses make of logits.
LINKS = {
    "categorical_crossentropy": "softmax",
    "sparse_categorical_crossentropy": "softmax",
    "binary_crossentropy": "sigmoid",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """The last layer of a model and of the smaller one.

    Attributes:
        old, new: the `Dense` layers.
        reads: keys of the tensors that they are called on.
        link: "softmax" or "sigmoid": makes probabilities of what they return.
    """

    old: layers.Dense
    new: layers.Dense
    reads: tuple
    link: str


def fit_classifier(old, new, data, batch_size: int) -> None:
    """Fit the last kernel of `new`, in place, if it is a classifier's.

    That is a `Dense` layer which returns the only output of the model, with
    softmax or sigmoid in it or behind it, or with a compiled cross-entropy
    that takes logits.

    Args:
        old: the original model.
        new: the smaller one, which is changed.
        data: what `Model.predict` takes.
        batch_size: for arrays.
    """
    found = _classifier(old, new)
    if found is None:
        return
    features, scores = _last_inputs(old, new, found, data, batch_size)
    own = found.new
    weights = [np.asarray(own.kernel, np.float64)]
    if own.bias is not None:
        weights.append(np.asarray(own.bias, np.float64)[None])
        features = np.column_stack([features, np.ones(len(features))])
    start = np.concatenate(weights)
    # A change of the kernel by one, for each deviation of an input, is as
    # dear as an error of one sample.
    dear = np.full((len(start), 1), features.var(axis=0).mean())
    dear[len(weights[0]) :] = 0
    fitted = _fit(features, scores, start, dear / len(features), found.link)
    own.kernel.assign(fitted[: len(weights[0])])
    if own.bias is not None:
        own.bias.assign(fitted[-1])


def _fit(features, scores, start, dear, link):
    """The weights with the least cross-entropy to what `scores` make."""
    wanted = _probabilities(scores, link)

    def loss(flat):
        change = flat.reshape(start.shape) - start
        own = features @ (start + change)
        error = _probabilities(own, link) - wanted
        value = _entropy(own, wanted, link) + (dear * change**2).sum()
        slope = features.T @ error / len(features) + 2 * dear * change
        return value, slope.reshape(-1)

    found = optimize.minimize(
        loss,
        start.reshape(-1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS},
    )
    return found.x.reshape(start.shape)


def _probabilities(scores, link):
    if link == "softmax":
        return special.softmax(scores, axis=1)
    return special.expit(scores)


def _entropy(scores, wanted, link):
    """The mean cross-entropy of a sample."""
    if link == "softmax":
        partition = special.logsumexp(scores, axis=1)
    else:
        partition = np.logaddexp(0, scores).sum(axis=1)
    return (partition - (wanted * scores).sum(axis=1)).mean()


def _last_inputs(old, new, found, data, batch_size):
    """What the new kernel reads, and what the old layer computes of it."""
    watch = LastInputs(old, new, found)
    numbers = max(found.new.kernel.shape)
    enough, count = min(SAMPLES, NUMBERS // numbers), 0
    features, scores = [], []
    with unchanged(watch):
        for batch in batches(old, data, batch_size):
            answer = watch.predict_on_batch(batch)
            features.append(answer[0])
            scores.append(answer[1])
            count += len(answer[0])
            if count >= enough:
                break
    return tuple(
        np.concatenate(parts).astype(np.float64) for parts in (features, scores)
    )


class LastInputs(Watch):
    """Returns what `_last_inputs` does, for a batch."""

    def __init__(self, old, new, found):
        super().__init__(old)
        self.new, self.found = new, found

    def call(self, tensors):
        seen = []
        models = self.model, self.new
        for model, key in zip(models, self.found.reads, strict=True):
            run = Run(frozenset([key]))
            run.through(internals.graph_of(model), tensors)
            seen.append(ops.cast(run.seen[key], "float32"))
        last = self.found.old
        scores = ops.matmul(seen[0], ops.cast(last.kernel, "float32"))
        if last.bias is not None:
            scores = scores + ops.cast(last.bias, "float32")
        return [seen[1], scores]


def _classifier(old, new):
    """The `Classifier`, or None if the models end otherwise."""
    pairs = list(paired_calls(old, new))
    outputs, last = internals.graph_of(old).outputs, pairs[-1][0]
    if len(outputs) > 1 or internals.origin(outputs[0]) is not last.operation:
        return None
    link = _link_of(last.operation)
    if link and type(last.operation) is not layers.Dense:
        # It stands behind the layer with the kernel.
        pairs.pop()
        if not _ends_linear(pairs, last.inputs[0]):
            return None
    elif link is None and _ends_linear(pairs, outputs[0]):
        link = _link_of_loss(old)
    if link is None or not _is_last_dense(pairs):
        return None
    *calls, paths = pairs[-1]
    keys = tuple(
        (*path, id(call.inputs[0]))
        for path, call in zip(paths, calls, strict=True)
    )
    return Classifier(*(call.operation for call in calls), keys, link)


def _ends_linear(pairs, tensor):
    """Whether the last call returns a tensor, and has no activation."""
    if not pairs or internals.origin(tensor) is not pairs[-1][0].operation:
        return False
    return _activation(pairs[-1][0].operation) == "linear"


def _is_last_dense(pairs):
    """Whether the last call is of a `Dense` that is called but once."""
    old, new = (call.operation for call in pairs[-1][:2])
    return (
        type(old) is layers.Dense
        and sum(pair[0].operation is old for pair in pairs) == 1
        and len(pairs[-1][0].inputs[0].shape) == 2
        and old.kernel.shape[-1] == new.kernel.shape[-1]
    )


def _activation(layer):
    activation = getattr(layer, "activation", None)
    return activation and keras.activations.serialize(activation)


def _link_of(operation):
    """The probabilities that an operation makes of what it is given."""
    if isinstance(operation, layers.Softmax):
        return "softmax" if operation.axis in (-1, 1) else None
    name = None
    if type(operation) in (layers.Dense, layers.Activation):
        name = _activation(operation)
    return name if name in ("softmax", "sigmoid") else None


def _link_of_loss(model):
    arguments = internals.compile_arguments(model) or {}
    name, takes_logits = internals.loss_function(arguments.get("loss"))
    return LINKS.get(name) if takes_logits else None
