"""Consumers make up for what goes: by slopes, by least squares, by rounds."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models

FITS = ["affine", "least_squares"]


def linear_mlp(scale, shift, combination=None, use_bias=True):
    """Of 8 linear units the last one is determined by the others."""
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(8, name="first"),
            layers.Dense(5, use_bias=use_bias, name="second"),
        ]
    )
    models.randomized(model)
    kernel, bias = (models.numpy(w) for w in model.layers[0].weights)
    weights = np.zeros(7)
    weights[[2, 3, 4]] = combination or (scale, 0, 0)
    kernel[:, 7] = kernel[:, :7] @ weights
    bias[7] = bias[:7] @ weights + shift
    model.layers[0].kernel.assign(kernel)
    model.layers[0].bias.assign(bias)
    return model


def prune_last(model, absorb, data, **options):
    """Seven of eight units stay; which of the dependent ones is open."""
    return kr.prune(
        model,
        ratio=1 / 8,
        data=data,
        absorb=absorb,
        layers="first",
        **options,
    )


@pytest.mark.parametrize("select", ["pivoted", "greedy"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("absorb", FITS)
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (-2.5, 3), (0, 1.5)])
def test_linear_activations_go_without_a_loss(
    scale, shift, absorb, use_bias, select
):
    """Also opposite signs, and a unit that is constant (slope 0)."""
    model = linear_mlp(scale, shift, use_bias=use_bias)
    data = models.random_inputs(model, batch=200)
    small = prune_last(model, absorb, data, select=select)
    assert small.layers[0].units == 7
    models.assert_same_function(model, small, tolerance=1e-5)
    assert small.layers[1].use_bias or not shift


@pytest.mark.parametrize("select", ["pivoted", "greedy"])
def test_combinations_of_several_units_go_without_a_loss(select):
    model = linear_mlp(0, 2, combination=(0.5, -1, 2))
    data = models.random_inputs(model, batch=200)
    small = prune_last(model, "least_squares", data, select=select)
    models.assert_same_function(model, small, tolerance=1e-4)
    pairs = prune_last(model, "affine", data, select=select, rounds=0)
    with pytest.raises(AssertionError):
        models.assert_same_function(model, pairs, tolerance=1e-2)


@pytest.mark.parametrize(
    ("absorb", "rounds"),
    [("merge", 0), ("affine", 0), ("least_squares", 0), ("least_squares", 1)],
)
@pytest.mark.filterwarnings(models.NOT_OPENED)
@pytest.mark.parametrize("name", models.FACTORIES)
def test_exact_copies_go_without_a_loss(name, absorb, rounds):
    """Under everything but drop, and with everything repaired."""
    model = models.randomized(models.FACTORIES[name]())
    planted = models.plant(model)
    data = models.random_inputs(model, batch=128)
    before = [models.numpy(v) for v in model.variables]
    plan = kr.plan(
        model,
        tau=0.9999,
        select="clusters",
        absorb=absorb,
        data=data,
        rounds=rounds,
    )
    small = plan.apply()
    removed = sum(removed for _, removed in models.widths(plan).values())
    assert removed == sum(planted.values())
    assert small.count_params() == plan.parameters[1]
    models.assert_same_function(model, small, tolerance=5e-5)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, models.numpy(variable))


@pytest.mark.parametrize("rounds", [0, 1])
@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [("mixed_bfloat16", 0.03), ("mixed_float16", 3e-3), ("bfloat16", 0.05)],
)
def test_copies_go_at_low_precision(policy, tolerance, rounds):
    keras.config.set_dtype_policy(policy)
    try:
        model = models.randomized(models.vgg())
    finally:
        keras.config.set_dtype_policy("float32")
    models.plant(model)
    data = models.random_inputs(model, batch=200)
    small = kr.prune(model, ratio=0.3, data=data, rounds=rounds)
    (a,), (b,) = models.outputs(model, data), models.outputs(small, data)
    a, b = a.astype(float), b.astype(float)
    assert np.abs(a - b).mean() < tolerance * np.abs(a).mean()


def test_nothing_goes_and_nothing_changes():
    model = models.randomized(models.vgg())
    data = models.random_inputs(model, batch=100)
    small = kr.prune(model, ratio=0, data=data, rounds=1)
    for a, b in zip(model.weights, small.weights, strict=True):
        np.testing.assert_array_equal(models.numpy(a), models.numpy(b))


# --- where a shift goes -----------------------------------------------------


def shifted_convolutions(*behind, **settings):
    """Two channels that differ by a constant, and what reads them."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 1, name="first")(inputs)
    y = layers.Conv2D(3, 3, name="second", **settings)(x)
    for layer in behind:
        y = layer(y)
    model = models.randomized(keras.Model(inputs, layers.Conv2D(2, 1)(y)))
    first = model.get_layer("first")
    kernel, bias = models.numpy(first.kernel), models.numpy(first.bias)
    kernel[..., 1], bias[1] = kernel[..., 0], bias[0] + 2
    first.kernel.assign(kernel)
    first.bias.assign(bias)
    return model


