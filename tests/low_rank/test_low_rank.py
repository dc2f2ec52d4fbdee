"""Small models after training at low rank, and bad input."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.low_rank_models import compiled, data, factorized_layers, mlp, tied


def test_a_norm_is_that_of_what_is_shared():
    """P W Q, of fewer numbers in W, is not as large as W."""
    layer = kr.FrobeniusNormalization(kr.FactorizedDense(9, rows=4, columns=6))
    model = keras.Sequential([keras.Input((7,)), layer])
    layer.gain.assign(1.7)
    stock = kr.to_dense(model)
    assert type(stock.layers[0].layer) is layers.Dense
    for other in (stock, kr.compact(model), kr.strip(model)):
        models.assert_same_function(model, other, tolerance=1e-6)


def test_features_that_are_multiples_become_one():
    model = kr.factorize(mlp())
    one = model.get_layer("one")
    tied(one, "unit", [(3, 1, 2.0), (5, 1, -1.0)])
    one.bias.assign(np.linspace(-1, 1, 12))
    bias = models.numpy(one.bias).copy()
    bias[3] = 2 * bias[1]  # So a ReLU passes both alike; unit 5 is opposite.
    one.bias.assign(bias)
    for layer in factorized_layers(model):
        layer.fuse_parallel()
    assert one.sizes == (8, 10)
    small = kr.compact(model)
    models.assert_same_function(model, small, tolerance=1e-5)
    assert small.get_layer("one").units == 11
    assert type(small.get_layer("two")) is layers.Dense
    assert small.get_layer("one").kernel.shape == (8, 10)


def test_compact_knows_layers_of_one_name_apart():
    def part(factorized):
        kind = kr.FactorizedDense if factorized else layers.Dense
        return keras.Sequential([keras.Input((9,)), kind(9, name="same")])

    parts = [part(False), part(True), part(False)]
    model = keras.Sequential([keras.Input((9,)), *parts])
    for each in parts:
        tied(each.layers[0], "unit", [(i, 0, -1.0 * i) for i in range(1, 9)])
    kinds = [type(x.layers[0]).__name__ for x in kr.compact(model).layers]
    assert kinds == ["Dense", "FactorizedDense", "Dense"]
    models.assert_same_function(model, kr.compact(model), tolerance=1e-4)


def test_nothing_to_compact():
    model = mlp()
    models.assert_same_function(model, kr.compact(model), tolerance=0)


def test_a_compacted_model_is_saved_and_trained(tmp_path):
    model = kr.factorize(mlp())
    tied(model.get_layer("two"), "unit", [(i, 0, -1.0) for i in range(1, 7)])
    tied(model.get_layer("two"), "input", [(i, 0, 2.0) for i in range(1, 7)])
    small = kr.compact(model)
    assert small.get_layer("two").kernel.shape == (6, 6)
    models.assert_same_function(model, small, tolerance=1e-5)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, loaded, tolerance=1e-6)
    x, y = data()
    first = compiled(loaded).evaluate(x, y, verbose=0)
    loaded.fit(x, y, epochs=3, verbose=0)
    assert loaded.evaluate(x, y, verbose=0) < first
    models.assert_same_function(loaded, kr.strip(loaded), tolerance=1e-5)


def test_nothing_to_join_is_an_error():
    with pytest.raises(ValueError, match="no factorized layer"):
        compiled(mlp()).fit(
            *data(), verbose=0, callbacks=[kr.callbacks.DynamicLowRank()]
        )
    single = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    for function in (kr.factorize, kr.apply_rare):
        with pytest.raises(ValueError, match="has no Dense layer"):
            function(single)


@pytest.mark.parametrize("strength", [-1.0, np.nan, np.inf])
def test_strengths_out_of_range(strength):
    with pytest.raises(ValueError, match="strength"):
        kr.apply_rare(mlp(), strength)
