"""A calibration: of which data, for which model, for several plans."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration.data import batches
from tests import models
from tests.calibration.observed import (
    assert_same_moments,
    statistics_of,
    views_by_layer,
)


class Sequence(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return self.x[number * 15 : (number + 1) * 15], np.zeros(15)


def tf_data(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, np.zeros(60))).batch(16)


def generator(x):
    """One of the batches is empty."""
    return ((part, np.zeros(len(part))) for part in np.split(x, [20, 20, 40]))


@pytest.mark.parametrize("kind", [np.asarray, Sequence, tf_data, generator])
def test_all_that_predict_takes(kind):
    model = models.randomized(models.mlp())
    x = models.random_inputs(model, batch=60)
    _, wanted = statistics_of(model, x)
    _, found = statistics_of(model, kind(x))
    assert found.samples == wanted.samples == 60
    for a, b in zip(wanted.views.values(), found.views.values(), strict=True):
        assert_same_moments(a[0].moments, b[0].moments)


def test_batches_of_a_generator_are_not_held_on_to():
    alive = weakref.WeakSet()

    class Batch(np.ndarray):
        __hash__ = object.__hash__

    def endless():
        for _ in range(50):
            batch = np.zeros((4, 12), "float32").view(Batch)
            alive.add(batch)
            yield batch
            del batch

    most = 0
    for _ in batches(models.mlp(), endless(), 4):
        gc.collect()
        most = max(most, len(alive))
    assert 0 < most < 10


def test_inputs_by_name_in_any_order():
    model = models.randomized(models.shared())
    left, right = (
        np.random.default_rng(n).normal(n, 1, (30, 10)) for n in (0, 1)
    )
    names = [x.name for x in model.inputs]
    by_name = {names[1]: right, names[0]: left}
    (a,) = views_by_layer(*statistics_of(model, [left, right]))["top"]
    (b,) = views_by_layer(*statistics_of(model, by_name))["top"]
    assert_same_moments(a.moments, b.moments)


def test_the_model_is_what_it_was():
    """Also the states of a layer that change when the model runs."""
    inputs = keras.Input(batch_shape=(8, 5, 3))
    recurrent = layers.LSTM(4, stateful=True)
    x = layers.Dropout(0.5)(recurrent(inputs))
    x = layers.Dense(6, activation="relu")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    data = models.random_inputs(model, batch=16)
    for state in recurrent.states:
        state.assign(np.ones((8, 4)))
    variables = [*model.variables, *recurrent.states]
    before = [models.numpy(v) for v in variables]
    kr.prune(model, ratio=0.3, data=data, batch_size=8)
    for x, variable in zip(before, variables, strict=True):
        np.testing.assert_array_equal(x, models.numpy(variable))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((0, 12)), "data is empty"),
        ((x for x in ()), "data is empty"),
        (np.zeros((5, 11)), r"\(5, 11\).*the model takes \(None, 12\)"),
        ((np.zeros((5, n)) for n in (12, 11)), "batch 1 .*input 'keras_tensor"),
        (np.zeros(12), "batch axis"),
        ([np.zeros((5, 12)), np.zeros(5)], "^data has .*without targets"),
        ([], r"^data has batches of shape \[\]"),
        ({"x": np.zeros((5, 12)), "y": np.zeros(5)}, "without targets"),
        ("images.npz", "Pass what Model.predict takes"),
        (np.full((5, 12), np.nan), "data holds NaN"),
    ],
)
def test_data_that_cannot_be_used(data, words):
    model = models.randomized(models.mlp())
    with pytest.raises((TypeError, ValueError), match=f"(?s){words}"):
        kr.prune(model, 0.9, data=data)


def test_nan_is_found_in_its_batch_and_input():
    first, second = (keras.Input((4,), name=name) for name in ("one", "two"))
    x = layers.Dense(8, activation="relu")(layers.Add()([first, second]))
    model = models.randomized(keras.Model([first, second], layers.Dense(2)(x)))
    data = [np.zeros((12, 4), "float32") for _ in range(2)]
    data[1][9, 2] = np.nan
    with pytest.raises(ValueError, match="sample 4 of batch 1 ") as caught:
        kr.calibrate(model, data, batch_size=5)
    assert "input 'two'" in str(caught.value)


@pytest.mark.parametrize("kind", [list, dict])
def test_inputs_of_several_lengths(kind):
    inputs = {name: keras.Input((4,), name=name) for name in ("one", "two")}
    x = layers.Dense(8)(layers.Concatenate()(list(inputs.values())))
    given = inputs if kind is dict else list(inputs.values())
    model = keras.Model(given, layers.Dense(2)(x))
    data = {"one": np.zeros((12, 4)), "two": np.zeros((5, 4))}
    data = data if kind is dict else list(data.values())
    with pytest.raises(ValueError, match="data has 12, 5 samples"):
        kr.prune(model, ratio=0.3, data=data)


def test_weights_that_are_nan_are_named():
    model = models.randomized(models.mlp())
    model.layers[1].kernel.assign(np.nan * model.layers[1].kernel)
    path = model.layers[1].kernel.path
    with pytest.raises(ValueError, match=f"The weights {path} hold NaN"):
        kr.prune(model, ratio=0.3, data=models.random_inputs(model))


# --- one for several plans --------------------------------------------------


def test_a_calibration_serves_as_data():
    model = models.randomized(models.vgg())
    data = models.random_inputs(model, batch=64)
    known = kr.calibrate(model, data)
    for options in (
        {"tau": 0.9, "rounds": 0},
        {"ratio": 0.5, "select": "pivoted"},
    ):
        plans = [kr.plan(model, data=x, **options) for x in (data, known)]
        for own, other in zip(*(p.decisions for p in plans), strict=True):
            np.testing.assert_array_equal(
                own.selection.kept, other.selection.kept
            )
        models.assert_same_function(*(plan.apply() for plan in plans))


def test_a_calibration_goes_over_an_iterator_once():
    model = models.randomized(models.vgg())
    data = models.random_inputs(model, batch=64)
    known = kr.calibrate(model, iter([data[:32], data[32:]]))
    small = [kr.prune(model, ratio=0.5, data=known) for _ in range(2)]
    models.assert_same_function(*small)


def test_a_calibration_of_something_else_is_refused():
    model = models.randomized(models.mlp())
    known = kr.calibrate(model, models.random_inputs(model, batch=64))
    other = keras.models.clone_model(model)
    with pytest.raises(ValueError, match="another model object"):
        kr.plan(other, ratio=0.5, data=known)
    with pytest.raises(ValueError, match="allow_inexact"):
        kr.plan(model, ratio=0.5, data=known, allow_inexact=True)


def trained(model):
    model.compile("sgd", "mse", run_eagerly=models.EAGERLY)
    inputs = models.random_inputs(model, batch=8)
    model.fit(inputs, np.ones((8, 3)), verbose=0)


def assigned(model):
    """One number of a layer without units of its own."""
    norm = model.get_layer("norm")
    variance = models.numpy(norm.moving_variance)
    variance[1] += 1e-6
    norm.moving_variance.assign(variance)


@pytest.mark.parametrize("change", [trained, assigned])
def test_a_calibration_of_other_weights_is_refused(change):
    inputs = keras.Input((12,))
    x = layers.Dense(6, activation="relu")(inputs)
    x = layers.Dropout(0.5)(layers.BatchNormalization(name="norm")(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    x = models.random_inputs(model, batch=32)
    known = kr.calibrate(model, x)
    kr.plan(model, ratio=0.5, data=known)
    model(x, training=False)
    kr.prune(model, ratio=0.5, data=known)
    change(model)
    for call in (
        lambda: kr.plan(model, ratio=0.5, data=known),
        lambda: kr.merge_correlated(model, known, count=1),
        lambda: kr.compare(model, lambda m: 0.0, data=known, verbose=False),
    ):
        with pytest.raises(ValueError, match=r"other weights.*calibrate\("):
            call()
    kr.plan(model, ratio=0.5, data=kr.calibrate(model, x))


def test_a_calibration_of_what_was_stripped_is_refused_after_training():
    model = kr.factorize(models.randomized(models.mlp()))
    known = kr.calibrate(model, models.random_inputs(model, batch=32))
    kr.plan(model, ratio=0.5, data=known)
    trained(model)
    with pytest.raises(ValueError, match="other weights"):
        kr.plan(model, ratio=0.5, data=known)


def test_states_and_random_generators_are_no_weights():
    inputs = keras.Input(batch_shape=(8, 5, 3))
    x = layers.GaussianNoise(0.1)(inputs)  # Dropout of PyTorch has no state.
    x = layers.LSTM(4, stateful=True)(x)
    x = layers.Dense(6, activation="relu")(layers.Dropout(0.5)(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    x = models.random_inputs(model, batch=8)
    known = kr.calibrate(model, x, batch_size=8)
    before = kr.plan(model, ratio=0.5, data=known).decisions
    states = [models.numpy(v) for v in model.non_trainable_variables]
    model.predict(x, batch_size=8, verbose=0)
    model(x, training=True)
    changed = [
        not np.array_equal(old, models.numpy(variable))
        for old, variable in zip(
            states, model.non_trainable_variables, strict=True
        )
    ]
    assert any(changed)
    after = kr.plan(model, ratio=0.5, data=known).decisions
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.selection.kept, b.selection.kept)


def test_a_calibration_is_shown_in_one_line():
    model = models.randomized(models.vgg())
    known = kr.calibrate(model, models.random_inputs(model, batch=64))
    assert repr(known) == (
        f"<Calibration of {model.name!r}: what 3 kernels read of 64 samples>"
    )
