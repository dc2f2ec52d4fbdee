"""LeNet-300-100 and LeNet-5, and how they are cut."""

import math

import keras
from experiments import accuracy, fitted
from keras import layers

import keras_redundancy as kr

NOISE_OUTPUTS = 512
NOISES = ("none", "gaussian", "constant", "binomial")
# Images that correlations are measured on.
SAMPLES = 2000
# Of distillation; chosen on held-out images.
TEMPERATURE, RATE = 5.0, 4e-3


def lenet300(shape, classes, noise="none", weight=0.01):
    inner = [
        layers.Flatten(),
        layers.Dense(300, activation="relu"),
        layers.Dense(100, activation="relu"),
    ]
    return _network(shape, inner, classes, noise, weight)


def lenet5(shape, classes, noise="none", weight=0.01):
    """Convolutions of 20 and 50 filters, and 500 units."""
    padding = "valid" if shape[0] > 20 else "same"
    options = {"padding": padding, "activation": "relu"}
    inner = [
        layers.Conv2D(20, 5, **options),
        layers.MaxPooling2D(),
        layers.Conv2D(50, 5, **options),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(500, activation="relu"),
    ]
    return _network(shape, inner, classes, noise, weight)


def _network(shape, inner, classes, noise, weight):
    if noise != "none":
        inner.append(kr.NoiseOutputs(NOISE_OUTPUTS, noise, weight=weight))
    model = keras.Sequential(
        [keras.Input(shape), *inner, layers.Dense(classes)], name="lenet"
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


NETWORKS = {"lenet300": lenet300, "lenet5": lenet5}


def hidden(model):
    """How many units and filters each hidden layer has."""
    *inner, _ = (x for x in model.layers if hasattr(x, "kernel"))
    return [x.kernel.shape[-1] for x in inner if x.name != "noise_outputs"]


def eager_accuracy(model, images_and_labels, batch_size=1000):
    """In percent, without a traced function.

    Tracing one takes longer than this, and each of many models needs its own.
    """
    images, labels = images_and_labels
    right = 0
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        logits = keras.ops.convert_to_numpy(model(images[part], training=False))
        right += int((logits.argmax(axis=-1) == labels[part]).sum())
    return 100 * right / len(images)


class Cutter:
    """Cuts a model until it falls below a floor: algorithm 1 of the paper.

    Args:
        by: "package", or what noise a network has.
        data: a `Data`.
        floor: accuracy on held-out images, in percent.
        one_by_one: whether every step is a single one, or steps double.
    """

    def __init__(self, by, data, floor, one_by_one):
        self.cut = self._package if by == "package" else self._correlated
        self.images, self.held_out = data.train[0][:SAMPLES], data.held_out
        self.floor, self.one_by_one = floor, one_by_one

    def _correlated(self, model, count):
        return kr.merge_correlated(
            model, self.images, count=count, optimizer=True
        )

    def _package(self, model, count):
        # What a round would fit is about to be trained anyway.
        target = {"params": 1 - min(0.5, 0.01 * count)}
        options = {"rounds": 0, "optimizer": True, "data": self.images}
        return kr.prune(model, target=target, **options)

    def _holds(self, model):
        return eager_accuracy(model, self.held_out) >= self.floor

    def __call__(self, model):
        """The model after the last cut, the first to fall below the floor."""
        count, grows = 1, not self.one_by_one
        while True:
            small = self.cut(model, count)
            if small.count_params() == model.count_params():
                return model
            if self._holds(small):
                model = small
            elif count == 1:
                return small
            else:
                grows = False
            count = 2 * count if grows else max(1, count // 2)


def tenths(by, data):
    """A function that takes a tenth of a model away."""
    cutter = Cutter(by, data, floor=0.0, one_by_one=False)

    def cut(model):
        if by == "package":
            return cutter.cut(model, 10)  # of the parameters, in percent
        units = sum(space.size for space in kr.trace(model).prunable)
        return cutter.cut(model, max(1, units // 10))

    return cut


def lenet(data, network, by, weight, rule, epochs, seed):
    """Train a LeNet and cut it; what is left at the last cut that held.

    Args:
        by: "never cut", "package", or the noise of the network.
        weight: of the noise.
        rule: a dictionary: `floor`, in percent, or `max_drop`, in points;
            `start` and `patience`, as for `kr.fit_and_prune`; `one_by_one`.
    """
    noise = by if by in NOISES else "none"
    model = NETWORKS[network](data.shape, data.classes, noise, weight)
    before = kr.strip(model).count_params()
    if by == "never cut":
        fitted(model, data, epochs)
        small, epoch, history = model, epochs, [before] * epochs
    else:
        found = cut_while_trained(model, data, by, rule, epochs)
        small, epoch = kr.strip(found.model), found.epoch
        history = found.history.history["parameters"]
    return small, {
        "hidden": hidden(small),
        "before": before,
        "parameters": small.count_params(),
        "accuracy": accuracy(small, data.test),
        "epoch": epoch,
        "history": history,
    }


def cut_while_trained(model, data, by, rule, epochs):
    """What `kr.fit_and_prune` returns."""
    if rule["max_drop"] is None:
        cut = Cutter(by, data, rule["floor"], rule["one_by_one"])
        limit = {"floor": rule["floor"] / 100}
    else:
        cut = tenths(by, data)
        limit = {"max_drop": rule["max_drop"] / 100}
    return kr.fit_and_prune(
        model,
        *data.train,
        prune=cut,
        epochs=epochs,
        start=rule["start"],
        patience=rule["patience"],
        validation_data=data.held_out,
        batch_size=128,
        verbose=0,
        **limit,
    )


def trained_lenet300(data, epochs, seed):
    """Train a LeNet-300-100 at a falling rate, and keep it: an experiment."""
    model = lenet300(data.shape, data.classes)
    _fitted_to_the_end(model, data, epochs, 1e-3)
    return model, _measured(model, data)


def cut_at_once(data, model, share, way, epochs, seed):
    """Cut a trained LeNet-300-100 to a share of its parameters, and train.

    Args:
        share: of the parameters, to leave.
        way: "distilled" (from the network before it was cut), "fitted" (to the
            labels), or "from scratch" (the same sizes with fresh weights).
    """
    small = kr.prune(
        model, target={"params": share}, data=data.train[0][:SAMPLES]
    )
    if way == "distilled":
        small = kr.distill(
            *(small, model, data.train[0]),
            epochs=epochs,
            learning_rate=RATE,
            batch_size=128,
            temperature=TEMPERATURE,
            outputs="softmax",
            verbose=0,
        )
    else:
        if way == "from scratch":
            small = keras.models.clone_model(small)
        _fitted_to_the_end(small, data, epochs, 2e-3)
    return small, _measured(small, data)


def of_sizes(data, sizes, epochs, seed):
    """Train a perceptron of two hidden layers from scratch."""
    inner = [layers.Flatten()]
    inner += [layers.Dense(units, activation="relu") for units in sizes]
    model = _network(data.shape, inner, data.classes, "none", None)
    _fitted_to_the_end(model, data, epochs, 2e-3)
    return _measured(model, data)


def _fitted_to_the_end(model, data, epochs, rate, batch_size=128):
    """Adam, with a rate that falls to zero along a cosine."""
    steps = epochs * math.ceil(len(data.train[0]) / batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(rate, max(1, steps))
    optimizer = keras.optimizers.Adam(schedule)
    fitted(model, data, epochs, optimizer, batch_size)


def _measured(model, data):
    return {
        "hidden": hidden(model),
        "parameters": model.count_params(),
        "held-out": accuracy(model, data.held_out),
        "test": accuracy(model, data.test),
    }
