"""Batches of data, replicas and callbacks: how Keras runs a model."""

import contextlib
import inspect

import keras
from keras.src.trainers.data_adapters import get_data_adapter


def numpy_batches(data, batch_size: int) -> tuple:
    """The batches of what `predict` takes, and how many there are.

    Returns:
        (an iterator of x, (x,), (x, y) or (x, y, weights); their number, or
        None where it is not known).

    Raises:
        TypeError, ValueError: `data` is of no kind that Keras takes.
    """
    adapter = get_data_adapter(data, batch_size=batch_size)
    return _one_pass(adapter), adapter.num_batches


def _one_pass(adapter):
    """A pass that ends the threads that made its batches when it ends."""
    adapter.on_epoch_begin()
    try:
        yield from adapter.get_numpy_iterator()
    finally:
        adapter.on_epoch_end()


def number_of_batches(x, y, options: dict) -> int | None:
    """How many steps an epoch of `Model.fit` has; None if that is open.

    Args:
        x, y: what it is given.
        options: its other arguments.
    """
    steps = options.get("steps_per_epoch")
    if steps is not None or inspect.isgenerator(x):
        return steps  # Keras would read the first batches of a generator.
    split = options.get("validation_split") or 0
    try:
        adapter = get_data_adapter(x, y, batch_size=options.get("batch_size"))
        count = adapter.num_batches
    except (TypeError, ValueError):
        return None  # `fit` says what is wrong.
    if count is None or not split:
        return count
    kept = int(len(keras.tree.flatten(x)[0]) * (1 - split))
    return -(-kept // (options.get("batch_size") or 32))


def flush(callbacks) -> None:
    """Wait for what a `CallbackList` does while training goes on."""
    if callbacks._async_train:
        callbacks._flush_futures()


def replicas(model) -> int:
    """On how many devices at once a model is trained by `tf.distribute`."""
    strategy = getattr(model, "distribute_strategy", None)
    return getattr(strategy, "num_replicas_in_sync", 1)


def scope_of(owner):
    """A context in which variables are made on the devices of an owner's.

    That is the scope of the `tf.distribute` strategy that `owner`, a model or
    an optimizer, was made under. `keras.distribution` needs no scope.
    """
    strategy = getattr(owner, "_distribute_strategy", None)
    strategy = strategy or getattr(owner, "_distribution_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def predict_on_one_replica(model, x):
    """`model.predict_on_batch(x)` for what is to see a batch as a whole.

    Under a `tf.distribute` strategy of several replicas, `predict_on_batch`
    runs `model` on each of them and joins what they return.
    """
    if replicas(model) == 1:
        return model.predict_on_batch(x)
    if model.predict_function is None:
        import tensorflow as tf

        model.predict_function = tf.function(
            model.predict_step, autograph=False, reduce_retracing=True
        )
    found = model.predict_function((x,))
    return keras.tree.map_structure(keras.ops.convert_to_numpy, found)
