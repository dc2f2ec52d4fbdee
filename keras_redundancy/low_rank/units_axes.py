"""On which axes of a kernel the units are, where RaRe looks for them."""

import keras

from keras_redundancy import _keras
from keras_redundancy._shared import convolutions
from keras_redundancy.low_rank.sides import SIDES

BOTH = tuple(SIDES)
UNITS = ("unit",)


def rare_kernel(layer):
    """The kernel of a layer that RaRe can regularize.

    Returns:
        (attribute of the kernel, argument of its regularizer, axis of its
        units), or None.
    """
    kernel = "kernel", "kernel_regularizer"
    if isinstance(layer, keras.layers.Dense):
        return *kernel, -1
    if isinstance(layer, convolutions.CONVOLUTIONS):
        return (*kernel, -1) if layer.groups == 1 else None
    if isinstance(layer, convolutions.TRANSPOSED):
        return *kernel, -2
    if isinstance(layer, convolutions.SEPARABLE):
        return "pointwise_kernel", "pointwise_regularizer", -1
    if isinstance(layer, keras.layers.EinsumDense):
        axis = _units_axis_of_einsum(layer.equation)
        return None if axis is None else (*kernel, axis)
    return None


def _units_axis_of_einsum(equation):
    """The units' axis of the kernel; None if it is not like that of `Dense`.

    It is like that of `Dense` if it sums over the channels, and over whatever
    else the kernel reads, and if the only new axis that it makes is the last
    one of the output.
    """
    given, kernel, out = _terms(equation)
    made = [axis for axis in kernel if axis in out]
    summed = [axis for axis in kernel if axis in given and axis not in out]
    is_dense = made == [out[-1]] and made[0] not in given
    if not is_dense or given[-1] not in summed:
        return None
    return kernel.index(out[-1])


def _terms(equation):
    """The axes of the input, of the kernel and of the output, as strings."""
    read, out = equation.replace(" ", "").split("->")
    return *read.split(","), out


def windows_kernel(layer):
    """The kernel of a layer that has a window for each channel.

    Returns:
        (attribute of the kernel, argument of its regularizer, axes of its
        units), or None.
    """
    rest = "depthwise_regularizer", (-2, -1)
    if isinstance(layer, convolutions.DEPTHWISE):
        return "kernel", *rest
    if isinstance(layer, convolutions.SEPARABLE):
        return "depthwise_kernel", *rest
    return None


def penalized_units(kernel) -> tuple:
    """Where the units are in a kernel that Keras asks a regularizer about.

    Args:
        kernel: the variable or tensor that the regularizer is called with.

    Returns:
        (axes, sides): the axis or axes of the units, -1 where the layer is
        unknown or the regularizer is called by hand; and the names in `SIDES`
        of the vectors that can be compared.
    """
    found = _keras.penalized()
    if found is None or tuple(found[1].shape) != tuple(kernel.shape):
        return -1, BOTH
    layer, variable = found
    windows = windows_kernel(layer)
    if windows and getattr(layer, windows[0]) is variable:
        return windows[-1], UNITS
    if isinstance(layer, keras.layers.EinsumDense):
        return _units_of_einsum(layer.equation)
    place = rare_kernel(layer)
    return (place[-1] if place else -1), BOTH


def _units_of_einsum(equation):
    """The axes that the kernel has in common with the output, and the sides.

    Where it has one of them in common with the input as well, a row of the
    kernel does not belong to one input.
    """
    given, kernel, out = _terms(equation)
    axes = tuple(i for i, axis in enumerate(kernel) if axis in out)
    if len(axes) in (0, len(kernel)):
        return -1, BOTH
    is_shared = any(kernel[i] in given for i in axes)
    return axes, UNITS if is_shared else BOTH
