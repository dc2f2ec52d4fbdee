"""Count the multiply-adds of convolutions and dense layers."""

from __future__ import annotations  # help() shows the names of types.

import keras

from keras_redundancy.building.stripping import stock
from keras_redundancy.channels import trace
from keras_redundancy.channels.sizes import at_shapes, checked_shapes


def flops(
    model: keras.Model, multiply_add: int = 1, *, input_shape=None
) -> int:
    """Count the FLOPs of a forward pass on one sample, as papers do.

    The products of kernels with their inputs are counted; biases,
    normalisation, activations and pooling are not, and neither are layers that
    cannot be followed: `kr.trace(model).untouched` lists them. A multiply-add
    counts as one operation, as in the tables of the pruning literature (VGG-16
    on 32x32 images: 3.13e8; ResNet-56: 1.25e8). Training layers count as the
    stock layers that `strip` makes of them.

    Args:
        model: a built `keras.Model`, as for `plan`.
        multiply_add: 1, or 2 to count the multiplication and the addition.
        input_shape: the shape of one sample, such as (224, 224, 3), for a
            model with open input sizes; for several inputs a list of shapes,
            or a mapping from the names of the inputs to shapes.

    Returns:
        The number of operations, an integer.

    Raises:
        ValueError: `multiply_add` is neither 1 nor 2, `input_shape` does not
            fit the model, or a spatial size of the model is open, so that its
            FLOPs depend on the input.
    """
    if multiply_add not in (1, 2):
        raise ValueError(
            "multiply_add must be 1 (a multiply-add is one operation) or 2 "
            f"(it is two), but received {multiply_add!r}."
        )
    model, shapes = stock(model), None
    if input_shape is not None:
        shapes = checked_shapes(model, input_shape)
    graph = trace(model, shapes=shapes)
    if shapes is not None:
        graph = at_shapes(graph, shapes)
    total = graph.multiply_adds()
    if total is None:
        raise ValueError(
            f"The input of {model.name!r} has an open size "
            f"({model.input_shape}), so its FLOPs depend on the data. Pass "
            "input_shape=, the shape of one sample, to count them."
        )
    return multiply_add * total
