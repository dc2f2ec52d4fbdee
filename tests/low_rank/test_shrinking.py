"""Factorized layers become smaller during `fit`, and train on."""

import keras
import numpy as np
import pytest

import keras_redundancy as kr
from tests import models
from tests.low_rank_models import compiled, data, factorized_layers, mlp, tied


@pytest.mark.parametrize(
    ("optimizer", "wrapped"), [("SGD", False), ("Adam", True), ("AdamW", True)]
)
def test_layers_that_shrink_during_fit_are_trained_as_others(
    optimizer, wrapped, tmp_path
):
    """With their momenta, and with what is excluded from weight decay."""
    x, y = data()
    answers = []
    for shrink in (None, 0.1):
        keras.utils.set_random_seed(2)
        model = kr.factorize(mlp())
        for name in ("one", "two"):
            pairs = [(3, 0, 2.0), (5, 1, -0.5), (7, 2, 1.0)]
            tied(model.get_layer(name), "unit", pairs)
        tied(model.get_layer("two"), "input", [(1, 0, 3.0)])
        for layer in model.layers:
            layer.fuse_parallel(to_square=False)
        if wrapped:
            parts = map(kr.FrobeniusNormalization, model.layers)
            model = keras.Sequential([keras.Input((8,)), *parts])
        options = {"momentum": 0.9} if optimizer == "SGD" else {}
        made = getattr(keras.optimizers, optimizer)(0.01, **options)
        one, two, _ = factorized_layers(model)
        if optimizer == "AdamW":
            made.exclude_from_weight_decay([two.kernel])
        compiled(model, made)
        model.predict(x, verbose=0)
        callback = kr.callbacks.DynamicLowRank(every=1, shrink=shrink)
        model.fit(
            x,
            y,
            epochs=3,
            shuffle=False,
            validation_data=(x, y),
            verbose=0,
            callbacks=[callback],
        )
        assert two.sizes == (11, 9)
        shrunk = shrink is not None
        assert (tuple(two.kernel.shape) == two.sizes) == shrunk
        assert (tuple(one.kernel.shape) == one.sizes) == shrunk
        answers.append(model.predict(x, verbose=0))
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        models.assert_same_function(model, loaded, tolerance=1e-5)
        assert two.outer_sizes == (12, 12)
    np.testing.assert_allclose(*answers, atol=1e-4)


def test_regularized_layers_shrink_and_go_on():
    """Compiled by XLA; with fewer vectors than pairs that wait."""
    keras.utils.set_random_seed(0)
    model = kr.factorize(kr.apply_rare(mlp(), 10.0))
    layer = model.get_layer("two")
    tied(layer, "unit", [(i, 0, 2.0) for i in range(1, 7)])
    layer.fuse_parallel(to_square=False)
    compiled(model, jit_compile=models.XLA)
    callback = kr.callbacks.DynamicLowRank(tau_cos=0.05, every=4, shrink=0.1)
    model.fit(*data(), epochs=3, verbose=0, callbacks=[callback])
    assert layer.kernel.shape[1] <= 6
    assert 0 < models.numpy(layer.kept_pairs.share) < 1
    assert models.numpy(layer.kept_pairs.pairs)[1].max() < layer.kernel.shape[1]
    models.assert_same_function(model, kr.strip(model), tolerance=1e-4)


def test_layers_with_slots_of_other_shapes_stay_as_large():
    model = compiled(kr.factorize(mlp()), "adafactor")
    layer = model.get_layer("two")
    tied(layer, "unit", [(i, 0, 2.0) for i in range(1, 7)])
    layer.fuse_parallel(to_square=False)
    callback = kr.callbacks.DynamicLowRank(shrink=0.1)
    model.fit(*data(), epochs=2, verbose=0, callbacks=[callback])
    assert layer.sizes[1] == 6
    assert tuple(layer.kernel.shape) == (12, 12)
