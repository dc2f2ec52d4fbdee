"""What a model's outputs are, probabilities or values, and how they differ."""

import dataclasses

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import check_option
from keras_redundancy._shared.convolutions import CONVOLUTIONS, TRANSPOSED
from keras_redundancy.channels.activations import Behaviours, Kind

KINDS = ("softmax", "sigmoid", "values")
# What losses say of the outputs that they are computed from.
LOSSES = {
    "categorical_crossentropy": "softmax",
    "categorical_focal_crossentropy": "softmax",
    "sparse_categorical_crossentropy": "softmax",
    "binary_crossentropy": "sigmoid",
    "binary_focal_crossentropy": "sigmoid",
}
ACTIVATED = (
    layers.Activation,
    layers.Dense,
    layers.EinsumDense,
    *CONVOLUTIONS,
    *TRANSPOSED,
)
# Sums of probabilities differ from 1 by no more, in half precision too.
TOLERANCE = 0.02
# What is added to a variance, so that a constant output has one.
LEAST_VARIANCE = 1e-12


@dataclasses.dataclass(frozen=True)
class Output:
    """What one output of a model is.

    Attributes:
        kind: "softmax": probabilities of classes, along the last axis;
            "sigmoid": each number is a probability of its own; "values".
        is_logits: whether the softmax or sigmoid is still to come.
        variance: of the output over samples, the mean of all its numbers.
    """

    kind: str
    is_logits: bool = False
    variance: float = 1.0

    def difference(self, wanted, found, temperature: float):
        """How far outputs are from those that are wanted, a scalar tensor.

        Args:
            wanted, found: tensors of the same shape (samples, ...).
            temperature: T. Logits z are divided by it, and probabilities p
                become softmax(log(p) / T).

        Returns:
            Of values the mean square of the error, divided by the variance;
            of probabilities the divergence of Kullback and Leibler, times
            T^2, the sum over the last axis and the mean over the others.

        Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural
        Network (2015), for T and T^2.
        """
        wanted, found = (ops.cast(x, "float32") for x in (wanted, found))
        if self.kind == "values":
            error = ops.mean(ops.square(found - wanted))
            return error / (self.variance + LEAST_VARIANCE)
        a, b = (self._logits(x) / temperature for x in (wanted, found))
        if self.kind == "softmax":
            logs = ops.log_softmax(a) - ops.log_softmax(b)
            divergence = ops.softmax(a) * logs
        else:
            share = ops.sigmoid(a)
            divergence = ops.softplus(b) - ops.softplus(a) + share * (a - b)
        divergence = ops.mean(ops.sum(divergence, axis=-1))
        return temperature**2 * divergence

    def log_probability(self, found, start):
        """The log-probability of an answer that is drawn at random.

        The answer is drawn from the distribution that a model returns: a
        class, a yes or no for each number, or values around those that it
        returns, with the standard deviation 1.

        Args:
            found: what the model returns, shape (samples, ...).
            start: an integer tensor; others lead to other random numbers.

        Returns:
            A scalar tensor, the sum over samples and positions, without what
            does not depend on `found`.
        """
        found = ops.cast(found, "float32")
        random, steps = (
            keras.random.uniform(ops.shape(found), seed=seed, dtype=found.dtype)
            for seed in (0, 1)
        )
        # Each number takes steps of its own, so that no two go together.
        start = ops.cast(start, "float32") / 2**15
        random = (random + ops.floor(1000 * steps) * start) % 1
        if self.kind == "values":
            drawn = ops.sign(random - 0.5)  # As noise, its square is 1.
            return ops.sum(found * drawn)
        logits = ops.stop_gradient(self._logits(found))
        if self.kind == "softmax":
            noise = -ops.log(-ops.log(ops.clip(random, 1e-7, 1 - 1e-7)))
            best = ops.argmax(logits + noise, axis=-1)
            drawn = ops.one_hot(best, found.shape[-1], dtype=found.dtype)
            return ops.sum(drawn * self.log_probabilities(found))
        drawn = ops.cast(random < ops.sigmoid(logits), "float32")
        logits = self._logits(found)
        return ops.sum(drawn * logits - ops.softplus(logits))

    def log_probabilities(self, found):
        """The logarithms of the probabilities of a softmax."""
        return ops.log_softmax(self._logits(ops.cast(found, "float32")))

    def _logits(self, x):
        if self.is_logits:
            return x
        least = keras.config.epsilon()
        x = ops.clip(x, least, 1 - least)
        return ops.log(x) - (ops.log1p(-x) if self.kind == "sigmoid" else 0)


@keras.saving.register_keras_serializable(package="keras_redundancy")
class Answers(keras.distillation.DistillationLoss):
    """The sum of the differences of all outputs of two models."""

    def __init__(self, outputs: list[Output], temperature: float):
        self.outputs, self.temperature = outputs, temperature

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        wanted, found = map(
            keras.tree.flatten, (teacher_outputs, student_outputs)
        )
        return sum(
            output.difference(*both, self.temperature)
            for output, *both in zip(self.outputs, wanted, found, strict=True)
        )

    def get_config(self):
        outputs = [dataclasses.asdict(output) for output in self.outputs]
        return {"outputs": outputs, "temperature": self.temperature}

    @classmethod
    def from_config(cls, config):
        outputs = [Output(**output) for output in config["outputs"]]
        return cls(outputs, config["temperature"])


