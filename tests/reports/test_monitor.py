"""`RedundancyMonitor`: what TensorBoard reads is what `analyze` says."""

import io
import os
import sys
import threading
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
from keras import layers
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from tensorboard.backend.event_processing import event_accumulator

import keras_redundancy as kr
from keras_redundancy.reports.analysis import reports
from keras_redundancy.reports.heatmaps import COLORS
from keras_redundancy.reports.monitor import ZeroShares
from tests import fit_and_prune_run, models

TAUS = (0.3, 0.5)


def data(count=64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8)).astype("float32")
    return x, x[:, :3]


def network():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(24, activation="relu", name="one"),
            layers.Dense(16, name="two"),
            layers.ReLU(name="relu"),
            layers.Dense(3, name="last"),
        ]
    )
    model.compile("adam", "mse", run_eagerly=models.EAGERLY)
    return model


def events_in(folder):
    found = event_accumulator.EventAccumulator(
        str(folder), size_guidance={"tensors": 0}
    )
    return found.Reload()


def scalars_in(folder):
    """{tag: {step: value}} of those that hold one number."""
    events, scalars = events_in(folder), {}
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            if not event.tensor_proto.tensor_shape.dim:
                value = np.frombuffer(
                    event.tensor_proto.tensor_content or b"", "float32"
                )
                number = value if len(value) else event.tensor_proto.float_val
                scalars.setdefault(tag, {})[event.step] = float(number[0])
    return scalars


