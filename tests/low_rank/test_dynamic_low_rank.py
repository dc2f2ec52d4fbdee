"""The callback that fuses vectors during `fit`."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.low_rank_models import compiled, data, factorized_layers, mlp, tied


def test_convolutions_are_trained_to_share():
    """Filters and channels, each at all places of the window."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            *(layers.Conv2D(8, 3, activation="relu") for _ in range(2)),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    model = kr.factorize(kr.apply_rare(model, 20.0), layers="conv2d.*")
    one, two = factorized_layers(model)
    x = np.random.default_rng(0).normal(size=(64, 6, 6, 2))
    compiled(model, keras.optimizers.Adam(0.01))
    callback = kr.callbacks.DynamicLowRank(tau_cos=0.05, every=4)
    model.fit(x, np.arange(64) % 3, epochs=30, verbose=0, callbacks=[callback])
    assert np.prod(one.sizes) + np.prod(two.sizes) < 2 * 8 + 8 * 8
    models.assert_same_function(model, kr.compact(model), tolerance=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.05, momentum=0.9),
        lambda: keras.optimizers.Adam(0.01),
    ],
    ids=["SGD", "Adam"],
)
def test_what_becomes_parallel_is_joined_during_fit(optimizer):
    keras.utils.set_random_seed(0)
    model = kr.factorize(kr.apply_rare(mlp(), 10.0))
    compiled(model, optimizer(), metrics=["accuracy"])
    callback = kr.callbacks.DynamicLowRank(tau_cos=1e-3, every=4)
    x, y = data()
    history = model.fit(
        x, y, epochs=25, batch_size=32, verbose=0, callbacks=[callback]
    ).history
    weights = history["factorized_weights"]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] <= 8 * 12 + 12 * 12 + 12 * 3
    assert weights[-1] < 0.95 * (8 * 12 + 12 * 12 + 12 * 3)
    assert history["accuracy"][-1] > 0.8
    assert len(callback.sizes) == 25
    rows, columns = callback.sizes[-1]["two"]
    assert abs(rows - columns) <= 1 or max(rows, columns) == 12
    assert callback.sizes[-1]["one"][0] == 8
    small = kr.compact(model)
    assert small.count_params() < model.count_params()
    models.assert_same_function(model, small, tolerance=1e-4)
    for other in (kr.to_dense(model), kr.strip(model)):
        assert not factorized_layers(other)
        models.assert_same_function(model, other, tolerance=1e-4)
    shares = [layer.kept_pairs.share for layer in factorized_layers(model)]
    sizes = [np.prod(x.sizes) for x in factorized_layers(model)]
    full = [96, 144, 36]
    np.testing.assert_allclose(
        [float(x) for x in shares],
        np.array(sizes) / sum(sizes) / (np.array(full) / sum(full)),
        rtol=1e-5,
    )


def test_it_trains_compiled_by_xla_and_frobenius_normalized():
    keras.utils.set_random_seed(0)
    model = kr.factorize(kr.apply_rare(mlp(), 10.0))
    model = keras.Sequential(
        [keras.Input((8,)), *map(kr.FrobeniusNormalization, model.layers)]
    )
    compiled(model, jit_compile=models.XLA)
    inner = factorized_layers(model)
    before = [models.numpy(layer.kept_pairs.pairs) for layer in inner]
    callback = kr.callbacks.DynamicLowRank(tau_cos=0.05, every=4)
    model.fit(*data(), batch_size=32, epochs=8, verbose=0, callbacks=[callback])
    # What the wrapped layer keeps is kept.
    for layer, old in zip(inner, before, strict=True):
        assert (models.numpy(layer.kept_pairs.pairs) != old).any()
    assert sum(np.prod(x.sizes) for x in inner) < 8 * 12 + 12 * 12 + 12 * 3
    norms = [np.linalg.norm(models.numpy(x.kernel)) for x in inner]
    assert np.isfinite(norms).all()
    models.assert_same_function(model, kr.strip(model), tolerance=1e-4)


def test_models_that_fit_builds_and_several_fits():
    """On TensorFlow the first step does so. Steps may be run many at once."""
    rare = kr.RaReRegularizer(5.0)
    wide = kr.FactorizedDense(12, "relu", kernel_regularizer=rare)
    last = kr.FactorizedDense(3, vectors="inputs")
    dropout = layers.Dropout(0.4)
    model = keras.Sequential([wide, dropout, last])
    # Keras runs a single one at a time on PyTorch.
    steps = 1 if keras.backend.backend() == "torch" else 2
    compiled(model, keras.optimizers.Adam(0.01), steps_per_execution=steps)
    callback = kr.callbacks.DynamicLowRank(tau_cos=0.2, tau_euc=2.0, every=1)
    for number in (1, 2):
        model.fit(*data(), epochs=2, verbose=0, callbacks=[callback])
        assert len(callback.sizes) == 2 * number
    rows, columns = callback.sizes[-1][wide.name]
    assert rows * columns < 8 * 12
    assert columns < 12
    assert dropout.rate < 0.4
    models.assert_same_function(model, kr.strip(model), tolerance=1e-4)


def test_graphs_with_operations_and_windows():
    """An Add that is no layer; sizes of kernels count their windows."""
    inputs = keras.Input((6, 6, 2))
    a = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    b = layers.Conv2D(4, 3, padding="same", name="b")(a)
    x = layers.Flatten()(layers.Dropout(0.5)(a + b))
    x = layers.Dense(4, name="c")(x)
    model = keras.Model(inputs, layers.Dense(3, name="d")(x))
    model = kr.factorize(kr.apply_rare(model, 1.0))
    model.compile("sgd", "mse")
    layer = model.get_layer("b")
    tied(layer, "unit", [(1, 0, 2.0)])
    tied(layer, "input", [(3, 2, 2.0)])
    images = models.random_inputs(model, batch=32)
    callback = kr.callbacks.DynamicLowRank(every=1)
    callback.set_model(model)
    callback.on_train_begin()
    assert callback.fuse() == 2
    assert layer.sizes == (3, 3)
    before, now = [72, 144, 576, 12], [72, 81, 576, 12]
    expected = np.array(now) / sum(now) / (np.array(before) / sum(before))
    found = [float(x.kept_pairs.share) for x in factorized_layers(model)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    model.fit(images, np.ones((32, 3)), verbose=0, callbacks=[callback])


@pytest.mark.parametrize(
    "options",
    [
        {"tau_cos": 1.0},
        {"tau_cos": 0.0},
        {"tau_cos": np.nan},
        {"tau_euc": -1.0},
        {"every": 0},
        {"shrink": 0.0},
        {"shrink": 1.0},
    ],
)
def test_thresholds_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        kr.callbacks.DynamicLowRank(**options)
