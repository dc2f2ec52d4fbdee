import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


def data(shape=(8,), count=256):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *shape)).astype("float32")


def mlp(activation="linear", use_bias=True):
    return models.randomized(
        keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(12, activation, name="one"),
                layers.Dense(9, activation, name="two", use_bias=use_bias),
                layers.Dense(3, name="last", use_bias=use_bias),
            ]
        )
    )


def depend(layer, gone, stays, slope, shift):
    """Make a unit of a Dense layer a linear function of another one."""
    kernel, bias = map(models.numpy, layer.weights)
    kernel[..., gone] = slope * kernel[..., stays]
    bias[gone] = slope * bias[stays] + shift
    layer.set_weights([kernel, bias])


def sizes(model):
    return [x.units for x in model.layers if isinstance(x, layers.Dense)]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    ("slope", "shift"), [(1, 0), (-2.5, 0), (0.5, 3), (-1, -2), (0, 1.5)]
)
def test_linear_units_go_without_a_change(slope, shift, use_bias):
    model = mlp(use_bias=use_bias)
    depend(model.get_layer("one"), 4, 7, slope, shift)
    small = kr.merge_correlated(model, data(), count=1)
    assert sizes(small) == [11, 9, 3]
    models.assert_same_function(model, small, data())


def test_count_takes_the_most_correlated_of_all_layers():
    model = mlp()
    one, two = model.get_layer("one"), model.get_layer("two")
    depend(one, 4, 7, 2, 1)
    depend(one, 3, 4, -1, 0)
    depend(two, 0, 5, -3, 1)
    small = kr.merge_correlated(model, data(), count=3)
    assert sizes(small) == [10, 8, 3]
    models.assert_same_function(model, small, data())


def test_threshold_takes_all_that_reach_it():
    model = mlp("tanh")
    one = model.get_layer("one")
    for gone in (4, 5, 6):
        depend(one, gone, 7, -1, 0)
    small = kr.merge_correlated(model, data(), threshold=0.999)
    assert sizes(small) == [9, 9, 3]
    models.assert_same_function(model, small, data())
    both = kr.merge_correlated(model, data(), count=2, threshold=0.999)
    assert sizes(both) == [10, 9, 3]


def test_nothing_above_the_threshold_leaves_the_model_as_it_is():
    model = mlp("tanh")
    same = kr.merge_correlated(model, data(), threshold=0.9999)
    assert sizes(same) == [12, 9, 3]
    models.assert_same_function(model, same, data(), tolerance=0)


def test_of_two_units_the_one_goes_that_is_heard_less():
    model = mlp("tanh")
    depend(model.get_layer("one"), 4, 7, 1, 0)
    kernel, bias = map(models.numpy, model.get_layer("two").weights)
    kernel[7] /= 1000
    model.get_layer("two").set_weights([kernel, bias])
    small = kr.merge_correlated(model, data() + 0.1, count=1)
    stays = models.numpy(small.get_layer("two").kernel)[4]
    np.testing.assert_allclose(stays, kernel[4] + kernel[7], rtol=1e-4)


@pytest.mark.parametrize("absorb", ["affine", kr.LeastSquares()])
def test_behind_a_convolution_and_flatten(absorb):
    model = models.randomized(models.vgg())
    x = data((8, 8, 3))
    dead = kr.merge_correlated(model, x, threshold=0.9999, absorb=absorb)
    for first in (0, 4):  # The second one is read behind Flatten.
        convolution, normalization = model.layers[first : first + 2]
        for variable in (*convolution.weights, *normalization.weights):
            value = models.numpy(variable)
            value[..., 2] = value[..., 5]
            variable.assign(value)
    small = kr.merge_correlated(model, x, threshold=0.9999, absorb=absorb)
    for first in (0, 4):
        assert small.layers[first].filters == dead.layers[first].filters - 1
    models.assert_same_function(model, small, x, tolerance=1e-4)


def test_layers_skip_and_min_units():
    model = mlp()
    for name, expected in (("one", [4, 9, 3]), ("two", [12, 4, 3])):
        for chosen in (
            {"layers": name},
            {"skip": {"one": "two", "two": "one"}[name]},
        ):
            small = kr.merge_correlated(
                model, data(), count=100, min_units=4, **chosen
            )
            assert sizes(small) == expected


def test_one_pass_serves_often():
    model = mlp()
    known = kr.calibrate(model, data())
    for count in (1, 4):
        small = kr.merge_correlated(model, known, count=count)
        assert sum(sizes(small)) == 24 - count


@pytest.mark.parametrize("dead", [[0, 1], [0, 6], [7, 8]])
@pytest.mark.parametrize("count", [1, 2])
def test_constant_units_go_and_live_units_stay(dead, count):
    model = mlp("relu")
    kernel, bias = map(models.numpy, model.get_layer("two").weights)
    bias = np.full(9, 20.0)
    bias[dead] = -1000
    model.get_layer("two").set_weights([kernel, bias])
    small = kr.merge_correlated(model, data(), count=count, layers="two")
    assert small.get_layer("two").units == 9 - count
    models.assert_same_function(model, small, data(), tolerance=1e-4)


def test_training_goes_on():
    x = data()
    model = mlp("relu")
    model.compile("adam", "mse", run_eagerly=models.EAGERLY)
    model.fit(x, x[:, :3], verbose=0)
    small = kr.merge_correlated(model, x, count=5, optimizer=True)
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations)
    small.fit(x, x[:, :3], verbose=0)


def test_a_model_without_hidden_layers_stays_as_it_is():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    same = kr.merge_correlated(model, data(), count=1)
    models.assert_same_function(model, same, data(), tolerance=0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, TypeError, "neither count= nor threshold="),
        ({"count": 0}, ValueError, "count must be an integer"),
        ({"threshold": 1.5}, ValueError, r"correlation.* is in \[0, 1\]"),
        ({"threshold": "high"}, TypeError, r"Pass a number in \[0, 1\]"),
        ({"count": 1, "absorb": "merge"}, ValueError, "absorb='merge' is not"),
        ({"count": 1, "absorb": kr.Drop()}, ValueError, r"Drop\(\) is not"),
        ({"count": 1, "absorb": 3}, TypeError, "received 3"),
        ({"count": 1, "layers": "three"}, ValueError, "three"),
    ],
)
def test_bad_input(options, error, words):
    with pytest.raises(error, match=words):
        kr.merge_correlated(mlp(), data(), **options)


def test_data_that_does_not_fit():
    with pytest.raises(ValueError, match="data has batches of shape"):
        kr.merge_correlated(mlp(), data((5,)), count=1)
