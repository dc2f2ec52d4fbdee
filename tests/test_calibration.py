"""What calibration data says of the units that consumers read."""

import gc
import tracemalloc
import weakref

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration import Moments, observer
from keras_redundancy.calibration.data import batches
from tests import models


def statistics_of(model, data, batch_size=32):
    known = kr.calibrate(model, data, batch_size=batch_size)
    return known.graph, known.statistics


def views_by_layer(graph, statistics):
    """{layer name: views of what its kernel reads}."""
    return {
        axis.layer.name: statistics.views[id(axis)]
        for axis in graph.axes
        if id(axis) in statistics.views
    }


def assert_moments(moments, rows, tolerance=1e-5):
    rows = np.asarray(rows, np.float64)
    covariance = np.cov(rows, rowvar=False, bias=True)
    scale = np.abs(covariance).max()
    assert moments.count == len(rows)
    np.testing.assert_allclose(
        moments.mean, rows.mean(axis=0), atol=tolerance * np.sqrt(scale)
    )
    np.testing.assert_allclose(
        moments.covariance, covariance, atol=tolerance * scale
    )


def between(model, tensor, data):
    """What a tensor inside of a model holds for these inputs."""
    return keras.Model(model.inputs, tensor).predict(data, verbose=0)


# --- moments ----------------------------------------------------------------


def test_batches_add_up_to_the_whole():
    x = np.random.default_rng(0).normal(3, 2, size=(100, 4))
    moments = Moments.of_no_rows(4)
    for part in np.split(x, [10, 11, 60]):
        rest = part - part.mean(axis=0)
        moments.add(len(part), len(part), part.mean(axis=0), rest.T @ rest)
    assert_moments(moments, x, tolerance=1e-12)
    assert moments.samples == 100


