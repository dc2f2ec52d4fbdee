"""Batches of data, replicas and callbacks."""

import itertools
import logging
import time

import keras
import numpy as np
import pytest
from keras import layers

from keras_redundancy import _keras


@pytest.mark.parametrize("targets", [(), (np.zeros(7),)])
def test_data_comes_in_batches_of_arrays(targets):
    x = np.arange(21.0).reshape(7, 3)
    (whole,), count = _keras.numpy_batches(x, 10)
    np.testing.assert_array_equal(whole, x)
    assert count == 1
    batches, count = _keras.numpy_batches(x, 3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert count == 3
    generator = ((x, *targets) for _ in range(2))
    batches, count = _keras.numpy_batches(generator, None)
    assert [len(batch) for batch in batches] == [1 + len(targets)] * 2
    assert count is None
    with pytest.raises((TypeError, ValueError)):
        _keras.numpy_batches("no data", 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 4),
        ({"batch_size": 25}, 4),
        ({"batch_size": 30}, 4),
        ({"batch_size": 30, "validation_split": 0.5}, 2),
        ({"steps_per_epoch": 7}, 7),
    ],
)
def test_number_of_batches(options, expected):
    x, y = np.zeros((100, 3)), np.zeros(100)
    assert _keras.number_of_batches(x, y, options) == expected
    told = []
    tell = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: told.append(batch)
    )
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    data = (x, y)
    if "steps_per_epoch" in options:
        data = (((x, y) for _ in itertools.count()), None)
        assert _keras.number_of_batches(*data, {}) is None
    options = {"shuffle": False, "verbose": 0} | options
    model.fit(*data, callbacks=[tell], **options)
    assert len(told) == expected


def test_the_batches_of_a_generator_are_not_read_to_count_them():
    batches = ((np.zeros((2, 3)), np.zeros(2)) for _ in range(4))
    assert _keras.number_of_batches(batches, None, {}) is None
    assert len(list(batches)) == 4


def test_what_callbacks_do_meanwhile_is_waited_for():
    done = []

    class Slow(keras.callbacks.Callback):
        async_safe = True

        def on_train_batch_end(self, batch, logs=None):
            time.sleep(0.2)
            done.append(batch)

    callbacks = keras.callbacks.CallbackList([Slow()])
    callbacks.on_train_begin()
    callbacks.on_train_batch_end(3)
    _keras.flush(callbacks)
    assert done == [3]
    callbacks.on_train_end()


def test_retracing_is_warned_of_again_in_the_end(caplog):
    logger = logging.getLogger("tensorflow")
    logger.addHandler(caplog.handler)
    with _keras.quiet_about_retracing():
        logger.warning("5 calls triggered tf.function retracing.")
        logger.warning("Something else.")
    logger.warning("6 calls triggered tf.function retracing.")
    logger.removeHandler(caplog.handler)
    assert set(caplog.messages) == {
        "Something else.",
        "6 calls triggered tf.function retracing.",
    }


def test_what_has_no_strategy_has_no_scope():
    """`tests/test_distribution.py` has models with one."""
    inputs = [keras.Input((3,))]
    model = keras.Model(inputs, layers.Dense(1)(inputs[0]))
    model.compile("sgd", "mse")
    with _keras.scope_of(model), _keras.scope_of(model.optimizer):
        assert _keras.replicas(keras.Model(model.inputs, model.outputs)) == 1
    x = np.ones((4, 3), "float32")
    np.testing.assert_allclose(
        _keras.predict_on_replicas(model, [[x]])[0], model.predict_on_batch([x])
    )
