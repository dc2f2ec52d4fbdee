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


def local_replicas(model) -> int:
    """The number of devices of this machine on which a model is trained."""
    if replicas(model) == 1:
        return 1
    return len(model.distribute_strategy.extended.worker_devices)


def predict_on_replicas(model, parts: list) -> list:
    """`model.predict_on_batch` for the parts of a batch, at the same time.

    `predict_on_batch` runs the whole batch on each replica of `tf.distribute`,
    and on each device of `keras.distribution`.

    Args:
        model: what to run.
        parts: lists of the arrays that the model takes: a list for each of its
            `local_replicas`, or one list, which runs on one replica.

    Returns:
        What the model returns for each part, as arrays.
    """
    if replicas(model) == 1:
        return [model.predict_on_batch(sharded(part)) for part in parts]
    if model.predict_function is None:
        model.predict_function = _predict_function(model)
    strategy, given = model.distribute_strategy, parts[0]
    if len(parts) > 1:
        given = strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group % len(parts)]
        )
    found = model.predict_function(given, len(parts) > 1)
    local = strategy.experimental_local_results
    return [
        keras.tree.map_structure(
            lambda x, i=i: keras.ops.convert_to_numpy(local(x)[i]), found
        )
        for i in range(len(parts))
    ]


def _predict_function(model):
    def predict(x, on_all):
        if not on_all:
            return model.predict_step((x,))
        return model.distribute_strategy.run(model.predict_step, args=((x,),))

    if model.run_eagerly:
        return predict
    import tensorflow as tf

    return tf.function(predict, autograph=False, reduce_retracing=True)


def replica_of(model, number: int):
    """A context that computes on one replica of `tf.distribute`, in turn.

    There each variable is read from that replica's own copy. Without replicas
    nothing changes.

    Args:
        model: what tells the replicas.
        number: of the batch, counted from 0.
    """
    count = local_replicas(model)
    if count == 1:
        return contextlib.nullcontext()
    import tensorflow as tf

    devices = model.distribute_strategy.extended.worker_devices
    return tf.device(devices[number % count])


def sharded(arrays: list) -> list:
    """A batch, divided over the devices of a `keras.distribution`.

    It stays as it is without one, or if it cannot be divided evenly.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return arrays
    mesh = distribution.device_mesh
    sizes = dict(zip(mesh.axis_names, mesh.shape, strict=True))
    devices = sizes.get(distribution.batch_dim_name, 1)
    given = [x for x in arrays if x is not None]
    if any(len(x) % devices for x in given):
        return arrays
    return [
        x
        if x is None
        else keras.distribution.distribute_tensor(
            x, distribution.get_data_layout(x.shape)
        )
        for x in arrays
    ]