def test_a_large_mean_does_not_drown_a_small_variance():
    """E[x^2] - E[x]^2 in float32 would be all noise here."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(3, name="dense"),
            layers.Dense(2, name="top"),
        ]
    )
    model.layers[0].kernel.assign(np.eye(3))
    model.layers[0].bias.assign([1e4, 1e4, 1e4])
    data = np.random.default_rng(0).normal(size=(500, 3)).astype("float32")
    graph, statistics = statistics_of(model, data)
    (view,) = views_by_layer(graph, statistics)["top"]
    covariance = np.cov(data, rowvar=False, bias=True)
    np.testing.assert_allclose(view.moments.covariance, covariance, atol=0.01)


# --- what is read -----------------------------------------------------------


def test_convolutions_and_nested_models():
    inner_in = keras.Input((8, 8, 6))
    x = layers.Conv2D(7, 3, activation="relu", name="in0")(inner_in)
    inner = keras.Model(inner_in, layers.Conv2D(5, 3, name="in1")(x))
    inputs = keras.Input((8, 8, 3))
    stem = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    relu = layers.ReLU()(layers.BatchNormalization()(stem))
    top = layers.Conv2D(2, 3, name="top")(inner(relu))
    model = models.randomized(keras.Model(inputs, top))
    data = models.random_inputs(model, batch=80)
    views = views_by_layer(*statistics_of(model, data))
    rows = between(model, relu, data)
    (view,) = views["in0"]
    assert_moments(view.moments, rows.reshape(-1, 6))
    (view,) = views["in1"]
    first = keras.Model(inner_in, x).predict(rows, verbose=0)
    assert_moments(view.moments, first.reshape(-1, 7))
    assert view.moments.samples == 80


def test_flattened_positions_are_rows():
    """A unit of the convolution is one number, at nine positions."""
    inputs = keras.Input((3, 3, 2))
    x = layers.Conv2D(5, 1, name="wide")(inputs)
    y = layers.Conv2D(4, 1, name="narrow")(inputs)
    both = layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(y)])
    model = models.randomized(
        keras.Model(inputs, layers.Dense(2, name="top")(both))
    )
    data = models.random_inputs(model, batch=50)
    (view,) = views_by_layer(*statistics_of(model, data))["top"]
    assert view.positions.shape == (9, 9)
    rows = np.concatenate(
        [
            between(model, tensor, data).reshape(-1, n)
            for tensor, n in ((y, 4), (x, 5))
        ],
        axis=1,
    )
    assert_moments(view.moments, rows)


def test_one_joint_view_of_what_a_kernel_reads_side_by_side():
    model = models.randomized(models.dense_block())
    data = models.random_inputs(model, batch=64)
    graph, statistics = statistics_of(model, data)
    sizes = [
        len(view.positions)
        for views in statistics.views.values()
        for view in views
    ]
    assert sorted(sizes) == [6, 11, 16, 21]
    # All but the last space are read by several kernels.
    counts = [len(statistics.of_space(space)) for space in graph.prunable]
    assert counts == [4, 3, 2, 1]


def test_both_calls_of_a_shared_layer_count():
    model = models.randomized(models.shared())
    data = [
        np.random.default_rng(n).normal(n, 1, (60, 10)).astype("float32")
        for n in (0, 1)
    ]
    (view,) = views_by_layer(*statistics_of(model, data))["second"]
    tower = model.get_layer("tower")
    assert_moments(
        view.moments, np.concatenate([models.numpy(tower(x)) for x in data])
    )


def test_groups_read_the_same_units():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 1, activation="relu", name="first")(inputs)
    y = layers.Conv2D(6, 3, groups=2, name="grouped")(x)
    model = models.randomized(keras.Model(inputs, layers.Conv2D(2, 1)(y)))
    data = models.random_inputs(model, batch=40)
    (view,) = views_by_layer(*statistics_of(model, data))["grouped"]
    rows = between(model, x, data).reshape(-1, 2, 4)
    assert view.positions.shape == (4, 1)
    assert_moments(view.moments, rows.swapaxes(0, 1).reshape(-1, 4))


def test_layers_inside_a_wrapper_read_the_tensor_around_it():
    inputs = keras.Input((5, 3))
    x = layers.Dense(6, activation="relu")(inputs)
    y = layers.TimeDistributed(layers.Dense(4, name="each"))(x)
    model = models.randomized(keras.Model(inputs, y))
    data = models.random_inputs(model, batch=40)
    (view,) = views_by_layer(*statistics_of(model, data))["each"]
    assert_moments(view.moments, between(model, x, data).reshape(-1, 6))


def test_heads_have_no_view():
    """Each is a vector: no number tells one head from another one."""
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(4, 2, name="heads")(inputs, inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    data = models.random_inputs(model, batch=8)
    graph, statistics = statistics_of(model, data)
    assert "heads" not in views_by_layer(graph, statistics)
    assert statistics.of_space(graph.prunable[0]) == []


def test_channels_first():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow convolves channels_first on a GPU alone")
    inputs = keras.Input((2, 6, 6))
    x = layers.Conv2D(5, 3, data_format="channels_first")(inputs)
    y = layers.Conv2D(3, 3, data_format="channels_first", name="top")(x)
    model = models.randomized(keras.Model(inputs, y))
    data = models.random_inputs(model, batch=20)
    (view,) = views_by_layer(*statistics_of(model, data))["top"]
    rows = np.moveaxis(between(model, x, data), 1, -1)
    assert_moments(view.moments, rows.reshape(-1, 5))


# --- sampling ---------------------------------------------------------------


def test_many_positions_are_sampled_over_all_of_the_image():
    """The number at a position says which one it is."""
    inputs = keras.Input((20, 30, 1))
    x = layers.Conv2D(2, 1, name="stem")(inputs)
    model = keras.Model(inputs, layers.Conv2D(1, 1, name="top")(x))
    model.get_layer("stem").kernel.assign(np.ones((1, 1, 1, 2)))
    place = np.arange(600.0).reshape(1, 20, 30, 1).astype("float32")
    data = np.repeat(place, 512, axis=0)
    (view,) = views_by_layer(*statistics_of(model, data))["top"]
    assert view.moments.count == 512 * observer.POSITIONS
    uniform = (600**2 - 1) / 12
    assert view.moments.mean[0] == pytest.approx(299.5, rel=0.01)
    assert view.moments.covariance[0, 0] == pytest.approx(uniform, rel=0.02)


def test_open_sizes():
    inputs = keras.Input((None, None, 2))
    x = layers.Conv2D(4, 1, name="stem")(inputs)
    model = models.randomized(
        keras.Model(inputs, layers.Conv2D(1, 3, name="top")(x))
    )
    data = np.random.default_rng(0).normal(size=(64, 12, 12, 2))
    (view,) = views_by_layer(*statistics_of(model, data))["top"]
    rows = between(model, x, data).reshape(-1, 4)
    assert view.moments.count == 64 * observer.POSITIONS
    covariance = np.cov(rows, rowvar=False, bias=True)
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(
        view.moments.covariance, covariance, atol=0.1 * scale
    )


# --- data -------------------------------------------------------------------


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
    return ((part, np.zeros(len(part))) for part in np.split(x, [20, 40]))


@pytest.mark.parametrize("kind", [np.asarray, Sequence, tf_data, generator])
def test_all_that_predict_takes(kind):
    model = models.randomized(models.mlp())
    x = models.random_inputs(model, batch=60)
    _, wanted = statistics_of(model, x)
    _, found = statistics_of(model, kind(x))
    assert found.samples == wanted.samples == 60
    for a, b in zip(wanted.views.values(), found.views.values(), strict=True):
        assert_same_moments(a[0].moments, b[0].moments)


def assert_same_moments(a, b):
    np.testing.assert_allclose(a.mean, b.mean, atol=1e-6)
    np.testing.assert_allclose(a.scatter, b.scatter, atol=1e-4)


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
    """Also the state of a layer that changes when the model runs."""
    inputs = keras.Input(batch_shape=(8, 5, 3))
    x = layers.LSTM(4, stateful=True)(inputs)
    x = layers.Dense(6, activation="relu")(layers.Dropout(0.5)(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    before = [models.numpy(v) for v in model.variables]
    statistics_of(model, models.random_inputs(model, batch=16), batch_size=8)
    for x, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(x, models.numpy(variable))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((0, 12)), "data is empty"),
        ((x for x in ()), "data is empty"),
        (np.zeros((5, 11)), r"\(5, 11\).*the model takes \(None, 12\)"),
        (np.zeros(12), "batch axis"),
        ([np.zeros((5, 12)), np.zeros(5)], "without targets"),
        ({"x": np.zeros((5, 12)), "y": np.zeros(5)}, "without targets"),
        ("images.npz", "Pass what Model.predict takes"),
        (np.full((5, 12), np.nan), "data holds NaN"),
    ],
)
def test_data_that_cannot_be_used(data, words):
    model = models.randomized(models.mlp())
    with pytest.raises((TypeError, ValueError), match=f"(?s){words}"):
        kr.prune(model, 0.9, data=data)


# --- once for several plans, and without data -------------------------------


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
    model.compile("sgd", "mse")
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
    x = layers.LSTM(4, stateful=True)(inputs)
    x = layers.Dense(6, activation="relu")(layers.Dropout(0.5)(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    x = models.random_inputs(model, batch=8)
    known = kr.calibrate(model, x, batch_size=8)
    model.predict(x, batch_size=8, verbose=0)
    model(x, training=True)
    kr.plan(model, ratio=0.5, data=known)


def test_a_calibration_is_shown_in_one_line():
    model = models.randomized(models.vgg())
    known = kr.calibrate(model, models.random_inputs(model, batch=64))
    assert repr(known) == (
        f"<Calibration of {model.name!r}: what 3 kernels read of 64 samples>"
    )


def test_pink_noise_takes_little_more_memory_than_what_it_returns():
    tracemalloc.start()
    noise = kr.pink_noise((32, 32, 3), samples=128)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * noise.nbytes


def test_pink_noise_is_one_filter_of_white_noise():
    """Made in parts, it is what all samples at once would be."""
    sizes, channels = (6, 9), 2
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, sizes[::-1])))
    frequency[0, 0] = 1 / max(sizes)
    white = np.random.default_rng(3).normal(size=(80, *sizes, channels))
    spectrum = np.fft.fft2(white, axes=(1, 2)) / frequency[..., None]
    expected = np.fft.ifft2(spectrum, axes=(1, 2)).real
    expected = expected / expected.std() * [2, 3] + [1, -1]
    noise = kr.pink_noise(
        (*sizes, channels), 80, mean=[1, -1], stddev=[2, 3], seed=3
    )
    np.testing.assert_allclose(noise, expected, atol=1e-5)


def test_pink_noise_falls_with_the_frequency():
    noise = kr.pink_noise((32, 32, 2), 256, mean=[1, -1], stddev=[2, 3])
    assert noise.shape == (256, 32, 32, 2)
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise.mean((0, 1, 2)), [1, -1], atol=0.3)
    np.testing.assert_allclose(noise.std((0, 1, 2)), [2, 3], rtol=0.05)
    power = (np.abs(np.fft.fft(noise[..., 0], axis=1)) ** 2).mean((0, 2))
    slope = np.polyfit(np.log(np.arange(2, 12)), np.log(power[2:12]), 1)[0]
    assert slope < -1
    np.testing.assert_array_equal(
        noise, kr.pink_noise((32, 32, 2), 256, mean=[1, -1], stddev=[2, 3])
    )


@pytest.mark.parametrize("shape", [(3,), (None, 32, 3), (0, 4)])
def test_noise_of_no_shape(shape):
    with pytest.raises(ValueError, match="one sample"):
        kr.pink_noise(shape)
