"""Count the multiply-adds of convolutions and dense layers."""

from keras_redundancy.channels import trace
from keras_redundancy.channels.products import multiply_adds
from keras_redundancy.pruning.stripping import stock


def flops(model, multiply_add: int = 1) -> int:
    """FLOPs of one forward pass on one sample, as the literature counts them.

    Counted are the products of convolution and dense kernels with their
    inputs; biases, normalisation, activations and pooling are not. A
    multiply-add counts as one, as in the tables of the pruning literature
    (VGG-16 on 32x32 images: 3.13e8; ResNet-56: 1.25e8). Layers that are for
    training alone count as what `strip` makes of them.

    Args:
        model: a built functional or Sequential model.
        multiply_add: 1, or 2 to count the multiplication and the addition.

    Returns:
        The number of operations, an integer.

    Raises:
        ValueError: `multiply_add` is neither 1 nor 2, or a spatial size of
            the model is open, so that its FLOPs depend on the input.
    """
    if multiply_add not in (1, 2):
        raise ValueError(
            "multiply_add must be 1 (a multiply-add is one operation) or 2 "
            f"(it is two), but received {multiply_add!r}."
        )
    total = multiply_adds(trace(stock(model)))
    if total is None:
        raise ValueError(
            f"The input of {model.name!r} has an open size "
            f"({model.input_shape}), so its FLOPs depend on the data. Build "
            "the model on a keras.Input with fixed sizes to count them."
        )
    return multiply_add * total
