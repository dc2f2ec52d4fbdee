"""A copy is compiled as the model that it is made from."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.building.compiling import fresh_arguments


class Total(keras.metrics.Metric):
    """Takes a name and a factor, and tells neither in a config."""

    def __init__(self, name="total", factor=1.0):
        super().__init__(name=name)
        self.factor = factor
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y, prediction, sample_weight=None):
        self.total.assign_add(self.factor * keras.ops.sum(prediction))

    def result(self):
        return keras.ops.convert_to_tensor(self.total)


class Hidden(Total):
    """What its constructor takes cannot be known."""

    def __init__(self, how_many, name="hidden"):
        super().__init__(name=name)


class Closed(Total):
    """Takes no dtype, and has another one."""

    def __init__(self, name="closed"):
        keras.metrics.Metric.__init__(self, dtype="float64", name=name)
        self.factor = 1.0
        self.total = self.add_weight(name="total", initializer="zeros")


class Slow(keras.optimizers.SGD):
    """Takes fewer arguments than its config has."""

    def __init__(self, learning_rate=0.1, **kwargs):
        kwargs.pop("clipnorm", None)
        super().__init__(learning_rate, clipnorm=2.0, **kwargs)


def compiled(metric, optimizer="sgd"):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.Dense(3),
        ]
    )
    model.compile(optimizer, "mse", metrics=[metric])
    return model


def data():
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    return x, x[:, :3]


def test_a_metric_whose_constructor_takes_a_name_alone():
    metric = Total("sum", factor=3.0)
    found = kr.fit_and_prune(
        compiled(metric, Slow()),
        *data(),
        prune={"ratio": 0.2},
        epochs=2,
        monitor="loss",
        floor=99.0,
        verbose=0,
    )
    assert len(found.cuts) == 1
    (own,) = fresh_arguments(found.model)["metrics"]
    assert (type(own), own.name, own.factor) == (Total, "sum", 3.0)
    assert float(metric.result()) == 0
    _, value = found.model.evaluate(*data(), verbose=0)
    total = found.model.predict(data()[0], verbose=0).sum()
    assert value == pytest.approx(3 * total, rel=1e-4)


def test_its_dtype_is_kept():
    (own,) = fresh_arguments(compiled(Closed()))["metrics"]
    assert own.dtype == "float64"


def test_a_metric_that_cannot_be_made_anew():
    model = compiled(Hidden(3))
    with pytest.raises(
        ValueError,
        match=r"(?s)No copy of .* compiled as it is: the Hidden that.*how_many"
        r".*Add a get_config\(\) to that class",
    ):
        kr.fit_and_prune(
            model, *data(), prune={"ratio": 0.2}, epochs=1, monitor="loss"
        )
    with pytest.warns(UserWarning, match="not compiled, because the Hidden"):
        small = kr.prune(model, ratio=0.5)
    assert not small.compiled
