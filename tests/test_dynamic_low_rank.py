"""The callback that joins vectors, and makes layers smaller, during `fit`."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy import _keras
from keras_redundancy.low_rank.fusion import Fusion
from keras_redundancy.low_rank.joining import join_slots
from tests import models
from tests.low_rank_models import compiled, data, factorized_layers, mlp, tied


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
    shares = [layer.kept_pairs.share for layer in factorized_layers(model)]
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
    before = [models.numpy(layer.kept_pairs.pairs) for layer in inner]
    callback = kr.callbacks.DynamicLowRank(tau_cos=0.05, every=4)
    model.fit(*data(), batch_size=32, epochs=8, verbose=0, callbacks=[callback])
    # What the wrapped layer keeps is kept.
    for layer, old in zip(inner, before, strict=True):
        assert (models.numpy(layer.kept_pairs.pairs) != old).any()
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
        for slot, kind in _keras.slots(optimizer, layer.kernel)
    }
    fusion = Fusion(0, 2, -1.5)
    join_slots(optimizer, layer.kernel, [("unit", fusion)])
    found = _keras.slots(optimizer, layer.kernel)
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
            "weights": kept * old[:, 0] + gone * old[:, 2],
            "square": kept**2 * old[:, 0] + gone**2 * old[:, 2],
            "size": np.hypot(kept * old[:, 0], gone * old[:, 2]),
        }[kind]
        np.testing.assert_allclose(new[:, 0], expected, rtol=1e-4, atol=1e-9)
        np.testing.assert_array_equal(new[:, 3], old[:, 3])
        assert kind in ("linear", "weights") or (new >= 0).all()
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


@pytest.mark.parametrize(
    ("optimizer", "wrapped"), [("SGD", False), ("Adam", True), ("AdamW", True)]
)
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
    assert 0 < models.numpy(layer.kept_pairs.share) < 1
    assert models.numpy(layer.kept_pairs.pairs)[1].max() < layer.kernel.shape[1]
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


def rates_after_an_epoch(model, dropouts):
    """Rates after an epoch in which the layer "half" loses 6 of 12 units."""
    model = compiled(kr.factorize(model), "sgd")
    (half,) = [x for x in factorized_layers(model) if x.name == "half"]
    tied(half, "unit", [(i, 0, 1.0 + i) for i in range(1, 7)])
    callback = kr.callbacks.DynamicLowRank(tau_cos=1e-9)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0)
    assert callback.sizes[-1]["half"][1] == 6
    return [
        x.rate
        for x in _keras.flat_layers(model)
        if isinstance(x, layers.Dropout) and x.name in dropouts
    ]


def test_dropout_of_nested_models_is_that_behind_the_layer():
    """Not behind the model that it is in, where other layers come last."""
    inner = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, "relu", name="half"),
            layers.Dropout(0.4, name="inside"),
            layers.Dense(12, "relu", name="whole"),
        ]
    )
    parts = [inner, layers.Dropout(0.4, name="behind"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *parts])
    rates = rates_after_an_epoch(model, ["inside", "behind"])
    np.testing.assert_allclose(sorted(rates), [0.2, 0.4])


def test_dropout_behind_several_layers_is_as_high_as_one_needs():
    inputs = keras.Input((8,))
    dropout = layers.Dropout(0.4, name="shared")
    both = [
        dropout(layers.Dense(12, "relu", name=name)(inputs))
        for name in ("half", "whole")
    ]
    outputs = layers.Dense(3)(layers.Concatenate()(both))
    model = keras.Model(inputs, outputs)
    assert rates_after_an_epoch(model, ["shared"]) == [0.4]


def test_models_that_fit_builds_and_several_fits():
    """On TensorFlow the first step does so. Steps may be run many at once."""
    rare = kr.RaReRegularizer(5.0)
    wide = kr.FactorizedDense(12, "relu", kernel_regularizer=rare)
    last = kr.FactorizedDense(3, vectors="inputs")
    dropout = layers.Dropout(0.4)
    model = keras.Sequential([wide, dropout, last])
    compiled(model, keras.optimizers.Adam(0.01), steps_per_execution=2)
    callback = kr.callbacks.DynamicLowRank(tau_cos=0.2, tau_euc=2.0, every=1)
    for number in (1, 2):
        model.fit(*data(), epochs=2, verbose=0, callbacks=[callback])
        assert len(callback.sizes) == 2 * number
    rows, columns = callback.sizes[-1][wide.name]
    assert rows * columns < 8 * 12
    assert columns < 12
    assert dropout.rate < 0.4
    models.assert_same_function(model, kr.strip(model), tolerance=1e-4)


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
    found = [float(x.kept_pairs.share) for x in factorized_layers(model)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    model.fit(images, np.ones((32, 3)), verbose=0, callbacks=[callback])


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
        monitor = kr.callbacks.RedundancyMonitor("logs")
        both = [callback, monitor]
        model.fit(x, x[:, :3], epochs=15, verbose=0, callbacks=both)
        print(callback.sizes[-1])
        assert sum(map(np.prod, callback.sizes[-1].values())) < 276
        logged = [value for _, value in monitor.history["model/parameters"]]
        assert len(logged) == 15 and logged[-1] < logged[0], logged
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
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
