"""Networks to look for duplicate filters in, and how they are trained."""

import tempfile

import keras
import numpy as np
from experiments import fitted
from keras import layers

import keras_redundancy as kr
from keras_redundancy.reports.heatmaps import similarities


def sgd():
    return keras.optimizers.SGD(0.01, momentum=0.9)


def perceptron(data, units, dropout, decay, epochs, seed, **options):
    """Train a perceptron of two hidden layers, the second of 100 units."""

    def dense(units, activation=None, **names):
        # SGD takes the gradient of decay / 2 |w|^2, which is decay times w.
        penalty = keras.regularizers.L2(decay / 2)
        return layers.Dense(
            units, activation, kernel_regularizer=penalty, **names
        )

    model = keras.Sequential(
        [
            keras.Input(data.shape),
            layers.Flatten(),
            dense(units, "relu", name="first"),
            layers.Dropout(dropout),
            dense(100, "relu", name="second"),
            dense(data.classes, name="logits"),
        ],
        name=f"mlp_{units}",
    )
    history = fitted(model, data, epochs, sgd(), **options)
    return model, {
        "accuracy": history["val_accuracy"][-1],
        "training accuracy": history["accuracy"][-1],
    }


def convolutional(data, filters, decay, epochs, seed):
    """Train a network of two convolutions and two dense layers."""
    penalty = keras.regularizers.L2(decay / 2)
    options = {"activation": "relu", "kernel_regularizer": penalty}
    model = keras.Sequential(
        [
            keras.Input(data.shape),
            layers.Conv2D(filters, 5, padding="same", name="first", **options),
            layers.MaxPooling2D(),
            layers.Conv2D(filters, 5, padding="same", **options),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(6 * filters, **options),
            layers.Dense(3 * filters, **options),
            layers.Dense(data.classes),
        ],
        name="cnn",
    )
    history = fitted(model, data, epochs, sgd())
    return model, {"accuracy": history["val_accuracy"][-1]}


def watched(data, units, decay, epochs, seed):
    """Train a perceptron, and note similarities while it is trained."""
    matrices = {}

    def note(epoch, logs=None):
        if epoch in {0, epochs // 4, epochs // 2, epochs - 1}:
            _, filters = kr.analyze(callback.model).by_title["first"]
            matrix = similarities(filters, 0.9, "single", most=64)
            matrices[epoch + 1] = np.round(matrix, 3).tolist()

    callback = keras.callbacks.LambdaCallback(on_epoch_end=note)
    with tempfile.TemporaryDirectory() as folder:
        monitor = kr.callbacks.RedundancyMonitor(
            folder, tau=0.9, images=False, linkage="single"
        )
        callbacks = [callback, monitor]
        perceptron(data, units, 0.0, decay, epochs, seed, callbacks=callbacks)
    measures = {
        name: [value for _, value in monitor.history[f"{name}/first"]]
        for name in ("n_r_at_0.9", "mean_similarity", "max_similarity")
    }
    return {"matrices": matrices, "measures": measures}