class Keep(keras.callbacks.Callback):
    """What `analyze` gives at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(kr.analyze(self.model, TAUS[0]))


def test_what_is_logged_is_what_analyze_gives(tmp_path):
    model, keep = network(), Keep()
    board = keras.callbacks.TensorBoard(tmp_path)
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, TAUS, data=data()[0])
    model.fit(*data(), epochs=3, verbose=0, callbacks=[board, monitor, keep])
    scalars = scalars_in(tmp_path / "redundancy")
    for step, report in enumerate(keep.found):
        for layer in report.layers:
            for tag, value in (
                ("n_r_at_0.3", layer.n_r),
                ("n_f_at_0.3", layer.n_f),
                ("redundant_share_at_0.3", layer.n_r / layer.n),
                ("mean_similarity", layer.mean_similarity),
                ("max_similarity", layer.max_similarity),
                ("effective_rank", layer.effective_rank),
                ("stable_rank", layer.stable_rank),
                ("trace_complexity", layer.trace_complexity),
            ):
                logged = scalars[f"{tag}/{layer.layer}"][step]
                assert logged == pytest.approx(value, rel=1e-6), tag
        assert scalars["model/n_r_at_0.3"][step] == report.n_r
        assert scalars["model/parameters"][step] == model.count_params()
        assert scalars["model/multiply_adds_left"][step] == 1
    for tag, values in monitor.history.items():
        assert scalars[tag] == pytest.approx(dict(values), rel=1e-6)
    events = events_in(tmp_path / "train")
    assert [x.step for x in events.Tensors("epoch_loss")] == [0, 1, 2]


def test_figures_are_those_of_numpy_and_scipy(tmp_path):
    model = network()
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, TAUS, data=data()[0])
    model.fit(*data(), epochs=1, verbose=0, callbacks=[monitor])
    found = {tag: values[0][1] for tag, values in monitor.history.items()}
    W = models.numpy(model.get_layer("one").kernel).astype("float64")
    distances = pdist(W.T, "cosine")
    tree = linkage(distances, "average")
    for tau in TAUS:
        n_f = fcluster(tree, 1 - tau, "distance").max()
        assert found[f"n_f_at_{tau}/one"] == n_f
        assert found[f"n_r_at_{tau}/one"] == 24 - n_f
    assert found["n_r_at_0.3/one"] > 0
    values = np.linalg.svd(W, compute_uv=False)
    energy = np.cumsum(values**2) / np.sum(values**2)
    share = (1 + np.searchsorted(energy, 0.99)) / 8
    assert found["energy_rank_share/one"] == pytest.approx(share)
    assert found["mean_similarity/one"] == pytest.approx(1 - distances.mean())
    hidden = keras.Model(model.inputs, model.get_layer("one").output)
    zeros = np.mean(hidden.predict(data()[0], verbose=0) == 0)
    assert found["zeros/one"] == pytest.approx(zeros)
    assert {"zeros/relu", "zeros/one"} == {x for x in found if "zeros" in x}


def test_histograms_and_pictures(tmp_path):
    """Of copies that are apart: next to one another they are a block."""
    model = network()
    layer = model.get_layer("two")
    kernel = models.numpy(layer.kernel)
    kernel[:, [4, 9]] = kernel[:, [0]]
    layer.kernel.assign(kernel)
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, tau=0.9999)
    monitor.set_model(model)
    monitor.on_train_begin()
    monitor.log(0)
    events = events_in(tmp_path / "redundancy")
    (event,) = events.Tensors("by_cluster/two")
    *size, png = event.tensor_proto.string_val
    picture = matplotlib.image.imread(io.BytesIO(png))[4::8, 4::8, :3]
    assert size == [b"128", b"128"]
    assert picture.shape == (16, 16, 3)
    red = np.array(COLORS[2]) / 255
    is_red = (np.abs(picture - red) < 1e-3).all(axis=-1)
    expected = np.eye(16, dtype=bool)
    expected[:3, :3] = True
    np.testing.assert_array_equal(is_red, expected)
    (event,) = events.Tensors("similarities/two")
    buckets = np.frombuffer(event.tensor_proto.tensor_content, "float64")
    assert buckets.reshape(-1, 3)[:, 2].sum() == 16 * 15 / 2


def units(built, **compiled):
    """A Sequential model, built or to be built by `fit`."""
    parts = [layers.Dense(6, activation="relu", name="one"), layers.Dense(3)]
    start = [keras.Input((8,))] if built else []
    model = keras.Sequential(start + parts)
    model.compile("sgd", "mse", **compiled)
    return model


def steps_of(monitor):
    return [step for step, _ in monitor.history["model/parameters"]]


@pytest.mark.parametrize("every", [3, "epoch"])
def test_a_model_that_fit_builds(every, tmp_path):
    """On TensorFlow it is built by its first batch, elsewhere before."""
    x, y = data()
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, every=every, data=x)
    options = {"batch_size": 16, "epochs": 2, "verbose": 0}
    units(built=False).fit(x, y, callbacks=[monitor], **options)
    first = 1 if keras.backend.backend() == "tensorflow" else 0
    assert steps_of(monitor) == ([0, 1] if every == "epoch" else [first, 3, 6])
    assert {value for _, value in monitor.history["model/parameters_left"]} == {
        1
    }
    assert "zeros/one" in monitor.history


@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
def test_a_model_without_units_that_fit_builds(tmp_path):
    model = keras.Sequential([layers.ReLU()])
    model.compile("sgd", "mse")
    monitor = kr.callbacks.RedundancyMonitor(tmp_path)
    with pytest.raises(ValueError, match="has no layer with a kernel"):
        model.fit(data()[0], data()[0], verbose=0, callbacks=[monitor])


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras takes one at a time there"
)
@pytest.mark.parametrize(
    ("at_once", "every", "expected"),
    [
        (3, 3, [0, 3, 6, 11, 14]),
        (8, 3, [0, 8]),
        (2, 5, [0, 6, 10]),
    ],
)
def test_batches_that_are_taken_at_once(at_once, every, expected, tmp_path):
    """Two epochs of eight; it looks where Keras stops next."""
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, every=every)
    model = units(built=True, steps_per_execution=at_once)
    options = {"batch_size": 8, "epochs": 2, "verbose": 0}
    model.fit(*data(), callbacks=[monitor], **options)
    assert steps_of(monitor) == expected


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="needs tf.data"
)
@pytest.mark.parametrize(
    ("at_once", "expected"),
    [
        (1, list(range(11))),
        (3, [0, 3, 5, 8, 10]),
        (5, [0, 5, 10]),
    ],
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_batches_of_unknown_number(at_once, expected, tmp_path):
    """Two epochs of five: Keras begins one more, to see that it is missing."""
    import tensorflow as tf

    x, y = data()
    batches = tf.data.Dataset.from_tensor_slices((x[:40], y[:40])).batch(8)
    batches = batches.filter(lambda x, y: True)
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, every=1)
    model = units(built=True, steps_per_execution=at_once)
    options = {"epochs": 2, "verbose": 0, "shuffle": False}
    model.fit(batches, callbacks=[monitor], **options)
    assert steps_of(monitor) == expected


def lengths(model):
    """Of all lists that layers hold, such as those of their calls."""
    return [
        {k: len(x) for k, x in vars(part).items() if isinstance(x, list)}
        for part in [model, *model.layers]
    ]


def test_it_leaves_the_layers_as_they_were(tmp_path):
    model = network()
    model.fit(*data(), verbose=0)
    before = lengths(model)
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, data=data()[0])
    model.fit(*data(), epochs=2, verbose=0, callbacks=[monitor])
    assert lengths(model) == before
    assert len(monitor.history["zeros/one"]) == 2


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_nothing_is_left_open_by_an_interrupted_fit(tmp_path):
    """What was logged before is in the file, which the next `fit` goes on."""
    model, threads = network(), threading.active_count()
    monitor = kr.callbacks.RedundancyMonitor(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data(), verbose=0, callbacks=[monitor, Stop()])
    if keras.backend.backend() == "tensorflow":
        # JAX and PyTorch start threads of their own, which stay.
        assert threading.active_count() == threads
    (file,) = (tmp_path / "redundancy").iterdir()
    if os.path.isdir("/proc/self/fd"):
        held = [os.path.realpath(x) for x in Path("/proc/self/fd").iterdir()]
        assert str(file) not in held
    tag = "n_r_at_0.5/one"
    assert set(scalars_in(file.parent)[tag]) == {0}
    options = {"epochs": 3, "initial_epoch": 1, "verbose": 0}
    model.fit(*data(), callbacks=[monitor], **options)
    assert list(file.parent.iterdir()) == [file]
    assert set(scalars_in(file.parent)[tag]) == {0, 1, 2}


@pytest.mark.parametrize("every", [3, "epoch"])
def test_steps(every, tmp_path):
    """Batches are counted through the epochs, as TensorBoard does."""
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, every=every)
    options = {"batch_size": 16, "epochs": 2, "initial_epoch": 0}
    network().fit(*data(), verbose=0, callbacks=[monitor], **options)
    steps = [step for step, _ in monitor.history["model/parameters"]]
    assert steps == ([0, 1] if every == "epoch" else [0, 3, 6])


def test_cuts_in_the_middle_are_seen(tmp_path):
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, data=np.ones((4, 8)))
    model = fit_and_prune_run.network()
    found = fit_and_prune_run.run(model, callbacks=[monitor], epochs=6)
    logged = [value for _, value in monitor.history["model/parameters"]]
    assert logged == found.history.history["parameters"]
    left = [value for _, value in monitor.history["model/parameters_left"]]
    assert left[0] == 1
    assert left[-1] == pytest.approx(logged[-1] / model.count_params())
    assert left[-1] < 0.9


def test_factorized_layers_are_seen_as_what_they_compute(tmp_path):
    model = kr.factorize(network())
    model.compile("adam", "mse")
    layer = model.get_layer("two")
    kernel = models.numpy(layer.kernel)
    kernel[:, 3] = 2 * kernel[:, 5]
    layer.kernel.assign(kernel)
    layer.fuse_parallel(to_square=False)
    assert layer.sizes == (24, 15)
    monitor = kr.callbacks.RedundancyMonitor(tmp_path, 0.9999)
    model.fit(*data(), verbose=0, callbacks=[monitor])
    found = {tag: values[0][1] for tag, values in monitor.history.items()}
    assert found["n_r_at_0.9999/two"] == 1
    dense = kr.strip(model)
    assert found["model/parameters"] == dense.count_params() - 24
    assert found["effective_rank/two"] == pytest.approx(
        reports(dense, [0.5])[0].layers[1].effective_rank
    )


def test_what_multiplies_nothing_has_no_share_of_it(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Embedding(9, 4)])
    model.compile("sgd", "mse")
    monitor = kr.callbacks.RedundancyMonitor(tmp_path)
    x = np.arange(6).reshape(2, 3)
    model.fit(x, np.zeros((2, 3, 4)), verbose=0, callbacks=[monitor])
    found = {tag: values[0][1] for tag, values in monitor.history.items()}
    assert found["model/multiply_adds"] == 0
    assert found["model/parameters_left"] == 1


def test_what_diverged_is_not_logged(tmp_path):
    model = network()
    monitor = kr.callbacks.RedundancyMonitor(tmp_path)
    model.get_layer("one").kernel.assign(np.full((8, 24), np.nan))
    monitor.set_model(model)
    with pytest.warns(UserWarning, match=r"at step 7: The layer 'one' has NaN"):
        monitor.log(7)
    assert monitor.history == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tau": ()}, ValueError, "tau is empty"),
        ({"tau": (0.5, 1.5)}, ValueError, "tau is 1.5"),
        ({"tau": "high"}, TypeError, "tau has to be a number or several"),
        ({"every": 0}, ValueError, "every must be an integer"),
        ({"every": "batch"}, ValueError, "every must be an integer"),
        ({"linkage": "none"}, ValueError, "linkage='none' is not known"),
    ],
)
def test_bad_arguments(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        kr.callbacks.RedundancyMonitor(tmp_path, **options)


def test_folders_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"log_dir=.* a folder to write to"):
        kr.callbacks.RedundancyMonitor(tmp_path / "file")


def test_a_model_without_units(tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.ReLU()])
    model.compile("sgd", "mse")
    monitor = kr.callbacks.RedundancyMonitor(tmp_path)
    with pytest.raises(ValueError, match="has no layer with a kernel"):
        model.fit(data()[0], data()[0], verbose=0, callbacks=[monitor])


def test_without_tensorboard(tmp_path, monkeypatch):
    name = "keras_redundancy.reports.event_files"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for module in list(sys.modules):
        if module.startswith("tensorboard."):
            monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match="pip install 'tensorboard>="):
        kr.callbacks.RedundancyMonitor(tmp_path)


def test_zeros_of_layers_in_a_nested_model_that_is_called_twice():
    parts = [layers.Dense(6, activation="relu", name=n) for n in ("one", "two")]
    inner = keras.Sequential([keras.Input((6,)), *parts])
    inputs = keras.Input((6,))
    once = inner(inputs)
    model = models.randomized(keras.Model(inputs, [once, inner(once)]))
    x = models.random_inputs(model)
    shares = ZeroShares(model)
    assert shares.names == ("one", "two")
    _, found = shares([x, np.zeros(len(x), "int32")])
    expected = [np.mean(y == 0, axis=1) for y in models.outputs(model, x)]
    np.testing.assert_allclose(models.numpy(found), np.mean(expected, axis=0))
