"""On which axis of a kernel the units are, where RaRe looks for them."""

import keras
import numpy as np

from keras_redundancy._shared import convolutions
from keras_redundancy.building.stock import register_check
from keras_redundancy.low_rank.rare import RaReRegularizer

OTHER_AXES = (
    "The {argument} of {name!r} ({kind}) is a RaReRegularizer with "
    "units_axis={given!r}, but the units of this layer are on other axes of "
    "the kernel: other vectors than filters become parallel in training, and "
    "no unit becomes redundant. Write kr.RaReRegularizer({strength}, {remedy})."
)


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
    given, out = equation.replace(" ", "").split("->")
    given, kernel = given.split(",")
    made = [axis for axis in kernel if axis in out]
    summed = [axis for axis in kernel if axis in given and axis not in out]
    is_dense = made == [out[-1]] and made[0] not in given
    if not is_dense or given[-1] not in summed:
        return None
    return kernel.index(out[-1])


@register_check
def other_units_axis(layer) -> str | None:
    """What to write where RaRe has the wrong axis of units, else None.

    A regularizer is called with the kernel alone, so it cannot see this.
    """
    places = [rare_kernel(layer)]
    if isinstance(layer, convolutions.DEPTHWISE):
        places = [("kernel", "depthwise_regularizer", (-2, -1))]
    elif isinstance(layer, convolutions.SEPARABLE):
        both = "depthwise_kernel", "depthwise_regularizer", (-2, -1)
        places.append(both)
    for name, argument, axes in filter(None, places):
        rare = getattr(layer, argument, None)
        if not isinstance(rare, RaReRegularizer) or not rare.strength:
            continue
        rank = len(getattr(layer, name).shape)
        if _axes(axes, rank) != _axes(rare.units_axis, rank):
            remedy = f"units_axis={axes}"
            if np.ndim(axes):
                remedy = f'units_axis={[*axes]}, vectors="units"'
            return OTHER_AXES.format(
                argument=argument,
                name=layer.name,
                kind=type(layer).__name__,
                given=rare.units_axis,
                strength=rare.strength,
                remedy=remedy,
            )
    return None


def _axes(axes, rank):
    return {int(axis) % rank for axis in np.atleast_1d(axes)}
