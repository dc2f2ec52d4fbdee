"""RaRe draws the closest two vectors of a kernel together."""

import itertools
import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.low_rank.pairs import closest_pairs
from tests import models

MEASURES = {
    "squared_sine": lambda cos: 1 - cos**2,
    "squared_distance": lambda cos: (1 - cos) ** 2,
}


def random(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return values.astype("float32")


def cosines(matrix):
    unit = matrix / np.linalg.norm(matrix, axis=0)
    return (unit.T @ unit)[np.triu_indices(matrix.shape[1], 1)]


def penalty(kernel, **options):
    value = kr.RaReRegularizer(1.0, **options)(ops.convert_to_tensor(kernel))
    return float(value)


# --- the penalty ------------------------------------------------------------


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("shape", [(20, 15), (3, 3, 4, 12), (5, 6, 7)])
def test_penalty_is_that_of_the_closest_pair(measure, shape):
    kernel = random(*shape)
    matrix = kernel.reshape(-1, shape[-1])
    smallest = [
        MEASURES[measure](cosines(each)).min() for each in (matrix, matrix.T)
    ]
    options = {"measure": measure, "exact": True}
    columns = penalty(kernel, vectors="units", **options)
    rows = penalty(kernel, vectors="inputs", **options)
    both = penalty(kernel, **options)
    np.testing.assert_allclose(columns, smallest[0] / 2, rtol=1e-4)
    np.testing.assert_allclose(rows, smallest[1] / 2, rtol=1e-4)
    np.testing.assert_allclose(both, sum(smallest) / 2, rtol=1e-4)


def test_strength_multiplies_and_others_are_added():
    kernel = random(8, 6)
    tensor = ops.convert_to_tensor(kernel)
    once, thrice = (float(kr.RaReRegularizer(s)(tensor)) for s in (1.0, 3.0))
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-5)
    both = float(kr.RaReRegularizer(3.0, also="l2")(tensor))
    l2 = float(keras.regularizers.L2()(tensor))
    np.testing.assert_allclose(both, thrice + l2, rtol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("axis", [-1, -2])
def test_a_close_pair_is_found_among_many(exact, axis):
    matrix = random(400, 300)
    matrix[:, 217] = -2 * matrix[:, 30] + 0.1 * random(400, seed=1)
    if axis == -2:
        matrix = matrix.T
    pair = closest_pairs(ops.convert_to_tensor(matrix), axis, exact=exact)
    assert set(models.numpy(pair)[0]) == {30, 217}


def test_opposite_vectors_are_far_by_distance():
    kernel = np.array([[1.0, -1.0, 0.2], [0.0, 0.05, 1.0]], "float32")
    by_sine = penalty(kernel, vectors="units")
    by_distance = penalty(kernel, vectors="units", measure="squared_distance")
    assert by_sine < 1e-2
    assert by_distance > 0.1


def test_parallel_vectors_are_passed_over():
    kernel = random(10, 5)
    kernel[:, 1] = 3 * kernel[:, 0]
    expected = 1 - np.sort(np.abs(cosines(kernel[:, 1:])))[-1] ** 2
    found = penalty(kernel, vectors="units")
    np.testing.assert_allclose(found, expected / 2, rtol=1e-4)
    assert penalty(kernel, vectors="units", tau_cos=0.0) < 1e-6


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("size", [10, 60])
def test_columns_that_are_almost_zero_are_no_pair(size, exact):
    """Weight decay shrinks some so far that their squares are no numbers."""
    kernel = random(size, 15)
    kernel[:, :10] *= 1e-13
    options = {"vectors": "units", "exact": exact}
    expected = penalty(kernel[:, 10:], **options)
    np.testing.assert_allclose(penalty(kernel, **options), expected, rtol=1e-4)
    assert expected > 0.1


# --- kernels with the units on other axes -----------------------------------


@pytest.mark.parametrize(
    ("axis", "to_the_end"),
    [
        (-1, lambda kernel: kernel),
        (3, lambda kernel: kernel),
        ([-1], lambda kernel: kernel),
        (-2, lambda kernel: kernel.transpose(0, 1, 3, 2)),
        (0, lambda kernel: kernel.transpose(1, 2, 3, 0)),
        ((-2, -1), lambda kernel: kernel.reshape(3, 4, 30)),
        ([3, 0], lambda kernel: kernel.transpose(1, 2, 3, 0).reshape(4, 5, 18)),
    ],
)
def test_units_on_another_axis(axis, to_the_end):
    kernel = random(3, 4, 5, 6)
    for vectors in ("units", "inputs", "both"):
        np.testing.assert_allclose(
            penalty(kernel, vectors=vectors, units_axis=axis),
            penalty(to_the_end(kernel), vectors=vectors),
            rtol=1e-5,
        )
    found = models.gradient(kr.RaReRegularizer(1.0, units_axis=axis), kernel)
    plain = kr.RaReRegularizer(1.0)
    expected = models.gradient(lambda x: plain(x), to_the_end(kernel))
    np.testing.assert_allclose(to_the_end(found), expected, atol=1e-6)


@pytest.mark.parametrize("axis", [4, -5, [0, -4], [0, 1, 2, 3]])
def test_units_on_no_axis(axis):
    regularizer = kr.RaReRegularizer(1.0, units_axis=axis)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5, 6\)"):
        regularizer(ops.convert_to_tensor(random(3, 4, 5, 6)))


