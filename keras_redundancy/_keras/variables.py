"""Copies of values from one variable to another."""

from keras import ops


def set_value(variable, value) -> None:
    """Assign a copy of `value` to a variable.

    Copied: JAX donates the buffers of variables in training, so two variables
    must not share one.

    Args:
        variable: the `keras.Variable` to set.
        value: another variable, a tensor or an array of its shape.
    """
    value = ops.convert_to_tensor(value, dtype=variable.dtype)
    variable.assign(ops.copy(value))
