"""Models on two devices, for a process of its own: it makes two of one CPU.

python -m tests.distributed_run FOLDER

With TensorFlow under a `MirroredStrategy`, with JAX under a
`keras.distribution`. It prints what `tests/test_distribution.py` looks at.
"""

import contextlib
import gc
import json
import os
import sys
from unittest import mock

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=2",
    ]
)

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from keras_redundancy.building.copying import copy_for_training
from keras_redundancy.mend.normalization import Norm
from tests import faster_jax

TENSORFLOW = keras.backend.backend() == "tensorflow"
if not TENSORFLOW:
    faster_jax.share_context()


def strategy_scope():
    """A function that makes the scope in which models are on two devices."""
    if not TENSORFLOW:
        devices = keras.distribution.list_devices()
        both = keras.distribution.DataParallel(
            devices=devices, auto_shard_dataset=False
        )
        keras.distribution.set_distribution(both)
        return contextlib.nullcontext
    import tensorflow as tf

    # As in conftest.py.
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}
    )
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope


def devices_of(model):
    """On how many devices a model's kernels are, and its optimizer's slots."""
    kept = [*model.trainable_variables, *model.optimizer.variables[2:]]
    if TENSORFLOW:
        count = {len(getattr(x.value, "values", "1")) for x in kept}
    else:
        count = {len(x.value.sharding.device_set) for x in kept}
    return sorted(count)


def data():
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    return x, x[:, :3].copy()


def network():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8),
            layers.BatchNormalization(synchronized=TENSORFLOW),
            layers.ReLU(),
            layers.Dense(8, activation="relu"),
            layers.Dense(3),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    kernel = np.array(model.layers[0].kernel)
    kernel[:, 1] = kernel[:, 0]
    model.layers[0].kernel.assign(kernel)
    return model


def checks(model, folder):
    """{name: a function that returns a model}."""
    x, y = data()
    options = {"prune": {"ratio": 0.25}, "monitor": "val_loss", "floor": 99.0}
    options |= {"validation_data": (x, y), "verbose": 0, "checkpoint": folder}

    def resumed():
        kr.fit_and_prune(model, x, y, epochs=2, **options)
        return kr.fit_and_prune(model, x, y, epochs=3, **options).model

    return {
        "prune": lambda: kr.prune(model, ratio=0.25, optimizer=True),
        # Without rounds, whose many steps let rounding grow.
        "data": lambda: kr.prune(model, ratio=0.25, data=x[:63], rounds=0),
        "calibrate": lambda: kr.prune(
            model, ratio=0.25, data=kr.calibrate(model, x), optimizer=True
        ),
        "fit_and_prune": resumed,
    }


def results(weights):
    """{name: weights} of all that looks at data, or trains, on a network."""
    keras.utils.set_random_seed(1)
    model = network()
    model.set_weights(weights)
    x, y = data()
    options = {"epochs": 2, "batch_size": 16, "verbose": 0}
    # Several batches, of which some samples are held out. One is even.
    small = kr.prune(model, ratio=0.25, data=x, batch_size=25)
    cuts = {"prune": {"ratio": 0.25}, "monitor": "loss", "floor": 9.0}
    found = {
        "mended": small,
        "distilled": kr.distill(small, model, x, held_out=0, **options),
        "trained": kr.fit_and_prune(
            kr.apply_rare(model), x, y, shuffle=False, **cuts, **options
        ).model,
    }
    return {name: model.get_weights() for name, model in found.items()}


def devices_of_the_walk(model):
    """The devices on which a BatchNormalization is mended to batches."""
    mend, found = Norm.mend, set()

    def noted(fit, step, frontier):
        for *_, new in frontier.at(step.calls[0].reads[0]):
            if TENSORFLOW:
                found.add(new.device)
            elif not new.sharding.is_fully_replicated:
                found.update(map(str, new.sharding.device_set))
        return mend(fit, step, frontier)

    with mock.patch.object(Norm, "mend", noted):
        kr.prune(model, ratio=0.25, data=data()[0], batch_size=32)
    return sorted(found)


def largest_differences(scope, weights):
    """{name: of weights that were found on two devices and on one}."""
    with scope():
        both = results(weights)
    if not TENSORFLOW:
        keras.distribution.set_distribution(None)
    return {
        name: max(map(_difference, both[name], one))
        for name, one in results(weights).items()
    }


def fused_on_replicas(scope, folder):
    """What `DynamicLowRank` and a monitor find where vectors are fused."""
    keras.utils.set_random_seed(0)
    with scope():
        parts = [layers.Dense(12, "relu"), layers.Dense(12, "relu")]
        parts = [keras.Input((8,)), *parts, layers.Dense(3)]
        model = kr.factorize(kr.apply_rare(keras.Sequential(parts), 10.0))
        # Vectors become parallel soon: each epoch takes long to start.
        model.compile(keras.optimizers.Adam(0.02), "mse")
    x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    fusing = kr.callbacks.DynamicLowRank(tau_cos=0.01, every=4)
    monitor = kr.callbacks.RedundancyMonitor(f"{folder}/fused")
    both = [fusing, monitor]
    model.fit(x, x[:, :3], epochs=4, verbose=0, callbacks=both)
    said = {
        "sizes": [int(np.prod(size)) for size in fusing.sizes[-1].values()],
        "parameters": [n for _, n in monitor.history["model/parameters"]],
    }
    shrinking = kr.callbacks.DynamicLowRank(shrink=0.1)
    try:
        model.fit(x, x[:, :3], verbose=0, callbacks=[shrinking])
    except ValueError as error:
        said["error"] = str(error)
    return said


def _difference(a, b):
    return float(np.abs(np.asarray(a) - b).max())


def main(folder):
    # As in conftest.py: what is imported is not looked through again.
    gc.freeze()
    scope = strategy_scope()
    keras.utils.set_random_seed(0)
    with scope():
        model = network()
    x, y = data()
    model.fit(x, y, batch_size=16, verbose=0)
    before = model.get_weights()
    said, values = {"devices": devices_of(model), "found": {}}, []
    for place in ("inside", "outside"):
        around = scope if place == "inside" else contextlib.nullcontext
        for name, make in checks(model, f"{folder}/{place}").items():
            with around():
                small = make()
            if name == "data":
                values.append(small.get_weights())
            small.fit(x, y, batch_size=16, verbose=0)
            found = [devices_of(small), small.layers[0].units]
            said["found"][f"{name} {place}"] = found
    said["walk"] = devices_of_the_walk(model)
    monitor = kr.callbacks.RedundancyMonitor(f"{folder}/logs", data=x)
    with scope():
        its_copy = copy_for_training(model)
        its_copy.fit(x, y, batch_size=16, verbose=0, callbacks=[monitor])
    said["zeros"] = [tag for tag in monitor.history if "zeros" in tag]
    said["unchanged"] = all(map(np.array_equal, before, model.get_weights()))
    said["apart"] = max(
        float(np.abs(one - other).max())
        for one, other in zip(*values, strict=True)
    )
    same = kr.strip(model)
    errors = np.abs(same.predict(x, verbose=0) - model.predict(x, verbose=0))
    said["error"] = float(errors.max())
    its_copy = copy_for_training(model).optimizer.variables
    said["slots"] = [
        float(np.abs(np.array(one) - np.array(other)).max())
        for one, other in zip(its_copy, model.optimizer.variables, strict=True)
    ]
    if TENSORFLOW:
        said["fused"] = fused_on_replicas(scope, folder)
    said["differences"] = largest_differences(scope, before)
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
