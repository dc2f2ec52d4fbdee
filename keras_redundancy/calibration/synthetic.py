"""Images made from a model's own statistics, where there are no data."""

from __future__ import annotations  # help() shows the names of types.

import keras
import numpy as np
from keras import layers, ops

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import (
    check_count,
    check_positive,
    check_seed,
)
from keras_redundancy._shared.progress import progress
from keras_redundancy.calibration.noise import pink_noise
from keras_redundancy.calibration.observer import (
    Observer,
    Run,
    restoring_states,
)
from keras_redundancy.calibration.outputs import outputs_of

# What differences of neighbouring pixels and the class count beside the
# statistics of one layer.
TOTAL_VARIATION, CLASSES = 0.01, 0.1


def synthetic_images(
    model: keras.Model,
    samples: int = 256,
    *,
    steps: int = 200,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    mean=0.0,
    stddev=1.0,
    outputs=None,
    seed: int = 0,
    verbose: bool = False,
) -> np.ndarray:
    """Images that look to a model as its training data did, made without data.

        images = kr.synthetic_images(model, samples=512, steps=300)
        small = kr.prune(model, target={"flops": 0.5}, data=images)

    From `pink_noise` on, Adam changes the images until what each
    `BatchNormalization` of the model reads has the mean and the variance that
    the layer stored while the model was trained. Where the model returns
    probabilities of classes, or logits of them, each image is also drawn
    towards a class, all classes by turns. Real samples are better, and
    quicker: each step takes as long as one of training.

    Args:
        model: a functional or Sequential model with one input of known sizes,
            channels last. It is never changed.
        samples: the number of images.
        steps: how often each image is changed.
        batch_size: how many images have the stored statistics together.
        learning_rate: of Adam, in units of `stddev`; it falls to zero along a
            cosine.
        mean, stddev: of the data that the model was trained on, after
            preprocessing, as for `pink_noise`.
        outputs: what the model returns, as for `distill`.
        seed: of the noise.
        verbose: whether to draw a progress bar of the steps.

    Returns:
        A float32 array of shape (samples, height, width, channels).

    Raises:
        TypeError: the model has no graph to follow.
        ValueError: it has no `BatchNormalization`, several inputs or one of
            open sizes; or an option is out of range.

    Source: Yin et al., Dreaming to Distill: Data-free Knowledge Transfer via
    DeepInversion (2020).
    """
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        check_count(name, value)
    check_count("samples", samples)
    check_positive("learning_rate", learning_rate)
    check_seed(seed)
    _require_statistics(model)
    shape = _keras.graph_of(model).inputs[0].shape[1:]
    wanted = samples
    if needed := _keras.needed_batch(model):
        batch_size, samples = needed, -(-samples // needed) * needed
    images = pink_noise(shape, samples, mean=mean, stddev=stddev, seed=seed)
    answers = keras.tree.flatten(model.predict_on_batch(images[:batch_size]))
    kinds = outputs_of(model, outputs, answers)
    observer = MismatchObserver(model, kinds)
    starts = range(0, samples, batch_size)
    count = len(starts) * steps
    shown = progress(verbose, count, "step")
    with restoring_states(observer), shown as done:
        for start in starts:
            part = images[start : start + batch_size]
            rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
            adam = keras.optimizers.Adam(rate)
            numbers = np.arange(start, start + len(part), dtype="int32")
            part += _change(part, numbers, observer, adam, steps, stddev, done)
    return images[:wanted]


def _change(images, numbers, observer, optimizer, steps, stddev, done):
    """What to add to a batch of images, of which `numbers` are the numbers."""
    scale = np.float32(stddev)
    change, found = np.zeros_like(images), keras.Variable(0 * images)
    for _ in range(steps):
        given = [[images + change, numbers]]
        (gradient,) = _keras.predict_on_replicas(observer, given)
        # The learning rate is in units of `stddev`.
        optimizer.apply([ops.convert_to_tensor(scale * gradient)], [found])
        change = scale * ops.convert_to_numpy(found)
        done()
    return change


class MismatchObserver(Observer):
    """Returns the gradient, by the images, of what is to become small.

    That is the sum over `BatchNormalization` layers of how far the statistics
    are from those stored, and the parts of `TOTAL_VARIATION` and `CLASSES`.
    """

    def __init__(self, model, outputs):
        super().__init__(model)
        self._outputs = outputs

    def call(self, inputs):
        images, numbers = inputs

        def loss(x):
            run = _Mismatch()
            found = run.run(self.model, [x])
            classes = [
                _of_classes(output.log_probabilities(y), numbers)
                for output, y in zip(self._outputs, found, strict=True)
                if output.kind == "softmax"
            ]
            total = run.total + TOTAL_VARIATION * _variation(x)
            return total + CLASSES * sum(classes)

        return _keras.gradients(loss, [images])[0]


class _Mismatch(Run):
    """Adds up how far the statistics of batches are from those stored.

    Of each layer, the mean over channels of the squares of the difference of
    the means, in units of the stored deviation, and of that of the logarithms
    of the variances.
    """

    def __init__(self):
        super().__init__()
        self.total = 0.0

    def call(self, call, values):
        layer = call.operation
        if isinstance(layer, layers.BatchNormalization):
            x = ops.cast(values[id(call.inputs[0])], "float32")
            axes = list(range(len(x.shape)))
            del axes[layer.axis]
            mean, variance = ops.moments(x, axes)
            wanted, stored = (
                ops.cast(v, "float32")
                for v in (layer.moving_mean, layer.moving_variance)
            )
            stored, variance = stored + layer.epsilon, variance + layer.epsilon
            self.total = (
                self.total
                + ops.mean(ops.square(mean - wanted) / stored)
                + ops.mean(ops.square(ops.log(variance / stored)))
            )
        return super().call(call, values)


def _of_classes(logs, numbers):
    """Minus the mean log-probability of a class for each image, by turns."""
    count = logs.shape[-1]
    wanted = ops.one_hot(numbers % count, count, dtype=logs.dtype)
    wanted = ops.reshape(wanted, (-1, *[1] * (len(logs.shape) - 2), count))
    return -ops.mean(ops.sum(wanted * logs, axis=-1))


def _variation(x):
    """The mean square of differences of neighbours, along all axes."""
    total = 0.0
    for axis in range(1, len(x.shape) - 1):
        size = x.shape[axis]
        first, second = (
            ops.take(x, range(start, start + size - 1), axis=axis)
            for start in (0, 1)
        )
        total = total + ops.mean(ops.square(second - first))
    return total


def _require_statistics(model):
    """Raise unless images can be made from a model's statistics."""
    inputs = _keras.graph_of(model).inputs
    called = _keras.flat_graph(model).layers
    if not any(isinstance(x, layers.BatchNormalization) for x in called):
        raise ValueError(
            f"{model.name!r} has no BatchNormalization, so nothing in it says "
            "which images it was trained on. Use real samples, or "
            "kr.pink_noise(shape)."
        )
    if len(inputs) != 1:
        raise ValueError(
            f"{model.name!r} has {len(inputs)} inputs, but images can be made "
            "for models with one. Use real samples."
        )
