"""Losses, metrics and penalties that hold a layer hold the new model's."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models


class Decaying(keras.losses.Loss):
    """With a penalty on the kernels of layers that it holds."""

    def __init__(self, held, **kwargs):
        super().__init__(**kwargs)
        self.held = {"layers": held}

    def call(self, y, prediction):
        kernels = [layer.kernel for layer in self.held["layers"]]
        decay = sum(ops.sum(ops.square(kernel)) for kernel in kernels)
        return ops.mean(ops.square(y - prediction), -1) + 100.0 * decay


class Norm(keras.metrics.Metric):
    def __init__(self, layer, name="norm"):
        super().__init__(name=name)
        self.layer = layer
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y, prediction, sample_weight=None):
        self.total.assign(ops.sum(ops.square(self.layer.kernel)))

    def result(self):
        return ops.convert_to_tensor(self.total)


class Like(keras.regularizers.Regularizer):
    """The kernels of two layers are to be of one size."""

    def __init__(self, layer, strength=1.0):
        self.layer, self.strength = layer, strength

    def __call__(self, x):
        other = ops.mean(ops.abs(self.layer.kernel))
        return self.strength * ops.square(ops.mean(ops.abs(x)) - other)

    def get_config(self):
        return {"layer": None, "strength": self.strength}


def net(**options):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu", name="one"),
            layers.Dense(3, name="two", **options),
        ]
    )


def data():
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    return x, x[:, :3]


def compiled():
    model = net()
    model.compile(
        keras.optimizers.SGD(1e-3),
        Decaying(model.layers),
        metrics=[Norm(model.layers[0])],
        run_eagerly=models.EAGERLY,
    )
    return model


def size_of(model):
    return float(np.square(models.numpy(model.layers[0].kernel)).sum())


FUNCTIONS = {
    "prune": lambda model: kr.prune(model, ratio=0.5),
    "nothing": lambda model: kr.prune(model, tau=1.0),
    "strip": kr.strip,
}


on_other_backends = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Keras trains no model with a metric that reads a layer on JAX.",
)


@on_other_backends
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loss_and_a_metric_that_hold_layers(name):
    model = compiled()
    before = size_of(model)
    small = FUNCTIONS[name](model)
    assert small.loss.held["layers"] == small.layers
    assert model.loss.held["layers"] == model.layers
    start = size_of(small)
    small.fit(*data(), epochs=2, verbose=0)
    assert size_of(small) < 0.5 * start
    assert size_of(model) == before
    found = small.evaluate(*data(), return_dict=True, verbose=0)
    assert found["norm"] == pytest.approx(size_of(small), rel=1e-5)


@on_other_backends
def test_they_hold_the_layers_of_a_model_that_goes_on_training():
    model = compiled()
    found = kr.fit_and_prune(
        model,
        *data(),
        prune={"ratio": 0.2},
        epochs=2,
        monitor="loss",
        floor=1e9,
        verbose=0,
    ).model
    assert found.loss.held["layers"] == found.layers
    assert size_of(found) < 0.5 * size_of(model)


def test_a_loss_with_a_layer_that_nothing_is_like_does_not_compile():
    with pytest.warns(UserWarning, match="refers to 'one' of the model that"):
        factorized = kr.factorize(compiled(), layers="one")
    assert not factorized.compiled


def test_a_regularizer_that_holds_a_layer():
    model = net(kernel_regularizer=Like(None, 3.0))
    one, two = model.layers
    two.kernel.regularizer.layer = one
    small = kr.prune(model, ratio=0.5)
    its_one, its_two = small.layers
    assert its_two.kernel.regularizer.layer is its_one
    assert its_two.kernel.regularizer.strength == 3.0
    assert two.kernel.regularizer.layer is one
    one.kernel.assign(5.0 + one.kernel)
    assert float(small.losses[0]) < 1.0 < float(model.losses[0])


class WithALoss(keras.Model):
    """Has losses in attributes, for a train_step of its own."""


def test_a_loss_in_an_attribute_of_a_model():
    plain = net()
    model = WithALoss(plain.inputs, plain.outputs)
    model.one = model.layers[1]
    model.decaying = Decaying([model.one])
    model.norms = [Norm(model.one)]
    small = kr.prune(model, ratio=0.5)
    assert small.one is not model.one
    assert small.decaying.held["layers"] == [small.one]
    assert small.norms[0].layer is small.one
    assert model.decaying.held["layers"] == [model.one]
