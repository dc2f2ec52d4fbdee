import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


def network(**options):
    options = {"units": 32, "seed": 1} | options
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="tanh", name="hidden")(inputs)
    x = kr.NoiseOutputs(name="noise", **options)(x)
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


def data(count=256):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6)).astype("float32")
    return x, x[:, :2] * x[:, 2:4]


def compiled(model, jit_compile="auto"):
    model.compile("adam", "mse", jit_compile=jit_compile)
    return model


def noise_loss(layer, x):
    layer(x, training=True)
    (loss,) = layer.losses
    return models.number(loss)


def test_input_is_passed_on():
    x = data()[0]
    layer = kr.NoiseOutputs(10)
    np.testing.assert_array_equal(layer(x), x)
    assert not layer.losses
    np.testing.assert_array_equal(layer(x, training=True), x)
    assert len(layer.losses) == 1


def set_outputs(layer, logit):
    """Have all its outputs be a number, whatever goes in."""
    layer.kernel.assign(np.zeros(layer.kernel.shape))
    layer.bias.assign(np.full(layer.bias.shape, logit))


@pytest.mark.parametrize(
    ("options", "output", "expected"),
    [
        ({"distribution": "gaussian"}, 0.1, 0.4**2),
        ({"distribution": "gaussian", "mean": -1, "stddev": 2}, 0, 1 + 4),
        ({"distribution": "constant", "mean": 0.3}, 0.5, 0.2**2),
        ({"distribution": "binomial", "mean": 0.25}, 0, np.log(2)),
        ({"distribution": "binomial", "mean": 0.25}, 100, 75),
        ({"distribution": "constant", "weight": 10}, 0.2, 10 * 0.1**2),
    ],
)
def test_loss_is_the_sum_over_outputs(options, output, expected):
    """`expected` of each output, in the mean over samples."""
    layer = kr.NoiseOutputs(200, seed=3, **options)
    x = data(500)[0]
    layer.build(x.shape)
    set_outputs(layer, output)
    assert noise_loss(layer, x) / 200 == pytest.approx(expected, rel=0.02)


def test_targets_are_drawn_anew_and_by_the_seed():
    x = data()[0]
    found = []
    for _ in range(2):
        layer = kr.NoiseOutputs(3, seed=5)
        layer.build(x.shape)
        set_outputs(layer, 0.0)
        found.append([noise_loss(layer, x) for _ in range(3)])
    assert len(set(found[0])) == 3
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("distribution", "weight", "least", "most"),
    [
        ("gaussian", 1e-6, 0, 0.9),
        ("gaussian", 1, 0.98, 1),
        ("constant", 1, 0.98, 1),
        ("binomial", 1, 0.98, 1),
    ],
)
def test_it_correlates_what_it_reads(distribution, weight, least, most):
    """The paper's 2-2-1 network of linear units."""
    x = data()[0][:, :2]
    y = x.sum(axis=1, keepdims=True)
    inputs = keras.Input((2,))
    layer = layers.Dense(2)
    hidden = layer(inputs)
    layer.kernel.assign([[1.0, 0.5], [-0.3, 1.0]])
    noisy = kr.NoiseOutputs(256, distribution, weight=weight)(hidden)
    last = layers.Dense(1, kernel_initializer="ones")
    model = keras.Model(inputs, last(noisy))
    model.compile(keras.optimizers.SGD(0.005), "mse")
    model.fit(x, y, epochs=80, batch_size=16, verbose=0)
    assert np.abs(model.predict(x, verbose=0) - y).max() < 0.1
    activations = keras.Model(inputs, hidden).predict(x, verbose=0)
    correlation = np.abs(np.corrcoef(activations.T)[0, 1])
    assert least < correlation < most + 1e-6


