"""Models: their classes, attributes and compile arguments."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from tests import models


def test_compile_arguments():
    model = models.mlp()
    assert _keras.compile_arguments(model) is None
    model.compile("adam", "mse", metrics=["mae"])
    arguments = _keras.compile_arguments(model)
    assert arguments["optimizer"] is model.optimizer
    assert (arguments["loss"], arguments["metrics"]) == ("mse", ["mae"])


def test_the_class_to_rebuild_with():
    class Functional(keras.Model):
        pass

    class Other(keras.Model):
        def __init__(self, width):
            x = keras.Input((width,))
            super().__init__(x, layers.Dense(2)(x))

    x = keras.Input((3,))
    own = Functional(x, layers.Dense(2)(x))
    assert _keras.rebuildable_class(own) is Functional
    assert _keras.rebuildable_class(Other(3)) is keras.Model


def test_what_keras_sets_on_a_model_is_known():
    x = np.ones((8, 4), "float32")
    inputs = keras.Input((4,))
    functional = keras.Model(inputs, layers.Dense(2)(inputs))
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    for model in (functional, sequential):
        model.compile("sgd", "mse", metrics=["mae"], jit_compile=False)
        model.fit(x, x[:, :2], validation_data=(x, x[:, :2]), verbose=0)
        model.evaluate(x, x[:, :2], verbose=0)
        model.predict(x, verbose=0)
        model.get_config()
        assert _keras.own_attributes(model) == {}
        model.own = 3
        assert _keras.own_attributes(model) == {"own": 3}


def test_classes_and_configs_of_models():
    class Own(keras.Model):
        pass

    class Told(keras.Model):
        def get_config(self):
            return {}

    inputs = keras.Input((4,))
    functional = type(keras.Model(inputs, layers.Dense(2)(inputs)))
    for cls in (functional, keras.Sequential, kr.FactorizedDense):
        assert _keras.is_stock_class(cls)
    assert not _keras.is_stock_class(Own)
    own, told = (
        cls(inputs, layers.Dense(2)(inputs), name="own") for cls in (Own, Told)
    )
    assert not _keras.has_own_config(type(own))
    assert _keras.has_own_config(type(told))
    assert _keras.plain_class(own) is keras.Model
    assert _keras.plain_class(keras.Sequential()) is keras.Sequential


@pytest.mark.parametrize("saved", [False, True])
def test_the_function_of_a_loss_and_whether_it_takes_logits(saved, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    if saved:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    loss = _keras.compile_arguments(model)["loss"]
    found = _keras.loss_function(loss)
    assert found == ("sparse_categorical_crossentropy", True)
    assert _keras.loss_function(keras.losses.MeanSquaredError())[1] is False
    assert _keras.loss_function("mse") == ("mean_squared_error", False)
    assert _keras.loss_function(None) == (None, False)