def outputs_of(model, kinds, samples: list[NDArray]) -> list[Output]:
    """What each output of a model is.

    Its last layer says it, a softmax or sigmoid; else the loss that the model
    is compiled with; else it is values.

    Args:
        model: a functional or Sequential model.
        kinds: None to find out; or one of `KINDS` for all outputs, or a list
            or mapping with one for each, in the model's structure.
        samples: what the model returns for some samples, by output.

    Raises:
        ValueError: `kinds` are not known, are not as many as outputs, or do
            not fit; or outputs are no probabilities, and the model is
            compiled with a loss for these.
    """
    graph = _keras.flat_graph(model)
    makers = {key: call for call in graph.calls for key in call.makes}
    losses = compiled_by_output(model, "loss")
    found = []
    for number, wanted in enumerate(_each_kind(kinds, len(samples))):
        made = kind_made(makers.get(graph.outputs[number]))
        name = f"The output {number} of {model.name!r}"
        kind, is_logits = _kind_of(
            name, wanted, made, losses[number], samples[number]
        )
        variance = np.var(samples[number].astype("float64"), axis=0).mean()
        found.append(Output(kind, is_logits, float(variance)))
    return found


def _each_kind(kinds, count):
    flat = keras.tree.flatten(kinds) if kinds is not None else [None]
    for kind in flat:
        if kind is not None:
            check_option("outputs", kind, KINDS)
    if len(flat) == 1:
        flat *= count
    if len(flat) != count:
        raise ValueError(
            f"outputs={kinds!r} says what {len(flat)} outputs are, but the "
            f"model has {count}. Pass one word for all of them, or a list with "
            "one for each."
        )
    return flat


def _kind_of(name, wanted, made, loss, samples) -> tuple[str, bool]:
    """(Kind, whether of logits): by request, by the layer, or by the loss."""
    loss_name, takes_logits = _keras.loss_function(loss)
    kind = wanted or made or LOSSES.get(loss_name, "values")
    if kind == "values":
        return kind, False
    if made is not None and made != kind:
        raise ValueError(
            f"{name} is made by a {made}, but outputs={wanted!r} was received. "
            "Leave outputs= out: the layer says what it returns."
        )
    if kind == "softmax" and samples.shape[-1:] == (1,):
        raise ValueError(
            f"{name} has one number a sample, whose softmax is always 1. Pass "
            "outputs='sigmoid' or outputs='values'."
        )
    if made or _are_probabilities(kind, samples):
        return kind, False
    if wanted is None and not takes_logits:
        raise ValueError(
            f"{name} is compiled with {loss_name}, a loss for probabilities, "
            f"but holds numbers from {samples.min():.3g} to "
            f"{samples.max():.3g} that are none. If they are logits, compile "
            "the model with from_logits=True or pass "
            f"outputs={kind!r}; else pass outputs='values'."
        )
    return kind, True


def _are_probabilities(kind, samples):
    is_inside = samples.min() >= 0 and samples.max() <= 1
    if kind == "sigmoid" or not is_inside:
        return is_inside
    sums = samples.astype("float64").sum(axis=-1)
    return bool(np.abs(sums - 1).max() < TOLERANCE)


def kind_made(call):
    """The probabilities that an operation makes, "softmax", "sigmoid"; None."""
    if call is None:
        return None
    operation, nn = call.operation, _keras.nn_operations
    if isinstance(operation, layers.Softmax | nn.Softmax):
        last = -1, len(call.outputs[0].shape) - 1
        return "softmax" if operation.axis in last else None
    if isinstance(operation, nn.Sigmoid):
        return "sigmoid"
    if not isinstance(operation, ACTIVATED):
        return None
    shape = call.outputs[0].shape
    kind = Behaviours().of(operation.activation, shape).kind
    return kind.value if kind in (Kind.SOFTMAX, Kind.SIGMOID) else None


def compiled_by_output(model, what: str) -> list:
    """An argument of `compile` for each output of a model.

    Args:
        model: a functional or Sequential model.
        what: "loss" or "loss_weights".

    Returns:
        A list with None where there is none, or not one for each output.
    """
    graph = _keras.graph_of(model)
    structure = _keras.output_structure(graph)
    count = len(graph.outputs)
    given = (_keras.compile_arguments(model) or {}).get(what)
    if isinstance(given, dict):
        is_dict = isinstance(structure, dict)
        names = sorted(structure) if is_dict else graph.output_names
        given = [given.get(name) for name in names]
    if not isinstance(given, list | tuple):
        return [given] * count
    given = keras.tree.flatten(given)
    return given if len(given) == count else [None] * count