def cut_first(model, **options):
    data = models.random_inputs(model, batch=100)
    return kr.prune(model, ratio=0.25, data=data, layers="first", **options)


def test_a_shift_goes_into_the_bias():
    model = shifted_convolutions()
    small = cut_first(model)
    assert small.get_layer("first").filters == 3
    assert small.count_params() < model.count_params()
    models.assert_same_function(model, small)


def test_a_shift_makes_a_bias(tmp_path):
    model = shifted_convolutions(use_bias=False)
    data = models.random_inputs(model, batch=100)
    plan = kr.plan(model, ratio=0.25, data=data, layers="first")
    small = plan.apply()
    assert small.get_layer("second").use_bias
    assert small.count_params() == plan.parameters[1]
    models.assert_same_function(model, small)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)


@pytest.mark.parametrize("repair", [True, False])
def test_a_shift_goes_into_a_normalization_behind(repair):
    model = shifted_convolutions(
        layers.BatchNormalization(), layers.ReLU(), use_bias=False
    )
    small = cut_first(model, repair=repair, rounds=0)
    assert not small.get_layer("second").use_bias
    models.assert_same_function(model, small)


@pytest.mark.parametrize(
    ("between", "settings"),
    [(layers.ReLU(), {}), (None, {"activation": "relu"})],
)
def test_a_normalization_behind_a_relu_is_no_place_for_it(between, settings):
    behind = [
        layer for layer in (between, layers.BatchNormalization()) if layer
    ]
    model = shifted_convolutions(*behind, use_bias=False, **settings)
    small = cut_first(model, repair=False)
    assert small.get_layer("second").use_bias
    models.assert_same_function(model, small)


def test_nor_one_that_is_not_alone():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 1, name="first")(inputs)
    y = layers.Conv2D(3, 3, use_bias=False, name="second")(x)
    z = layers.Add()([y, layers.BatchNormalization()(y)])
    model = models.randomized(keras.Model(inputs, z))
    first = model.get_layer("first")
    kernel, bias = models.numpy(first.kernel), models.numpy(first.bias)
    kernel[..., 1], bias[1] = kernel[..., 0], bias[0] + 2
    first.kernel.assign(kernel)
    first.bias.assign(bias)
    small = cut_first(model, repair=False)
    assert small.get_layer("second").use_bias
    models.assert_same_function(model, small)


def test_a_bias_is_made_in_a_wrapper_and_in_an_einsum():
    inputs = keras.Input((5, 4))
    x = layers.Dense(4, name="first")(inputs)
    y = layers.TimeDistributed(layers.Dense(3, use_bias=False))(x)
    z = layers.EinsumDense("abc,cd->abd", output_shape=(None, 2))(x)
    model = models.randomized(keras.Model(inputs, [y, z]))
    first = model.get_layer("first")
    kernel, bias = models.numpy(first.kernel), models.numpy(first.bias)
    kernel[:, 1], bias[1] = kernel[:, 0], bias[0] + 2
    first.kernel.assign(kernel)
    first.bias.assign(bias)
    small = cut_first(model)
    models.assert_same_function(model, small)
    assert small.count_params() < model.count_params() + 5