def closest(kernel):
    """The largest cosine, but for its sign, of two vectors on the last axis."""
    kernel = np.moveaxis(kernel, -1, 0)
    return np.abs(cosines(kernel.reshape(len(kernel), -1).T)).max()


def test_filters_of_transposed_and_depthwise_kernels_are_drawn_together():
    keras.utils.set_random_seed(0)
    rare = kr.RaReRegularizer(20.0, vectors="units", tau_cos=1e-6)
    transposed = layers.Conv2DTranspose(8, 2, kernel_regularizer=rare)
    depthwise = layers.DepthwiseConv2D(3, depthwise_regularizer=rare)
    model = keras.Sequential([keras.Input((4, 4, 6)), transposed, depthwise])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    images = random(16, 4, 4, 6)
    model.fit(images, random(16, 3, 3, 8, seed=1), epochs=60, verbose=0)
    after = [models.numpy(x.kernel) for x in (transposed, depthwise)]
    filters = [np.moveaxis(after[0], -2, -1), after[1].reshape(3, 3, 8)]
    assert min(map(closest, filters)) > 0.999
    # What reads the same input channel is no filter.
    assert closest(after[0]) < 0.9


# --- the gradient -----------------------------------------------------------


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("size", [8, 60])
def test_gradient_is_that_of_the_closest_pair_alone(measure, size):
    kernel = random(size, 6)
    kernel[:, 4] = kernel[:, 1] + random(size, seed=1)
    regularizer = kr.RaReRegularizer(2.0, measure, vectors="units")
    found = models.gradient(regularizer, kernel)
    pairs = list(itertools.combinations(range(6), 2))
    closest = pairs[MEASURES[measure](cosines(kernel)).argmin()]
    assert set(np.flatnonzero(np.abs(found).max(axis=0))) == set(closest)

    def value(of):
        return MEASURES[measure](cosines(of[:, closest].astype(float)))[0]

    step = np.zeros_like(kernel)
    step[2, closest[0]] = 1e-2
    expected = (value(kernel + step) - value(kernel - step)) / 2e-2
    np.testing.assert_allclose(found[2, closest[0]], expected, rtol=1e-2)


def kernels_without_direction():
    zeros = random(5, 4)
    zeros[:, [0, 2, 3]] = 0
    return {
        "one column": random(5, 1),
        "one row": random(1, 5),
        "one number": random(1, 1),
        "one column that is not zero": zeros,
        "zeros": np.zeros((5, 4), "float32"),
        "two equal columns": np.repeat(random(40, 1), 2, axis=1),
        "tiny": 1e-30 * random(5, 4),
    }


