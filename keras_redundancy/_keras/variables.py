"""Values that go from one variable to another."""

from keras import ops


def set_value(variable, value) -> None:
    """Give a variable a copy of `value`, in place.

    On JAX, training gives the memory of a model's variables away, and what
    else holds the same array is deleted: no two variables may share one.

    Args:
        variable: the `keras.Variable` to set.
        value: another variable, a tensor or an array of its shape.
    """
    value = ops.convert_to_tensor(value, dtype=variable.dtype)
    variable.assign(ops.copy(value))
