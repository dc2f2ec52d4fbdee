"""Gradients, which each backend of Keras takes in a way of its own."""

import keras


def gradients(function, tensors: list) -> list:
    """The gradient of a function, by each of its arguments.

    Args:
        function: takes as many tensors, and returns a scalar.
        tensors: where to take the gradient, floats.

    Returns:
        A tensor of its shape for each of them.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _of_tensorflow(function, tensors)
    if backend == "jax":
        import jax

        numbers = tuple(range(len(tensors)))
        return list(jax.grad(function, argnums=numbers)(*tensors))
    if backend == "torch":
        return _of_torch(function, tensors)
    raise NotImplementedError(
        f"Gradients are not known for the backend {backend!r} of Keras."
    )


def _of_tensorflow(function, tensors):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        value = function(*tensors)
    zero = tf.UnconnectedGradients.ZERO
    return tape.gradient(value, tensors, unconnected_gradients=zero)


def _of_torch(function, tensors):
    import torch

    with torch.enable_grad():
        tensors = [x.detach().requires_grad_() for x in tensors]
        value = function(*tensors)
        return list(
            torch.autograd.grad(
                value, tensors, allow_unused=True, materialize_grads=True
            )
        )