@pytest.mark.filterwarnings("ignore:RaReRegularizer has no effect")
@pytest.mark.parametrize("name", kernels_without_direction())
def test_gradients_are_never_nan(name):
    kernel = kernels_without_direction()[name]
    for measure in MEASURES:
        regularizer = kr.RaReRegularizer(1.0, measure, vectors="units")
        assert np.isfinite(float(regularizer(ops.convert_to_tensor(kernel))))
        assert np.isfinite(models.gradient(regularizer, kernel)).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_columns_with_nan_are_left_out(measure):
    kernel = random(50, 6)
    kernel[2, 3] = np.nan
    kernel[0, 1] = np.inf
    rest = kernel[:, [0, 2, 4, 5]]
    options = {"measure": measure, "vectors": "units", "exact": True}
    expected = MEASURES[measure](cosines(rest)).min() / 2
    np.testing.assert_allclose(penalty(kernel, **options), expected, rtol=1e-4)
    found = models.gradient(kr.RaReRegularizer(1.0, **options), kernel)
    assert np.isfinite(found[:, [0, 2, 4, 5]]).all()


# --- as part of a model -----------------------------------------------------


def test_training_makes_vectors_parallel():
    data = random(256, 20)
    targets = np.tanh(data @ random(20, 8, seed=1))
    parallel = []
    for strength in (0.0, 10.0):
        keras.utils.set_random_seed(0)
        regularizer = kr.RaReRegularizer(strength, vectors="units")
        model = keras.Sequential(
            [
                keras.Input((20,)),
                layers.Dense(30, "relu", kernel_regularizer=regularizer),
                layers.Dense(8),
            ]
        )
        model.compile(keras.optimizers.Adam(3e-3), "mse")
        model.fit(data, targets, epochs=60, verbose=0)
        found = np.abs(cosines(models.numpy(model.layers[0].kernel)))
        parallel.append((found > 0.999).sum())
    assert parallel[0] == 0
    assert parallel[1] >= 4


def test_models_with_it_are_saved_and_loaded(tmp_path):
    regularizer = kr.RaReRegularizer(
        2.0,
        "squared_distance",
        "inputs",
        1e-3,
        exact=True,
        also="l1",
        units_axis=(0,),
    )
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, kernel_regularizer=regularizer)]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found = loaded.layers[0].kernel_regularizer
    assert found.get_config() == regularizer.get_config()
    assert found.strength == 2.0
    assert found.units_axis == [0]


def test_pruned_models_are_stock():
    """They open without this package: what is for training alone is gone."""
    rare, with_l2 = kr.RaReRegularizer(1.0), kr.RaReRegularizer(1.0, also="l2")
    inputs = keras.Input((5, 4))
    wrapped = layers.Dense(6, kernel_regularizer=rare)
    x = layers.TimeDistributed(wrapped)(inputs)
    x = layers.LSTM(6, kernel_regularizer=with_l2)(x)
    model = keras.Model(inputs, layers.Dense(3, kernel_regularizer=with_l2)(x))
    small = kr.prune(model, ratio=0.5)
    assert "keras_redundancy" in model.to_json()
    assert "keras_redundancy" not in small.to_json()
    assert isinstance(
        small.layers[-1].kernel_regularizer, keras.regularizers.L2
    )
    assert len(small.losses) == 2
    assert model.layers[-1].kernel_regularizer is with_l2


# --- kernels on which it has no effect --------------------------------------


def fitted(layer, shape):
    """Train a model of one layer, twice, towards zeros."""
    model = keras.Sequential([keras.Input(shape), layer])
    model.compile("sgd", "mse")
    for _ in range(2):
        model.fit(
            random(4, *shape), np.zeros((4, *layer.output.shape[1:])), verbose=0
        )
    return model


def warned_of(layer, shape):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(layer, shape)
    return [str(x.message) for x in caught if "no effect" in str(x.message)]


