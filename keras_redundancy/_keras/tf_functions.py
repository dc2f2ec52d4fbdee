"""TensorFlow's functions on symbols: layers call some in their `call`."""

import contextlib

import keras


@contextlib.contextmanager
def tf_functions_recorded():
    """Let `tf.gather` record an operation of Keras where it reads symbols.

    TensorFlow itself takes no `KerasTensor`. Layers call `tf.gather` where
    `keras.ops` were wrong for open sizes in an earlier Keras.
    """
    if keras.config.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    gather = tf.gather

    def gather_or_record(params, indices, *args, **kwargs):
        if any(isinstance(x, keras.KerasTensor) for x in (params, indices)):
            return _gather(params, indices, *args, **kwargs)
        return gather(params, indices, *args, **kwargs)

    tf.gather = gather_or_record
    try:
        yield
    finally:
        tf.gather = gather


def _gather(
    params, indices, validate_indices=None, axis=None, batch_dims=0, name=None
):
    axis = batch_dims if axis is None else axis
    ranks = len(params.shape), len(indices.shape)
    if batch_dims == 0:
        return keras.ops.take(params, indices, axis=axis)
    if ranks == (axis + 1,) * 2 and axis == batch_dims:
        return keras.ops.take_along_axis(params, indices, axis=axis)
    raise NotImplementedError(
        f"tf.gather with axis={axis} and batch_dims={batch_dims}, which no "
        "operation of keras.ops does"
    )
