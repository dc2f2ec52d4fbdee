"""Training for low rank: what is drawn together, joined and made smaller."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy import _keras_internals as internals
from keras_redundancy.callbacks.low_rank import join_slots
from keras_redundancy.fusion import Fusion, parallel_columns
from keras_redundancy.layers.factorized import Factorized
from tests import models


def mlp(width=12, dropout=None, **options):
    parts = [keras.Input((8,))]
    for name in ("one", "two"):
        parts.append(layers.Dense(width, "relu", name=name, **options))
        if dropout:
            parts.append(layers.Dropout(dropout))
    return keras.Sequential([*parts, layers.Dense(3, name="last")])


def data(count=256, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 8)).astype("float32")
    y = np.argmax(x @ rng.normal(size=(8, 3)), axis=1)
    return x, y


def compiled(model, optimizer="adam", **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **options)
    return model


def factorized_layers(model):
    return [
        layer
        for layer in internals.flat_layers(model)
        if isinstance(layer, Factorized)
    ]


def tied(layer, side, pairs):
    """Make vectors of W multiples of others: (number, of which, ratio)."""
    kernel = models.numpy(layer.kernel).copy()
    vectors = np.moveaxis(kernel, -2 if side == "input" else -1, 0)
    for number, other, ratio in pairs:
        vectors[number] = ratio * vectors[other]
    layer.kernel.assign(kernel)


# --- which are parallel -----------------------------------------------------


def turned(vector, one_minus_cos, rng):
    """A unit vector at an angle to another one."""
    unit = vector / np.linalg.norm(vector)
    other = rng.normal(size=len(vector))
    other -= (other @ unit) * unit
    other /= np.linalg.norm(other)
    cos = 1 - one_minus_cos
    return cos * unit + np.sqrt(1 - cos**2) * other


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    numbers=st.sampled_from([5, 33, 200]),
    tau=st.sampled_from([1e-2, 1e-4, 1e-6]),
    sign=st.sampled_from([-1, 1]),
)
def test_pairs_below_the_angle_are_found_and_no_others(
    seed, numbers, tau, sign
):
    rng = np.random.default_rng(seed)
    matrix = np.linalg.qr(rng.normal(size=(numbers, 5)))[0]
    near, far = turned(matrix[:, 0], 0.9 * tau, rng), rng.normal(size=numbers)
    far = turned(matrix[:, 1], 1.2 * tau, rng)
    matrix = np.column_stack([matrix, sign * near, far])
    found = parallel_columns(matrix, np.arange(7), tau, np.inf)
    assert [{fusion.kept, fusion.gone} for fusion in found] == [{0, 5}]
    assert np.sign(found[0].ratio) == sign


def test_one_vector_may_take_several():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    matrix = np.column_stack([a, 3 * a, b, -a, np.zeros(50), 2 * b])
    used = np.arange(6)
    fusions = parallel_columns(matrix, used, 1e-6, np.inf)
    left = matrix
    for fusion in fusions:
        left = fusion.joined(left, 1)
    assert len(fusions) == 4
    assert np.count_nonzero(np.linalg.norm(left, axis=0)) == 2
    assert not parallel_columns(matrix, np.array([0, 2]), 1e-6, np.inf)


def test_the_distance_counts_in_units_of_the_usual_size():
    rng = np.random.default_rng(0)
    matrix = np.linalg.qr(rng.normal(size=(40, 4)))[0]
    near = turned(matrix[:, 0], 1e-3, rng)
    distance = np.sqrt(2e-3)
    for size, scale in ((1, 1), (1, 100), (5, 1)):
        vectors = scale * np.column_stack([matrix, size * near])
        vectors[:, 0] *= size
        usual = np.sqrt(np.mean(np.sum(vectors**2, axis=0)))
        relative = size * scale * distance / usual
        for tau, count in ((1.01 * relative, 1), (0.99 * relative, 0)):
            found = parallel_columns(vectors, np.arange(5), 1e-2, tau)
            assert len(found) == count


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_what_has_no_direction_anywhere_is_left(value):
    matrix = np.full((40, 4), value)
    assert not parallel_columns(matrix, np.arange(4), 1e-4, 0.1)


# --- layers -----------------------------------------------------------------


def test_rows_and_columns_are_joined_towards_a_square():
    model = keras.Sequential([keras.Input((6,)), kr.FactorizedDense(8)])
    (layer,) = model.layers
    tied(layer, "unit", [(1, 0, 2.0), (2, 0, -1.0), (3, 0, 1.0), (4, 0, 0.5)])
    tied(layer, "input", [(1, 0, 2.0)])
    data = models.random_inputs(model)
    before = model.predict(data, verbose=0)
    sides = [side for side, _ in layer.fuse_parallel()]
    assert sides == ["unit", "unit", "input", "unit"]
    assert layer.sizes == (5, 5)
    layer.fuse_parallel(to_square=False)
    assert layer.sizes == (5, 4)
    after = model.predict(data, verbose=0)
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("strides", [1, 2])
def test_convolutions_share_filters_and_channels(strides, tmp_path):
    layer = kr.FactorizedConv2D(
        6, 3, strides=strides, padding="same", activation="relu"
    )
    model = keras.Sequential([keras.Input((8, 8, 4)), layer])
    stock = kr.to_dense(model)
    assert type(stock.layers[0]) is layers.Conv2D
    models.assert_same_function(model, stock, tolerance=1e-5)
    tied(layer, "unit", [(3, 1, -2.0)])
    tied(layer, "input", [(0, 2, 0.5)])
    before = kr.to_dense(model)
    layer.fuse_parallel(to_square=False)
    assert layer.sizes == (3, 5)
    models.assert_same_function(before, model, tolerance=1e-5)
    models.assert_same_function(model, kr.strip(model), tolerance=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    models.assert_same_function(model, loaded, tolerance=1e-6)
    small = kr.compact(keras.Sequential([keras.Input((8, 8, 4)), layer]))
    models.assert_same_function(model, small, tolerance=1e-5)


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


def test_layers_that_keep_pairs_are_regularized_as_others_are():
    """The penalty is that of the pairs found at the end of a step before."""
    rare = kr.RaReRegularizer(2.0, also="l2")
    layer = kr.FactorizedDense(40, kernel_regularizer=rare, refresh=3)
    x = keras.random.normal((4, 50), seed=1)

    def penalty(seed, training=True):
        layer.kernel.assign(keras.random.normal((50, 40), seed=seed))
        layer(x, training=training)
        return float(sum(layer.losses)), models.numpy(layer.pairs)

    layer(x)
    assert (models.numpy(layer.pairs) == 0).all()
    _, first = penalty(0)
    for _ in range(2):
        found, pairs = penalty(0)
        np.testing.assert_allclose(
            found, float(rare(layer.kernel.value)), rtol=1e-5
        )
        np.testing.assert_array_equal(pairs, first)
    found, pairs = penalty(1, training=False)
    np.testing.assert_array_equal(pairs, first)
    assert found > float(rare(layer.kernel.value))
    _, pairs = penalty(1)
    assert (pairs != first).any()
    found, again = penalty(1)
    np.testing.assert_array_equal(again, pairs)
    np.testing.assert_allclose(
        found, float(rare(layer.kernel.value)), rtol=1e-5
    )
    layer.share.assign(0.5)
    layer(x)
    l2 = float(rare.also(layer.kernel.value))
    half = (found - l2) / 2 + l2
    np.testing.assert_allclose(float(sum(layer.losses)), half, rtol=1e-5)


@pytest.mark.parametrize("measure", ["squared_sine", "squared_distance"])
def test_pairs_that_are_parallel_make_way_for_the_next(measure):
    rare = kr.RaReRegularizer(2.0, measure, vectors="units", tau_cos=1e-2)
    layer = kr.FactorizedDense(
        20, kernel_regularizer=rare, vectors="units", refresh=1000
    )
    x = keras.random.normal((4, 50), seed=1)
    layer(x, training=True)
    first = models.numpy(layer.pairs)[0]
    assert len(np.unique(first, axis=0)) == len(first) == 8
    a, b = first[0]
    for one_minus_cos, is_kept in ((0.02, True), (0.009, False)):
        kernel = models.numpy(layer.kernel).copy()
        rng = np.random.default_rng(0)
        kernel[:, b] = turned(kernel[:, a], one_minus_cos, rng)
        layer.kernel.assign(kernel)
        layer(x, training=True)
        now = models.numpy(layer.pairs)[0]
        expected = first if is_kept else np.roll(first, -1, axis=0)
        np.testing.assert_array_equal(now, expected)
        # Those that look anew do the same.
        found = models.numpy(rare.closest(ops.convert_to_tensor(kernel)))
        assert ({*found[0].tolist()} == {int(a), int(b)}) == is_kept


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("measure", ["squared_sine", "squared_distance"])
def test_gradients_of_the_pair_and_of_the_rest(measure, axis):
    rare = kr.RaReRegularizer(1.0, measure)
    kernel = models.numpy(keras.random.normal((6, 5), seed=3))
    pair = ops.array([1, 3], "int32")

    def total(x):
        return rare.distance(x, pair, axis) + ops.sum(x**3)

    def expected(x):
        a, b = np.moveaxis(np.take(x, [1, 3], axis=axis), axis, 0)
        cosine = np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))
        if measure == "squared_distance":
            return (1 - cosine) ** 2 + np.sum(x**3)
        return 1 - cosine**2 + np.sum(x**3)

    slopes = np.zeros_like(kernel)
    for place in np.ndindex(kernel.shape):
        step = np.zeros(kernel.shape)
        step[place] = 1e-5
        wide = kernel.astype("float64")
        slopes[place] = (expected(wide + step) - expected(wide - step)) / 2e-5
    found = models.gradient(total, kernel)
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-4)


def test_factors_of_other_sizes_and_sides():
    layer = kr.FactorizedDense(6, rows=3, columns=2)
    layer(np.ones((2, 7), "float32"))
    assert layer.kernel.shape == (3, 2)
    assert layer.P.shape == (7, 3)
    assert layer.Q.shape == (2, 6)
    units = kr.FactorizedDense(6, vectors="units")
    units(np.ones((2, 7), "float32"))
    assert units.sizes == (7, 6)
    with pytest.raises(ValueError, match="side"):
        units.fuse("input", 0, 1)
    with pytest.raises(ValueError, match="rows is"):
        kr.FactorizedDense(6, rows=3, vectors="units")
    with pytest.raises(ValueError, match="vectors"):
        kr.FactorizedDense(6, vectors="columns")
    with pytest.raises(ValueError, match="refresh"):
        kr.FactorizedDense(6, refresh=0)
    with pytest.raises(ValueError, match="groups=2"):
        kr.FactorizedConv2D(6, 3, groups=2)


# --- models -----------------------------------------------------------------


def test_shares_of_the_strength():
    model = mlp(kernel_regularizer="l2")
    found = kr.apply_rare(model, 20.0, measure="squared_distance")
    one, two, last = (layer.kernel_regularizer for layer in found.layers)
    strengths = np.array([x.strength for x in (one, two, last)])
    np.testing.assert_allclose(strengths.sum(), 20)
    np.testing.assert_allclose(strengths / strengths[0], [1, 1.5, 36 / 96])
    assert [x.vectors for x in (one, two, last)] == ["units", "both", "inputs"]
    assert one.measure == "squared_distance"
    assert isinstance(one.also, keras.regularizers.L2)
    assert last.also is None
    again = kr.apply_rare(found, 1.0).layers[0].kernel_regularizer
    assert isinstance(again.also, keras.regularizers.L2)
    models.assert_same_function(model, found, tolerance=0)
    some = kr.apply_rare(model, 1.0, layers="two").layers
    assert some[1].kernel_regularizer.strength == 1
    assert isinstance(some[0].kernel_regularizer, keras.regularizers.L2)


def test_ends_of_a_graph():
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(2.0)(inputs)
    x = a = layers.Conv2D(4, 3, padding="same", name="first")(x)
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(4, 1, name="inner")]
    )
    x = layers.Add()([inner(x), a])
    x = layers.GlobalAveragePooling2D()(x)
    outputs = [layers.Dense(2, name=name)(x) for name in ("left", "right")]
    extra = layers.Dense(2, name="around")(layers.Flatten()(inputs))
    outputs.append(layers.Softmax()(extra))
    model = kr.factorize(keras.Model(inputs, outputs))
    found = {x.name: x.vectors for x in factorized_layers(model)}
    assert found == {
        "first": "units",
        "inner": "both",
        "left": "inputs",
        "right": "inputs",
    }
    assert type(model.get_layer("around")) is layers.Dense


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
    shares = [layer.share for layer in factorized_layers(model)]
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
    compiled(model, jit_compile=True)
    inner = factorized_layers(model)
    before = [models.numpy(layer.pairs) for layer in inner]
    callback = kr.callbacks.DynamicLowRank(tau_cos=0.05, every=4)
    model.fit(*data(), batch_size=32, epochs=8, verbose=0, callbacks=[callback])
    # What the wrapped layer keeps is kept.
    for layer, old in zip(inner, before, strict=True):
        assert (models.numpy(layer.pairs) != old).any()
    assert sum(np.prod(x.sizes) for x in inner) < 8 * 12 + 12 * 12 + 12 * 3
    norms = [np.linalg.norm(models.numpy(x.kernel)) for x in inner]
    assert np.isfinite(norms).all()
    models.assert_same_function(model, kr.strip(model), tolerance=1e-4)


def test_joining_keeps_the_function_and_the_next_gradients():
    """What the slots become is what training the joined kernel gives."""
    keras.utils.set_random_seed(1)
    model = compiled(kr.factorize(mlp()), keras.optimizers.SGD(0.1, 0.9))
    layer = model.get_layer("two")
    tied(layer, "unit", [(2, 0, -1.5)])
    x, y = data(64)

    def gradient():
        kernel = models.numpy(layer.kernel)
        labels = ops.one_hot(y, 3)

        def loss(value):
            outputs, _ = model.stateless_call(
                [
                    value if v is layer.kernel else ops.convert_to_tensor(v)
                    for v in model.trainable_variables
                ],
                [
                    ops.convert_to_tensor(v)
                    for v in model.non_trainable_variables
                ],
                x,
            )
            return ops.sum(labels * ops.log_softmax(outputs))

        return models.gradient(loss, kernel)

    before, outputs = gradient(), model.predict(x, verbose=0)
    fusion = layer.fuse("unit", kept=0, gone=2)
    np.testing.assert_allclose(
        gradient(), fusion.joined(before, 1), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(model.predict(x, verbose=0), outputs, atol=1e-5)


OPTIMIZERS = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {},
    "Adadelta": {},
    "Adam": {"amsgrad": True, "use_ema": True},
    "AdamW": {},
    "Adamax": {},
    "Nadam": {},
    "Ftrl": {},
    "Lion": {},
    "Lamb": {},
    "Adafactor": {},
    "Muon": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_are_joined_and_training_goes_on(name):
    optimizer = getattr(keras.optimizers, name)(0.001, **OPTIMIZERS[name])
    model = compiled(kr.factorize(mlp()), optimizer, jit_compile=False)
    layer = model.get_layer("two")
    tied(layer, "unit", [(2, 0, -1.5)])
    x, y = data(64)
    model.fit(x, y, epochs=1, verbose=0)
    before = {
        id(slot): (models.numpy(slot), kind)
        for slot, kind in internals.slots(optimizer, layer.kernel)
    }
    fusion = Fusion(0, 2, -1.5)
    join_slots(optimizer, layer.kernel, [("unit", fusion)])
    found = internals.slots(optimizer, layer.kernel)
    assert len(found) == len(before) > 0
    gone, kept = fusion.shares
    for slot, kind in found:
        old, _ = before[id(slot)]
        new = models.numpy(slot)
        if old.shape != (12, 12):
            np.testing.assert_array_equal(new, 0)
            continue
        expected = {
            "linear": kept * old[:, 0] + gone * old[:, 2],
            "square": kept**2 * old[:, 0] + gone**2 * old[:, 2],
            "size": np.hypot(kept * old[:, 0], gone * old[:, 2]),
        }[kind]
        np.testing.assert_allclose(new[:, 0], expected, rtol=1e-4, atol=1e-9)
        np.testing.assert_array_equal(new[:, 3], old[:, 3])
        assert kind == "linear" or (new >= 0).all()
    layer.fuse("unit", 0, 2)
    model.fit(x, y, epochs=2, verbose=0)
    assert all(np.isfinite(models.numpy(v)).all() for v in model.variables)


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


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
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
    compiled(model, jit_compile=True)
    callback = kr.callbacks.DynamicLowRank(tau_cos=0.05, every=4, shrink=0.1)
    model.fit(*data(), epochs=3, verbose=0, callbacks=[callback])
    assert layer.kernel.shape[1] <= 6
    assert 0 < models.numpy(layer.share) < 1
    assert models.numpy(layer.pairs)[1].max() < layer.kernel.shape[1]
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
    found = [float(x.share) for x in factorized_layers(model)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    model.fit(images, np.ones((32, 3)), verbose=0, callbacks=[callback])


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


# --- bad input --------------------------------------------------------------


def test_nothing_to_join_is_an_error():
    with pytest.raises(ValueError, match="no factorized layer"):
        compiled(mlp()).fit(
            *data(), verbose=0, callbacks=[kr.callbacks.DynamicLowRank()]
        )
    single = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    for function in (kr.factorize, kr.apply_rare):
        with pytest.raises(ValueError, match="has no Dense layer"):
            function(single)


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


@pytest.mark.parametrize("strength", [-1.0, np.nan, np.inf])
def test_strengths_out_of_range(strength):
    with pytest.raises(ValueError, match="strength"):
        kr.apply_rare(mlp(), strength)


def test_kernels_that_are_not_finite_are_left_alone():
    model = kr.factorize(mlp())
    layer = model.get_layer("two")
    layer.kernel.assign(np.full((12, 12), np.nan))
    assert layer.fuse_parallel() == []


# --- replicas ---------------------------------------------------------------


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute"
)
def test_two_replicas_find_the_same(tmp_path):
    """Logical devices have to be made before TensorFlow starts."""
    script = textwrap.dedent(
        """
        import keras, numpy as np, tensorflow as tf
        devices = tf.config.list_physical_devices("CPU")
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(devices[0], two)
        import keras_redundancy as kr
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert strategy.num_replicas_in_sync == 2
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = keras.Sequential(
                [keras.Input((8,)), keras.layers.Dense(12, "relu"),
                 keras.layers.Dense(12, "relu"), keras.layers.Dense(3)])
            model = kr.factorize(kr.apply_rare(model, 10.0))
            model.compile("adam", "mse")
        x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
        callback = kr.callbacks.DynamicLowRank(tau_cos=0.01, every=4)
        model.fit(x, x[:, :3], epochs=15, verbose=0, callbacks=[callback])
        print(callback.sizes[-1])
        assert sum(map(np.prod, callback.sizes[-1].values())) < 276
        callback = kr.callbacks.DynamicLowRank(shrink=0.1)
        try:
            model.fit(x, x[:, :3], verbose=0, callbacks=[callback])
        except ValueError as error:
            assert "on 2 devices" in str(error), error
        else:
            raise AssertionError("shapes cannot change on two devices")
        """
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    root = Path(kr.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, path],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