def test_a_depthwise_kernel_with_units_on_the_last_axis_is_warned_of():
    """Once, though the penalty is traced again and computed in each step."""
    rare = kr.RaReRegularizer(50.0, vectors="units", units_axis=-1)
    layer = layers.DepthwiseConv2D(3, depthwise_regularizer=rare)
    (message,) = warned_of(layer, (6, 6, 8))
    assert "shape (3, 3, 8, 1)" in message
    assert "leave units_axis out" in message
    assert models.number(rare(layer.kernel.value)) == 0


def test_the_remedy_for_depthwise_kernels_has_an_effect():
    rare = kr.RaReRegularizer(50.0)
    layer = layers.DepthwiseConv2D(3, depthwise_regularizer=rare)
    assert warned_of(layer, (6, 6, 8)) == []
    assert models.number(sum(layer.losses)) > 0.1


@pytest.mark.parametrize("vectors", ["both", "units", "inputs"])
@pytest.mark.parametrize(("inputs", "units"), [(9, 1), (1, 9)])
def test_single_units_and_single_inputs_are_warned_of(inputs, units, vectors):
    """Vectors of a single number are all parallel, so no gradient is left."""
    rare = kr.RaReRegularizer(2.0, vectors=vectors)
    kernel = random(inputs, units)
    with pytest.warns(UserWarning, match="Leave the regularizer out"):
        found = models.gradient(rare, kernel)
    np.testing.assert_array_equal(found, 0)


def test_each_shape_is_warned_of_once():
    rare = kr.RaReRegularizer(2.0)
    for shape in ((9, 1), (5, 1)):
        with pytest.warns(UserWarning, match=re.escape(f"shape {shape}")):
            rare(ops.ones(shape))
        rare(ops.ones(shape))


def test_factorized_layers_are_warned_of_by_the_sizes_they_had_at_first():
    def factorized(units, **options):
        rare = kr.RaReRegularizer(2.0)
        return kr.FactorizedDense(units, kernel_regularizer=rare, **options)

    assert len(warned_of(factorized(1), (5,))) == 1
    # All columns were fused into one.
    assert warned_of(factorized(6, columns=1), (5,)) == []


def test_no_warning_where_nothing_is_asked_for():
    kr.RaReRegularizer(0.0)(ops.ones((5, 1)))
    # A transposed kernel may have the shape of another one: nothing is known.
    rare = kr.RaReRegularizer(2.0)
    transposed = layers.Conv2DTranspose(3, 2, kernel_regularizer=rare)
    assert warned_of(transposed, (4, 4, 5)) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 by default")
    kernel = ops.cast(ops.convert_to_tensor(random(12, 9)), dtype)
    value = kr.RaReRegularizer(1.0)(kernel)
    # Keras adds it to the loss, which has this dtype in any layer's policy.
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    expected = penalty(models.numpy(ops.cast(kernel, "float32")))
    np.testing.assert_allclose(float(value), expected, rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"strength": -1.0}, ValueError, "at least 0"),
        ({"strength": np.nan}, ValueError, "finite"),
        ({"strength": np.inf}, ValueError, "finite"),
        ({"strength": "strong"}, TypeError, "number"),
        ({"strength": True}, TypeError, "number"),
        ({"strength": 1.0, "tau_cos": 1.0}, ValueError, "none are pulled"),
        ({"strength": 1.0, "tau_cos": -0.1}, ValueError, "tau_cos"),
        ({"strength": 1.0, "measure": "sine"}, ValueError, "squared_sine"),
        ({"strength": 1.0, "vectors": "rows"}, ValueError, "inputs"),
        ({"strength": 1.0, "units_axis": 1.5}, TypeError, "units_axis"),
        ({"strength": 1.0, "units_axis": []}, TypeError, "units_axis"),
        ({"strength": 1.0, "units_axis": [0, "1"]}, TypeError, "units_axis"),
        ({"strength": 1.0, "units_axis": True}, TypeError, "units_axis"),
    ],
)
def test_bad_arguments(options, error, words):
    with pytest.raises(error, match=words):
        kr.RaReRegularizer(**options)


def test_a_bias_has_no_columns():
    with pytest.raises(ValueError, match="kernel_regularizer"):
        kr.RaReRegularizer(1.0)(ops.ones((3,)))
