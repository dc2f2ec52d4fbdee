"""Rules of operations with numbers and arrays."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.channels.images import (
    array,
    assert_followed,
    image_model,
)

TENSORFLOW = keras.backend.backend() == "tensorflow"


NUMBERS = {
    "+": lambda x: x + 1,
    "1 +": lambda x: 1.0 + x,
    "1 -": lambda x: 1 - x,
    "2 *": lambda x: 2 * x,
    "/ 3": lambda x: x / 3,
    "3 /": lambda x: 3 / (x + 1),
    "**": lambda x: x**2,
    "2 **": lambda x: 2**x,
    "maximum": lambda x: ops.maximum(0.3, x),
    "where": lambda x: ops.where(x > 0.3, x, -1.0),
    "NumPy number": lambda x: x * np.float32(0.5),
    "tensor": lambda x: x * ops.convert_to_tensor(0.5),
    "by keyword": lambda x: ops.multiply(x1=2.0, x2=x),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_on_either_side(name, tmp_path):
    found = assert_followed(image_model(NUMBERS[name]), tmp_path)
    assert found == {"a": 12}


@pytest.mark.parametrize(
    "scaled",
    [lambda x: 2 * x, lambda x: x / 3, lambda x: x * -1, lambda x: -x],
)
def test_parallel_filters_merge_through_a_number(scaled):
    model = models.randomized(image_model(scaled))
    (space,) = kr.trace(model).prunable
    models.copy_units(space, np.array([0]), np.array([5]), scale=2.5)
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("a").filters == 11
    models.assert_same_function(model, small)


@pytest.mark.parametrize("bent", [lambda x: 1 + x, lambda x: 1 / (x + 1)])
def test_parallel_filters_do_not_merge_scaled_where_numbers_bend(bent):
    """The consumers of both are summed as they are."""
    model = models.randomized(image_model(bent))
    (space,) = kr.trace(model).prunable
    models.copy_units(space, np.array([0]), np.array([5]), scale=2.5)
    small = kr.prune(model, tau=0.9999)
    old, new = (
        models.numpy(m.get_layer("top").kernel).reshape(25, -1, 3)
        for m in (model, small)
    )
    np.testing.assert_allclose(new[:, 0], old[:, 0] + old[:, 5], rtol=1e-5)


ARRAYS = {
    "*": lambda x: x * array(12),
    "on the left": lambda x: ops.subtract(array(1, 1, 12), x),
    "positions and channels": lambda x: x + array(5, 5, 12),
    "positions alone": lambda x: x + array(5, 5, 1),
    "one entry": lambda x: x + array(1),
    "channels in front": (
        lambda x: layers.Permute((3, 1, 2))(x) * array(12, 1, 1)
    ),
    "double precision": (
        lambda x: ops.cast(ops.cast(x, "float64") * array(12), "float32")
    ),
    "condition": lambda x: ops.where(array(12, dtype="bool"), x, -x),
    "alternative": lambda x: ops.where(x > 0.4, x, array(12)),
    "both": lambda x: ops.where(x > 0.4, array(12), array(5, 12)),
    "by keyword": lambda x: ops.maximum(x1=array(12), x2=x),
    "twice": lambda x: x * array(12) + array(12),
    "two tensors": (
        lambda x: ops.where(array(12, dtype="bool"), x, ops.tanh(x))
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_cut_with_the_channels(name, tmp_path):
    if name == "double precision" and not TENSORFLOW:
        pytest.skip("JAX has float64 on request only")
    found = assert_followed(image_model(ARRAYS[name]), tmp_path)
    assert found == {"a": 12}


@pytest.mark.parametrize("kind", ["tensor", "list"])
def test_tensors_and_lists_are_cut_with_the_channels(kind, tmp_path):
    """Units 0 to 5 are copied onto 6 to 11: the constant is alike for both."""
    if kind == "list" and not TENSORFLOW:
        pytest.skip("JAX takes no lists as operands")
    half = array(6, dtype="bool")
    chosen = np.concatenate([half, half])
    chosen = (
        chosen.tolist() if kind == "list" else ops.convert_to_tensor(chosen)
    )
    model = image_model(lambda x: ops.where(chosen, x, 1 - x))
    models.randomized(model)
    kernel = model.get_layer("a").kernel
    value = models.numpy(kernel)
    value[..., 6:] = value[..., :6]
    kernel.assign(value)
    model.get_layer("a").bias.assign(np.tile(array(6), 2))
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("a").filters == 6
    models.assert_same_function(model, small)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)


def test_the_array_of_the_caller_is_not_changed():
    mine = array(12)
    before = mine.copy()
    model = models.randomized(image_model(lambda x: x * mine))
    small = kr.prune(model, tau=0.1)
    assert small.get_layer("a").filters < 12
    np.testing.assert_array_equal(mine, before)


@pytest.mark.parametrize("keep", ["medoid", "mean"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, a: x * a,
        lambda x, a: keras.ops.multiply(a, x),
        lambda x, a: x / a,
        lambda x, a: keras.ops.add(a, x / a),
        lambda x, a: layers.ReLU()(x * a - a),
    ],
)
def test_units_that_factors_alone_tell_apart_are_multiples(function, keep):
    """Of two with one filter, the one counts as often as its factor is."""
    factors = 1.5 + np.abs(array(12))
    model = models.randomized(image_model(lambda x: function(x, factors)))
    for variable in model.get_layer("a").weights:
        value = models.numpy(variable)
        value[..., 7] = value[..., 2]
        variable.assign(value)
    small = kr.prune(model, tau=0.9999, keep=keep, criterion="folded")
    models.assert_same_function(model, small)
    same = kr.prune(model, tau=1.0, keep=keep)
    models.assert_same_function(model, same)


def test_arrays_that_add_tell_units_apart():
    model = models.randomized(image_model(lambda x: x + array(12)))
    kernel = models.numpy(model.get_layer("a").kernel)
    kernel[..., 7] = kernel[..., 2]
    model.get_layer("a").kernel.assign(kernel)
    small = kr.prune(model, tau=1.0)
    assert small.get_layer("a").filters == 12


@pytest.mark.parametrize(
    "add", [lambda x, v: x + v, lambda x, v: ops.add(x1=x, x2=v)]
)
@pytest.mark.parametrize(
    ("units", "copies", "kept"), [(8, 3, 5), (5, 1, 5 if TENSORFLOW else 4)]
)
def test_as_many_channels_as_positions_with_numbers(units, copies, kept, add):
    """Keras takes these numbers for a bias then, on TensorFlow."""
    inputs = keras.Input((5, 6))
    x = layers.Dense(units, activation="relu", name="wide")(inputs)
    x = layers.Dense(4, activation="relu")(add(x, array(5, 1)))
    x = layers.Dense(2)(layers.Flatten()(x))
    model = models.randomized(keras.Model(inputs, x))
    (wide,) = (x for x in kr.trace(model).spaces if x.name == "wide")
    models.copy_units(wide, np.full(copies, 4), np.arange(copies))
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("wide").units == kept
    models.assert_same_function(model, small)
    # The smaller model can be pruned in turn.
    again = kr.prune(small, kr.L1(), ratio=0.3)
    assert again.count_params() < small.count_params()


def test_a_number_for_each_sample_is_added_to_an_array():
    """Such a tensor has the axis of the batch alone."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="wide")(inputs)
    summed = ops.sum(layers.Dense(3)(x), axis=-1) + array(4, 1)
    model = models.randomized(keras.Model(inputs, summed))
    small = kr.prune(model, kr.L1(), ratio=0.5, absorb=kr.Drop())
    assert small.get_layer("wide").units == 4
    x = models.random_inputs(model)
    assert small(x).shape == model(x).shape