@pytest.mark.parametrize("jit", sorted({False, models.XLA}))
def test_compiled_steps(jit):
    model = compiled(network(), jit)
    history = model.fit(*data(), epochs=3, verbose=0).history["loss"]
    assert history[2] < history[0]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(network())
        model.fit(*data(), verbose=0)
        assert noise_loss(model.get_layer("noise"), np.ones((4, 8))) > 1
    finally:
        keras.config.set_dtype_policy("float32")


def test_saved_while_training_it_goes_on(tmp_path):
    model = compiled(network(distribution="binomial", mean=0.2, weight=3.0))
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    config = loaded.get_layer("noise").get_config()
    assert config == model.get_layer("noise").get_config()
    models.assert_same_function(model, loaded, data()[0], tolerance=0)
    losses = [
        each.fit(*data(), shuffle=False, verbose=0).history["loss"]
        for each in (model, loaded)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-2)


def test_nothing_of_it_is_left(stock_keras, tmp_path):
    inside = network()
    alone = keras.Sequential([keras.Input((6,)), *network().layers[1:]])
    path = tmp_path / "small.keras"
    for model in (inside, alone):
        for small in (kr.strip(model), kr.prune(model, tau=1.0)):
            names = [layer.name for layer in small.layers]
            assert "noise" not in names
            assert {"hidden", "last"} <= set(names)
            models.assert_same_function(model, small, data()[0], tolerance=0)
            small.save(path)
            stock_keras.opens(path)


def test_inside_a_nested_model_and_a_wrapper():
    inner = network()
    inputs = keras.Input((5, 6))
    x = layers.TimeDistributed(inner)(inputs)
    x = layers.TimeDistributed(kr.NoiseOutputs(4))(x)
    model = keras.Model(inputs, x)
    small = kr.strip(model)
    assert not any(
        isinstance(x, kr.NoiseOutputs) for x in small._flatten_layers()
    )
    models.assert_same_function(model, small, tolerance=0)


def test_pruned_in_training_it_loses_the_inputs_that_are_gone():
    model = compiled(network())
    x, y = data()
    model.fit(x, y, verbose=0)
    small = kr.prune(model, ratio=0.5, optimizer=True)
    layer, old = small.get_layer("noise"), model.get_layer("noise")
    assert layer.kernel.shape == (4, 32)
    np.testing.assert_array_equal(layer.bias, old.bias)
    small.fit(x, y, verbose=0)


def test_the_papers_form_noise_as_outputs_of_the_model():
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="tanh")(inputs)
    x, noise = kr.NoiseOutputs(16, return_outputs=True)(x)
    y = layers.Dense(2)(x)
    model = keras.Model(inputs, [y, noise])
    assert model.output_shape == [(None, 2), (None, 16)]
    model.compile("adam", ["mse", None])
    samples, targets = data()
    model.fit(samples, [targets, np.zeros((256, 16))], verbose=0)
    with pytest.raises(ValueError, match=r"'noise_outputs' .* its other"):
        kr.strip(model)
    alone = keras.Model(model.input, model.outputs[0])
    models.assert_same_function(alone, kr.strip(alone), samples, tolerance=0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"units": 0}, ValueError, "units must be an integer of at least 1"),
        ({"units": 2.5}, ValueError, "units must be an integer"),
        ({"distribution": "normal"}, ValueError, "'gaussian', 'binomial'"),
        ({"stddev": -1}, ValueError, "stddev must be finite and at least 0"),
        ({"mean": float("nan")}, ValueError, "mean must be finite"),
        ({"mean": "0"}, TypeError, "mean must be a number"),
        (
            {"distribution": "binomial", "mean": 1.5},
            ValueError,
            "probability of a 1",
        ),
        ({"weight": 0}, ValueError, "weight must be greater than 0"),
        ({"seed": -1}, ValueError, "seed must be None or an integer"),
    ],
)
def test_bad_input(options, error, words):
    with pytest.raises(error, match=words):
        kr.NoiseOutputs(**{"units": 3} | options)


def test_an_open_last_axis_is_refused():
    with pytest.raises(ValueError, match="is open"):
        kr.NoiseOutputs(3)(keras.Input((None,)))