def test_a_shift_is_wrong_only_at_a_border_padded_with_zeros():
    """There the channel that went was 0, and the bias does not know."""
    model = shifted_convolutions(padding="same")
    small = cut_first(model, rounds=0)
    data = models.random_inputs(model)
    (a,), (b,) = models.outputs(model, data), models.outputs(small, data)
    error = np.abs(a - b).max(axis=(0, 3)) / np.abs(a).max()
    assert error[1:-1, 1:-1].max() < 1e-5
    border = np.concatenate([error[0], error[-1], error[:, 0], error[:, -1]])
    assert border.min() > 1e-4
    # Of the nine places that each kernel reads, a corner's lacks five: no
    # more than the whole shift times their weights can be wrong.
    second, third = model.layers[2].kernel, model.layers[3].kernel
    weights = np.abs(models.numpy(second)[:, :, :2]).sum(axis=(0, 1, 2))
    bound = 2 * weights @ np.abs(models.numpy(third)[0, 0])
    assert error.max() * np.abs(a).max() <= bound.max()
    # Fitted over the whole window, zeros included, it is less.
    again = cut_first(model)
    (c,) = models.outputs(again, data)
    assert np.square(a - c).mean() < np.square(a - b).mean()


# --- rounds and repair ------------------------------------------------------


def deep():
    """Convolutions one behind the other, with BatchNormalization."""
    inputs = x = keras.Input((10, 10, 3))
    for _ in range(4):
        x = layers.Conv2D(12, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(6)(x))


