"""Whether more or less of a monitored value is better."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.training.directions import less_is_better

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")


def network(metrics):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)]
    )
    model.compile("sgd", "mse", metrics=metrics)
    return model


def quality(labels, outputs):
    return -keras.ops.mean(keras.ops.abs(labels - outputs))


def run(model, **options):
    options = {"epochs": 2, "prune": {"ratio": 0.3}, "verbose": 0} | options
    return kr.fit_and_prune(model, X, X[:, :1], **options)


@pytest.mark.parametrize("metric", ["mae", "mse", "mape", "kl_divergence"])
def test_errors_are_less_for_better_models(metric):
    found = run(network([metric]), floor=1e6, monitor=metric)
    assert len(found.cuts) == 1


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ("val_loss", True),
        ("out_loss", True),
        ("val_word_error", True),
        ("mae", True),
        ("val_mae_1", True),
        ("val_out_auc_2", False),
        ("r2_score", False),
        ("val_hard", True),
        ("val_easy", False),
        ("f1_score", False),
    ],
)
def test_metrics_and_names(monitor, expected):
    class Hard(keras.metrics.MeanSquaredError):
        """A metric whose name says nothing, but whose class does."""

    metrics = [
        "mae",
        keras.metrics.R2Score(),
        Hard(name="hard"),
        keras.metrics.BinaryAccuracy(name="easy"),
    ]
    model = network(metrics)
    model.evaluate(X, X[:, :1], verbose=0)
    assert less_is_better(monitor, "auto", model) == expected


def test_names_that_do_not_say_it():
    model = network([quality])
    with pytest.raises(ValueError, match="Pass mode='max' if more is better"):
        run(model, floor=-1e6, monitor="quality")
    found = run(model, floor=-1e6, monitor="quality", mode="max")
    assert len(found.cuts) == 1
    found = run(model, floor=1e6, monitor="quality", mode="min")
    assert len(found.cuts) == 1


@pytest.mark.filterwarnings("ignore:.*never held the floor")
def test_the_value_of_a_floor_never_held(tmp_path):
    options = {"floor": -1.0, "monitor": "loss", "checkpoint": tmp_path}
    keras.utils.set_random_seed(0)
    model = network([])
    found = run(model, **options)
    assert found.value == found.history.history["loss"][-1]
    assert run(model, **options).value == found.value
