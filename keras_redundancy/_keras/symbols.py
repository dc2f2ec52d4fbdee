"""Layers that stand for what the code of a layer does with weights."""

import contextlib
import string

import keras

from keras_redundancy._keras.layers import BORDER
from keras_redundancy._keras.opened import RecordingError

CHANGES = "its call changes variables"
ASSIGNS = ("assign", "assign_add", "assign_sub")


class Weight(keras.layers.Layer):
    """Returns a weight, whatever it is called on.

    In the graph inside of a layer it stands where the `call` of the layer
    reads a weight of its own, so that a rule can say what its axes hold.
    """

    def __init__(self, shape, **kwargs):
        super().__init__(**kwargs)
        self.shape = shape

    @classmethod
    def of(cls, layer, variable, prefix=""):
        """The `Weight` that holds a variable of a layer."""
        new = cls(
            tuple(variable.shape),
            dtype=layer.dtype_policy,
            name=f"{prefix}{prefix and BORDER}{variable.name}_weight",
        )
        new.weight, new.built = variable, True
        return new

    def build(self, shape):
        self.weight = self.add_weight(shape=self.shape, name="weight")

    def call(self, x):
        return keras.ops.convert_to_tensor(self.weight)

    @property
    def weight_policy(self):
        """The dtype policy of what it returns."""
        is_cast = self.weight._autocast
        own = self.weight.dtype
        return self.dtype_policy if is_cast else keras.DTypePolicy(own)

    def compute_output_spec(self, x):
        dtype = self.weight_policy.compute_dtype
        return keras.KerasTensor(self.weight.shape, dtype)

    def get_config(self):
        return {**super().get_config(), "shape": self.shape}


@contextlib.contextmanager
def own_weights(layer, x, prefix=""):
    """Put symbols in the place of the weights that a layer itself holds."""
    own = layer._trainable_variables + layer._non_trainable_variables
    own = set(map(id, own))
    before = {k: v for k, v in vars(layer).items() if id(v) in own}
    made = {id(v): Weight.of(layer, v, prefix)(x) for v in before.values()}
    for symbol in made.values():
        vars(symbol).update(dict.fromkeys(ASSIGNS, _assign))
    vars(layer).update({key: made[id(v)] for key, v in before.items()})
    try:
        yield
    finally:
        vars(layer).update(before)


def _assign(*args):
    raise RecordingError(CHANGES)


class Constant(keras.layers.Layer):
    """Returns an array, whatever it is called on.

    In the graph inside of a layer it stands for what layers with weights are
    called on there, such as the numbers of positions.
    """

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    def call(self, x):
        return keras.ops.convert_to_tensor(self.value)

    def compute_output_spec(self, x):
        return keras.KerasTensor(self.value.shape, self.value.dtype)

    def get_config(self):
        return {**super().get_config(), "value": self.value}


class EachSample(keras.layers.Layer):
    """Repeats the first of two tensors, once for each sample of the second.

    The first one has a single entry on its first axis. In the graph inside of
    a layer it stands where the `call` of the layer repeats a weight, such as
    the class token of a transformer, for the size of the batch.
    """

    def call(self, tensors):
        x, samples = tensors
        count = keras.ops.shape(samples)[0]
        return keras.ops.broadcast_to(x, (count, *keras.ops.shape(x)[1:]))

    def compute_output_spec(self, tensors):
        x, samples = tensors
        shape = samples.shape[0], *x.shape[1:]
        return keras.KerasTensor(shape, x.dtype)


def stand_for_weight(model):
    """`model`, marked as what takes the place of a layer of this module."""
    vars(model)["_stands_for_weight"] = True
    return model


def stands_for_weight(operation) -> bool:
    """Whether an operation takes the place of a layer of this module."""
    return "_stands_for_weight" in vars(operation)


def returns_weight(operation) -> bool:
    """Whether it is a `Weight`, or the layer that stands for one."""
    if isinstance(operation, keras.layers.EinsumDense):
        return operation.equation == scaling_equation(operation.kernel.shape)
    return isinstance(operation, Weight)


def scaling_equation(shape) -> str:
    """That of an `EinsumDense` which returns its kernel if it reads ones."""
    axes = string.ascii_lowercase[: len(shape)]
    return f"{axes[:1]},{axes}->{axes}"
