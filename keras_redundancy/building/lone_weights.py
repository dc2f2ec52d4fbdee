"""Models of layers of Keras that return a weight or an array.

What they read beside it does not matter.
"""

import keras
from keras import ops

from keras_redundancy import _keras


def stand_in(old, given: list, recipe):
    """What takes the place of a layer that stands for code, if it is one.

    Args:
        old: what is called in the old graph.
        given: the `KerasTensor`s that it is called on in the new one.
        recipe: that of the new model.

    Returns:
        A model, or None.
    """
    if isinstance(old, _keras.Weight):
        shape = tuple(recipe.value(old.weight).shape)
        return _weight_model(old, shape, *given)
    if isinstance(old, _keras.Constant):
        return _constant_model(old, *given)
    if isinstance(old, _keras.EachSample):
        return _each_sample_model(old, *given)
    return None


def _weight_model(weight: _keras.Weight, shape: tuple, x):
    """What takes the place of a weight that the code of a layer reads.

    No layer of Keras returns a weight: an `EinsumDense` multiplies it by ones.

    Args:
        weight: the `Weight` in the graph inside of the layer.
        shape: that of the weight in the new model.
        x: the `KerasTensor` that the `Weight` is called on there, which does
            not matter.

    Returns:
        A model, the only variable of which has this shape; (1,) for ().
    """
    inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    sizes = shape or (1,)  # That of a number.
    kernel = keras.layers.EinsumDense(
        _keras.scaling_equation(sizes),
        sizes[1:],
        name=weight.name,
        dtype=weight.weight_policy,
        kernel_initializer="zeros",
    )
    one = ops.ones_like(ops.sum(inputs), dtype=kernel.compute_dtype)
    outputs = kernel(ops.broadcast_to(one, sizes[:1]))
    if not shape:
        outputs = ops.reshape(outputs, shape)
    model = keras.Model(inputs, outputs, name=weight.name)
    return _keras.stand_for_weight(model)


def _constant_model(constant: _keras.Constant, x):
    """What takes the place of a constant that a layer inside is called on.

    Args:
        constant: the `Constant` in the graph inside of the layer.
        x: the `KerasTensor` that it is called on in the new model.
    """
    inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    value = constant.value
    zero = ops.sum(ops.cast(ops.zeros_like(inputs), value.dtype.name))
    outputs = ops.add(ops.cast(zero, value.dtype.name), value)
    model = keras.Model(inputs, outputs, name=constant.name)
    return _keras.stand_for_weight(model)


def _each_sample_model(old: _keras.EachSample, x, samples):
    """What takes the place of a layer that repeats a weight.

    Args:
        old: the `EachSample` in the graph inside of the layer.
        x, samples: the `KerasTensor`s that it is called on in the new model.
    """
    inputs = [
        keras.Input(batch_shape=y.shape, dtype=y.dtype) for y in (x, samples)
    ]
    zeros = ops.cast(ops.zeros_like(inputs[1]), x.dtype)
    zeros = ops.sum(zeros, axis=tuple(range(1, len(samples.shape))))
    zeros = ops.reshape(zeros, (-1, *(1 for _ in x.shape[1:])))
    model = keras.Model(inputs, ops.add(inputs[0], zeros), name=old.name)
    return _keras.stand_for_weight(model)
