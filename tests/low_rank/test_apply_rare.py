"""RaRe of whole models: of which kernels, how strong, and before or after."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.building.rebuild import rebuild
from keras_redundancy.building.recipe import Recipe
from tests import models
from tests.low_rank_models import compiled, data, factorized_layers, mlp, tied


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


def test_units_are_where_the_layer_has_them():
    """RaRe of transposed kernels (units, inputs), and of pointwise ones."""
    inputs = keras.Input((4, 6, 3))
    x = layers.Conv2DTranspose(4, 2, name="first")(inputs)
    x = layers.SeparableConv2D(5, 2, name="separable")(x)
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    x = layers.Conv2D(10, 2, groups=5, name="grouped")(x)
    x = layers.EinsumDense("abcd,fcd->abf", (2, 7), name="einsum")(x)
    x = layers.EinsumDense("abc,cde->abde", (2, 2, 4), name="heads")(x)
    x = layers.EinsumDense("abcd,d->abcd", (2, 2, 4), name="scale")(x)
    x = layers.EinsumDense("abcd,be->aecd", (3, 2, 4), name="places")(x)
    x = layers.EinsumDense("abcd,bde->abce", (3, 2, 6), name="apart")(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.Conv1DTranspose(4, 2, name="last")(layers.Reshape((6, 6))(x))
    model = kr.apply_rare(keras.Model(inputs, x), 10.0)
    found = {
        x.name: (rare.units_axis, rare.vectors, rare.strength)
        for x in model.layers
        if isinstance(rare := regularizer(x), kr.RaReRegularizer)
    }
    sizes = {
        name: np.prod(model.get_layer(name).pointwise_kernel.shape)
        if name == "separable"
        else np.prod(model.get_layer(name).kernel.shape)
        for name in found
    }
    assert {name: rare[:2] for name, rare in found.items()} == {
        "first": (-2, "units"),
        "separable": (-1, "both"),
        "einsum": (0, "both"),
        "last": (-2, "inputs"),
    }
    for name, (_, _, strength) in found.items():
        expected = 10 * sizes[name] / sum(sizes.values())
        np.testing.assert_allclose(strength, expected)
    with pytest.raises(ValueError, match="matches no layer"):
        kr.apply_rare(model, layers="depthwise")


def test_kernels_on_which_it_has_no_effect_are_left_out():
    """Without a warning, and without a part of the strength."""
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="first")(inputs)
    x = layers.Dense(1, name="narrow")(x)
    x = layers.Dense(4, name="wide")(x)
    last = layers.Dense(1, name="last")(x)
    model = kr.apply_rare(keras.Model(inputs, last), 3.0)
    found = {x.name: x.kernel_regularizer for x in model.layers[1:]}
    assert found["first"].strength == 3.0
    assert [name for name, rare in found.items() if rare] == ["first"]
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 6)), np.ones((4, 1)), verbose=0)
    # A row of a FactorizedConv2D holds the weights at all places.
    wide = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.Conv2D(1, 3)]
    )
    stock = kr.apply_rare(wide).layers[1]
    assert stock.kernel_regularizer is None
    assert kr.apply_rare(kr.factorize(wide)).layers[1].rare.strength > 0


def regularizer(layer):
    name = "kernel_regularizer"
    if isinstance(layer, layers.SeparableConv2D):
        name = "pointwise_regularizer"
    return getattr(layer, name, None)


def test_in_either_order():
    """RaRe of factorized layers is that of the layers before."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 2, kernel_regularizer="l2")(inputs)
    x = kr.FrobeniusNormalization(layers.Conv2D(5, 2))(x)
    x = layers.Dense(6, activation="relu")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    x, y = models.random_inputs(model, batch=32), np.ones((32, 3))
    found = []
    for first, second in (
        (lambda m: kr.apply_rare(m, 20.0), kr.factorize),
        (kr.factorize, lambda m: kr.apply_rare(m, 20.0)),
    ):
        changed = second(first(model))
        models.assert_same_function(model, changed, tolerance=1e-5)
        optimizer = keras.optimizers.SGD(0.01)
        changed.compile(optimizer, "mse", run_eagerly=models.EAGERLY)
        changed.fit(x, y, epochs=3, shuffle=False, verbose=0)
        found.append(changed)
    configs, weights = zip(
        *(([x.get_config() for x in m.layers], m.get_weights()) for m in found),
        strict=True,
    )
    assert configs[0] == configs[1]
    assert len(factorized_layers(found[0])) == 4
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_rare_of_layers_that_are_fused_already():
    """It starts to look for pairs, and weighs layers by their present size."""
    model = kr.factorize(mlp())
    two = model.get_layer("two")
    tied(two, "unit", [(i, 0, 2.0) for i in range(1, 7)])
    two.fuse_parallel(to_square=False)
    assert two.sizes == (12, 6)
    model = kr.apply_rare(model, 20.0)
    one, two, last = factorized_layers(model)
    assert two.sizes == (12, 6)
    strengths = [
        x.rare.strength * float(x.kept_pairs.share) for x in (one, two, last)
    ]
    np.testing.assert_allclose(sum(strengths), 20, rtol=1e-6)
    sizes = np.array([8 * 12, 12 * 6, 12 * 3])
    expected = 20 * sizes / sizes.sum()
    np.testing.assert_allclose(strengths, expected, rtol=1e-6)
    compiled(model).fit(*data(), verbose=0)
    assert (models.numpy(two.kept_pairs.pairs) != 0).any()
    again = kr.apply_rare(model, 10.0, measure="squared_distance")
    _, other, _ = factorized_layers(again)
    assert other.rare.measure == "squared_distance"
    assert (models.numpy(other.kept_pairs.pairs) == 0).all()
    assert int(other.kept_pairs.age) == 0
    models.assert_same_function(model, again, tolerance=0)
    # A mere copy goes on where the model is.
    _, its_copy, _ = factorized_layers(rebuild(Recipe.of(model)))
    for a, b in zip(two.state, its_copy.state, strict=True):
        np.testing.assert_array_equal(models.numpy(a), models.numpy(b))


def test_only_what_can_be_joined_is_drawn_together():
    x = keras.random.normal((4, 50), seed=1)
    for rare_of, of_layer, drawn in (
        ("both", "units", ["unit"]),
        ("inputs", "both", ["input"]),
        ("inputs", "units", []),
    ):
        rare = kr.RaReRegularizer(2.0, vectors=rare_of, also="l2")
        layer = kr.FactorizedDense(
            40, kernel_regularizer=rare, vectors=of_layer
        )
        for _ in range(2):
            layer(x, training=True)
        assert layer.drawn_sides == drawn
        expected = models.number(rare.also(layer.kernel.value))
        for side in drawn:
            alone = kr.RaReRegularizer(2.0, vectors=f"{side}s")
            expected += models.number(alone(layer.kernel.value))
        np.testing.assert_allclose(
            models.number(sum(layer.losses)), expected, rtol=1e-5
        )


def test_rare_of_other_axes_does_not_fit_factorized_layers():
    rare = kr.RaReRegularizer(2.0, units_axis=-2)
    layer = kr.FactorizedDense(4, kernel_regularizer=rare)
    with pytest.raises(ValueError, match="units on the last axis"):
        layer.build((None, 3))
    rare = kr.RaReRegularizer(2.0, units_axis=3)
    kr.FactorizedConv2D(4, 2, kernel_regularizer=rare).build((1, 4, 4, 3))
