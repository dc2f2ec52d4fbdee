"""Rates of `Dropout` fall with the columns of the layer before it."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy import _keras
from tests.low_rank_models import compiled, data, factorized_layers, mlp, tied


def test_dropout_falls_with_the_columns_that_are_left():
    model = compiled(kr.factorize(mlp(dropout=0.4)))
    layer = model.get_layer("one")
    tied(layer, "unit", [(i, 0, 1.0 + i) for i in range(1, 7)])
    rates = []
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(model.layers[1].rate)
    )
    callback = kr.callbacks.DynamicLowRank(every=1000)
    callback.set_model(model)
    model.fit(*data(), epochs=2, verbose=0, callbacks=[callback, spy])
    left = callback.sizes[-1]["one"][1]
    assert rates[-1] == pytest.approx(0.4 * left / 12)
    assert left < 12
    kept = compiled(kr.factorize(mlp(dropout=0.4)))
    tied(kept.get_layer("one"), "unit", [(i, 0, 2.0) for i in range(1, 7)])
    callback = kr.callbacks.DynamicLowRank(dropout=False)
    kept.fit(*data(), verbose=0, callbacks=[callback])
    assert kept.layers[1].rate == 0.4


class Subclassed(keras.Model):
    """Has no graph that tells what comes before its `Dropout`."""

    def __init__(self, *others):
        super().__init__()
        self.dense, self.others = kr.FactorizedDense(3), list(others)

    def call(self, x):
        for layer in [*self.others, self.dense]:
            x = layer(x)
        return x


def test_models_without_a_graph_are_fused_and_keep_their_dropout():
    x, y = data()
    callback = kr.callbacks.DynamicLowRank()
    compiled(Subclassed()).fit(x, y, verbose=0, callbacks=[callback])
    model = compiled(Subclassed(layers.Dropout(0.4)))
    with pytest.raises(TypeError, match="dropout=False"):
        model.fit(x, y, verbose=0, callbacks=[callback])
    callback = kr.callbacks.DynamicLowRank(dropout=False)
    model.fit(x, y, verbose=0, callbacks=[callback])
    assert callback.sizes[-1] == {model.dense.name: (8, 3)}


def test_dropout_is_not_lowered_again_by_the_next_fit():
    model = compiled(kr.factorize(mlp(dropout=0.4)), "sgd")
    layer = model.get_layer("one")
    tied(layer, "unit", [(i, 0, 1.0 + i) for i in range(1, 7)])
    layer.fuse_parallel()
    for _ in range(2):
        callbacks = [kr.callbacks.DynamicLowRank(tau_cos=1e-9)]
        model.fit(*data(), verbose=0, callbacks=callbacks)
    assert layer.sizes == (8, 6)
    assert model.layers[1].rate == 0.4


def rates_after_an_epoch(model, dropouts):
    """Rates after an epoch in which the layer "half" loses 6 of 12 units."""
    model = compiled(kr.factorize(model), "sgd")
    (half,) = [x for x in factorized_layers(model) if x.name == "half"]
    tied(half, "unit", [(i, 0, 1.0 + i) for i in range(1, 7)])
    callback = kr.callbacks.DynamicLowRank(tau_cos=1e-9)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0)
    assert callback.sizes[-1]["half"][1] == 6
    return [
        x.rate
        for x in _keras.flat_layers(model)
        if isinstance(x, layers.Dropout) and x.name in dropouts
    ]


def test_dropout_of_nested_models_is_that_behind_the_layer():
    """Not behind the model that it is in, where other layers come last."""
    inner = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, "relu", name="half"),
            layers.Dropout(0.4, name="inside"),
            layers.Dense(12, "relu", name="whole"),
        ]
    )
    parts = [inner, layers.Dropout(0.4, name="behind"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *parts])
    rates = rates_after_an_epoch(model, ["inside", "behind"])
    np.testing.assert_allclose(sorted(rates), [0.2, 0.4])


def test_dropout_behind_several_layers_is_as_high_as_one_needs():
    inputs = keras.Input((8,))
    dropout = layers.Dropout(0.4, name="shared")
    both = [
        dropout(layers.Dense(12, "relu", name=name)(inputs))
        for name in ("half", "whole")
    ]
    outputs = layers.Dense(3)(layers.Concatenate()(both))
    model = keras.Model(inputs, outputs)
    assert rates_after_an_epoch(model, ["shared"]) == [0.4]