def settled(model, data):
    """The model with moving statistics that are those of the data."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(data, training=True)
    return model


def error(model, small, data):
    (a,), (b,) = models.outputs(model, data), models.outputs(small, data)
    return np.square(a - b).mean() / a.var()


def smooth_images(count, size, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 4, 4, 3))
    images = np.kron(coarse, np.ones((1, size // 4, size // 4, 1)))
    noise = 0.3 * rng.normal(size=images.shape)
    return (images + noise).astype("float32")


def test_a_few_large_images_are_as_good_as_many_small_ones():
    """What counts is how well rows held out are predicted, not how many."""
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(24, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(8, 3)(x)
    model = models.randomized(keras.Model(inputs, x))
    new_data = smooth_images(32, 32, seed=1)
    options = {"ratio": 0.4, "layers": "first", "rounds": 0, "select": "l1"}

    def lost(count, size, **others):
        """The mean error of two draws of images."""
        draws = [smooth_images(count, size, seed=seed) for seed in (0, 5)]
        smaller = [kr.prune(model, data=x, **options, **others) for x in draws]
        return np.mean([error(model, small, new_data) for small in smaller])

    assert lost(8, 64) < 1.1 * lost(128, 16)
    assert lost(8, 64) < 0.6 * lost(8, 64, absorb="affine")


def test_repair_and_rounds_bring_a_deep_model_nearer():
    model = models.randomized(deep())
    data = models.random_inputs(model, batch=400)
    new_data = models.random_inputs(settled(model, data), seed=1, batch=100)
    options = {"ratio": 0.4, "data": data, "batch_size": 400}
    dropped = kr.prune(model, **options, absorb="drop", repair=False)
    raw = kr.prune(model, **options, repair=False)
    repaired = kr.prune(model, **options, rounds=0)
    fitted = kr.prune(model, **options)
    errors = [
        error(model, small, new_data)
        for small in (dropped, raw, repaired, fitted)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < errors[1]
    assert errors[3] < 0.8 * errors[2]


@pytest.mark.parametrize(
    ("options", "drawn", "not_drawn"),
    [
        ({"rounds": 2, "verbose": True}, ("/batch", "4/4"), ()),
        ({"rounds": 0, "verbose": True}, ("/batch",), ("/layer",)),
        ({"verbose": False}, (), ("/",)),
    ],
)
def test_what_takes_long_is_counted(options, drawn, not_drawn, capsys):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(2)]
    )
    data = models.random_inputs(model, batch=50)
    kr.prune(model, ratio=0.5, data=data, **options)
    printed = capsys.readouterr().out
    assert all(words in printed for words in drawn)
    assert not any(words in printed for words in not_drawn)


def test_repair_gives_what_the_old_statistics_become():
    """Means move by a difference and variances by a ratio, in any layer."""
    model = models.randomized(deep())
    data = models.random_inputs(model, batch=300)
    model.layers[2].trainable = False
    small = kr.prune(model, ratio=0.5, data=data, layers="conv2d.*", rounds=0)
    frozen = small.layers[2]
    assert not frozen.trainable
    assert frozen.momentum == model.layers[2].momentum
    assert all(
        np.isfinite(models.numpy(v)).all() and (models.numpy(v) >= 0).all()
        for layer in small.layers
        if isinstance(layer, layers.BatchNormalization)
        for v in [layer.moving_variance]
    )
    # What is normalised first is normalised as before: its kernel reads the
    # image, so its kept channels are what they were.
    kept = (
        kr.plan(model, ratio=0.5, data=data, layers="conv2d.*")
        .decisions[0]
        .selection.kept
    )
    for old, new in zip(
        model.layers[2].non_trainable_variables[-2:],
        small.layers[2].non_trainable_variables[-2:],
        strict=True,
    ):
        np.testing.assert_allclose(
            models.numpy(new), models.numpy(old)[kept], rtol=1e-4
        )


@pytest.mark.parametrize(
    "how", [{}, {"select": "l1", "absorb": "drop", "rounds": 0}]
)
def test_a_generator_is_enough(how):
    """It can be used once; what repair needs of it is remembered."""
    model = models.randomized(deep())
    data = models.random_inputs(model, batch=200)
    parts = (part for part in np.split(data, 4))
    options = {"ratio": 0.4, **how}
    plan = kr.plan(model, data=parts, **options)
    small = kr.prune(model, data=data, batch_size=50, **options)
    for again in (plan.apply(), plan.apply()):
        models.assert_same_function(small, again)


def test_fitting_works_for_all_kinds_of_kernels():
    inputs = keras.Input((8, 6))
    x = layers.Conv1D(9, 3, dilation_rate=2, padding="same")(inputs)
    x = layers.Conv1D(10, 3, strides=2, activation="relu")(x)
    x = layers.Dense(8, activation="relu")(x)
    a = layers.Reshape((1, 1, 3, 8))(x)
    a = layers.Conv3D(4, (1, 2, 1), padding="same")(a)
    b = layers.LSTM(5)(x)
    out = layers.Concatenate()([layers.Flatten()(a), b])
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(out)))
    data = models.random_inputs(model, batch=400)
    new_data = models.random_inputs(model, seed=1, batch=100)
    options = {"ratio": 0.3, "select": "l1", "data": data}
    once = kr.prune(model, **options, rounds=0)
    fitted = kr.prune(model, **options)
    assert error(model, fitted, new_data) < error(model, once, new_data)


def test_no_state_of_the_model_changes_and_masks_are_kept():
    """A stateful layer, and a BatchNormalization behind a mask."""
    inputs = keras.Input(batch_shape=(8, 6), dtype="int32")
    x = layers.Embedding(20, 9, mask_zero=True)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.LSTM(7, stateful=True)(x)
    x = layers.BatchNormalization()(layers.Dense(8, activation="relu")(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    data = np.random.default_rng(0).integers(0, 20, (64, 6))
    before = [models.numpy(v) for v in model.variables]
    small = kr.prune(model, ratio=0.4, data=data, batch_size=8)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, models.numpy(variable))
    assert small.count_params() < model.count_params()
    (answer,) = models.outputs(small, data[:8])
    assert np.isfinite(answer).all()
