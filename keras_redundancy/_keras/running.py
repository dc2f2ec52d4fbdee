"""Batches of data, replicas and callbacks: how Keras runs a model."""

import contextlib
import inspect
import logging

import keras
from keras.src.trainers.data_adapters import (
    get_data_adapter,
    is_torch_dataloader,
)

from keras_redundancy._keras.variables import as_array


def numpy_batches(data, batch_size: int) -> tuple:
    """Batches of data as arrays, and their number.

    Args:
        data: anything that `Model.predict` takes.
        batch_size: for arrays.

    Returns:
        (an iterator of x, (x,), (x, y) or (x, y, weights); the number of
        batches, or None if it is not known).

    Raises:
        TypeError, ValueError: `data` is of no kind that Keras takes.
    """
    adapter = get_data_adapter(data, batch_size=batch_size)
    # Where Keras makes arrays of tensors of PyTorch, it takes a batch without
    # labels for a list of samples, and fails for those that need gradients.
    of_torch = keras.backend.backend() == "torch" or is_torch_dataloader(data)
    return _one_pass(adapter, of_torch), adapter.num_batches


def _one_pass(adapter, of_torch):
    """One pass over the data; at its end the adapter stops its threads."""
    adapter.on_epoch_begin()
    try:
        if of_torch:
            for batch in adapter.get_torch_dataloader():
                yield keras.tree.map_structure(
                    as_array, batch, none_is_leaf=False
                )
        else:
            yield from adapter.get_numpy_iterator()
    finally:
        adapter.on_epoch_end()


def number_of_batches(x, y, options: dict) -> int | None:
    """The number of steps of an epoch of `Model.fit`; None if not known.

    Args:
        x, y: the data that `fit` is called with.
        options: the other arguments of `fit`.
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


def without_gradients():
    """A context for what is computed outside of training.

    PyTorch would keep each tensor that depends on a trainable variable, to
    compute gradients from. The other backends do so only where asked to.
    """
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


@contextlib.contextmanager
def quiet_about_retracing():
    """Silence TensorFlow's warnings about retracing.

    TensorFlow counts the steps of several models as one function that is
    retraced, and advises against it.
    """
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_is_no_retracing)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_retracing)


def _is_no_retracing(record):
    return "triggered tf.function retracing" not in record.getMessage()


def flush(callbacks) -> None:
    """Wait until the callbacks that run beside training have finished."""
    if callbacks._async_train:
        callbacks._flush_futures()


def replicas(model) -> int:
    """The number of devices on which `tf.distribute` trains a model."""
    strategy = getattr(model, "distribute_strategy", None)
    return getattr(strategy, "num_replicas_in_sync", 1)


def scope_of(owner):
    """A context that makes new variables on the devices of `owner`.

    It is the scope of the `tf.distribute` strategy that `owner`, a model or an
    optimizer, was made under. `keras.distribution` needs no scope.
    """
    strategy = getattr(owner, "_distribute_strategy", None)
    strategy = strategy or getattr(owner, "_distribution_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def predict_on_one_replica(model, x):
    """`model.predict_on_batch(x)` for a model that needs the whole batch.

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
