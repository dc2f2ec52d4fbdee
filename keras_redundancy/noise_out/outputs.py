"""Auxiliary outputs with random targets, which correlate hidden units."""

import math

import keras
from keras import ops

from keras_redundancy._shared import arguments
from keras_redundancy._shared.precision import as_loss, widened
from keras_redundancy.building.stock import register_stock_form
from keras_redundancy.channels import Channels, register_rule
from keras_redundancy.channels.reasons import Reason

DISTRIBUTIONS = ("gaussian", "binomial", "constant")
OUTPUTS = Reason("noise_output", "it is a noise output of {name} ({kind})")


@keras.saving.register_keras_serializable(package="keras_redundancy")
class NoiseOutputs(keras.layers.Layer):
    """Passes its input on and, in training, predicts noise from it.

    In training, `units` noise outputs are computed from the layer before it,
    by a kernel and a bias that are trained, and a loss compares them with
    random targets that are drawn anew in every step. All that can be learned
    about these targets is their mean, so the loss is smallest where the noise
    outputs do not vary with the input. That makes the activations before them
    correlated, and of two correlated units one can be removed (see
    `merge_correlated` and `fit_and_prune`). At inference the layer does
    nothing, and `strip` and `prune` leave it out.

    The loss is

        weight * mean over samples of (sum over noise outputs of errors)

    with squared errors or, for "binomial", binary cross-entropies of the
    outputs as logits. The noise outputs would add as much if each were an
    output of the model with a loss of its own.

    Args:
        units: how many noise outputs there are.
        distribution: of the targets: "gaussian"; "binomial", which is 1 with
            probability `mean` and else 0; or "constant", always `mean`.
        mean: the mean of the targets.
        stddev: the standard deviation of "gaussian" targets.
        weight: a factor of the loss, greater than 0.
        return_outputs: whether to return the noise outputs too, so that they
            can be outputs of the model, as in the paper.
        seed: for the targets.
        **kwargs: those of `keras.layers.Layer`, such as `name`.

    Raises:
        TypeError, ValueError: an argument is of a wrong type or out of range;
            or, when it is built, the input's last axis is open.

    Shapes: the input (batch, ..., channels) is returned as it is; with
    `return_outputs`, a pair of it and the noise outputs (batch, ..., units).

    Example:

        x = keras.layers.Dense(100, activation="relu")(x)
        x = kr.NoiseOutputs(512)(x)
        outputs = keras.layers.Dense(10, activation="softmax")(x)

    Source: Babaeizadeh, Smaragdis and Campbell, A Simple yet Effective Method
    to Prune Dense Layers of Neural Networks (2016), NoiseOut.
    """

    def __init__(
        self,
        units: int,
        distribution: str = "gaussian",
        mean: float = 0.1,
        stddev: float = 0.4,
        weight: float = 1.0,
        return_outputs: bool = False,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        arguments.check_count("units", units)
        arguments.check_option("distribution", distribution, DISTRIBUTIONS)
        self.units, self.distribution = units, distribution
        self.mean = arguments.check_finite("mean", mean, least=-math.inf)
        self.stddev = arguments.check_finite("stddev", stddev)
        self.weight = arguments.check_positive("weight", weight)
        if distribution == "binomial":
            meaning = "the probability of a 1 for distribution='binomial'"
            arguments.check_fraction("mean", mean, meaning, zero=True, one=True)
        arguments.check_seed(seed)
        self.return_outputs, self.seed = return_outputs, seed
        self.generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                "NoiseOutputs has a kernel with a row for each channel of its "
                f"input, but the last axis of the input shape "
                f"{tuple(input_shape)} is open. Give keras.Input a fixed size "
                "there."
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(channels, self.units),
            initializer="glorot_uniform",
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.units,), initializer="zeros"
        )

    def call(self, inputs, training=None):
        if not training and not self.return_outputs:
            return inputs
        outputs = ops.matmul(inputs, self.kernel) + self.bias
        if training:
            self.add_loss(as_loss(self.weight * self._loss(outputs)))
        return (inputs, outputs) if self.return_outputs else inputs

    def _loss(self, outputs):
        outputs = widened(outputs)
        targets = self._targets(ops.shape(outputs), outputs.dtype)
        if self.distribution == "binomial":
            of_samples = keras.losses.binary_crossentropy(
                targets, outputs, from_logits=True
            )
        else:
            of_samples = keras.losses.mean_squared_error(targets, outputs)
        return self.units * ops.mean(of_samples)

    def _targets(self, shape, dtype):
        if self.distribution == "constant":
            return ops.full(shape, self.mean, dtype)
        if self.distribution == "binomial":
            drawn = keras.random.uniform(
                shape, dtype=dtype, seed=self.generator
            )
            return ops.cast(drawn < self.mean, dtype)
        return keras.random.normal(
            shape, self.mean, self.stddev, dtype=dtype, seed=self.generator
        )

    def compute_output_shape(self, input_shape):
        if not self.return_outputs:
            return input_shape
        return input_shape, (*input_shape[:-1], self.units)

    def get_config(self):
        own = ("units", "distribution", "mean", "stddev", "weight")
        own += ("return_outputs", "seed")
        return super().get_config() | {x: getattr(self, x) for x in own}


@register_rule(NoiseOutputs)
def _noise_outputs(layer, call):
    """They stay while training goes on: what goes in comes out."""
    axis = len(call.outputs[0].shape) - 1
    ids = call.labels_on(axis)
    call.read_by(layer.kernel, 0, ids)
    call.keeps(layer.bias)
    noise = [
        Channels(call.new_frozen(layer.units, call.say(OUTPUTS)), axis)
        for _ in call.outputs[1:]
    ]
    return [Channels(ids, axis), *noise]


@register_stock_form(NoiseOutputs)
def _no_form(layer) -> None:
    """The layers behind it read what it read."""
