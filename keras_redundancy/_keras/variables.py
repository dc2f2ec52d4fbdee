"""Variables: which ones the code of a layer reads, and copies of values."""

import contextlib
import itertools
import threading

import keras
import numpy as np
from keras import ops
from keras.src import backend
from keras.src.backend.common import global_state

WAITING = "uninitialized_variables"
SHAPES_ALONE = threading.RLock()


def variables_in(arguments) -> list:
    """The variables in a nested structure of arguments."""
    flat = keras.tree.flatten(arguments)
    return [x for x in flat if isinstance(x, keras.Variable)]


class Reads(keras.StatelessScope):
    """A scope that notes each variable whose value is read, and changes none.

    Attributes:
        variables: {id(variable): variable}, in the order of the first reads.
    """

    def __init__(self):
        super().__init__()
        self.variables = {}

    def get_current_value(self, variable):
        self.variables[id(variable)] = variable
        return super().get_current_value(variable)


def variables_read(layer, args, kwargs) -> list:
    """The variables that `layer.call(*args, **kwargs)` reads.

    Args:
        layer: a built layer.
        args, kwargs: what it is called with; `KerasTensor`s for tensors.
    """
    reads = Reads()
    flat = keras.tree.flatten((args, kwargs))
    symbolic = [isinstance(x, keras.KerasTensor) for x in flat]

    def call(*tensors):
        # Only tensors are arguments: JAX takes no variables there.
        rest = iter(tensors)
        given = [
            next(rest) if is_symbolic else x
            for x, is_symbolic in zip(flat, symbolic, strict=True)
        ]
        args_and_kwargs = keras.tree.pack_sequence_as((args, kwargs), given)
        with reads:
            return layer.call(*args_and_kwargs[0], **args_and_kwargs[1])

    # If the call fails on symbols, the reads up to there are known.
    with contextlib.suppress(Exception):
        backend.compute_output_spec(call, *itertools.compress(flat, symbolic))
    return list(reads.variables.values())


@contextlib.contextmanager
def shapes_alone():
    """Variables that are made meanwhile have shapes, but hold no values.

    What layers return is found by `call` on symbols. Keras itself makes a
    graph of the backend for that, which takes ten times as long.
    """
    thread = threading.get_ident()
    with SHAPES_ALONE:
        spec_by_backend = backend.compute_output_spec

        def spec_on_symbols(function, *args, **kwargs):
            if threading.get_ident() == thread:
                with contextlib.suppress(Exception):
                    given = _with_batch((args, kwargs), None, 1)
                    made = function(*given[0], **given[1])
                    # A weight that is repeated for each sample is no symbol.
                    if not any(map(_is_array, keras.tree.flatten(made))):
                        return _with_batch(made, 1, None)
            return spec_by_backend(function, *args, **kwargs)

        before = global_state.get_global_attribute(WAITING)
        global_state.set_global_attribute(WAITING, [])
        backend.compute_output_spec = spec_on_symbols
        try:
            with keras.StatelessScope(initialize_variables=False):
                yield
        finally:
            backend.compute_output_spec = spec_by_backend
            global_state.set_global_attribute(WAITING, before)


def _is_array(x):
    return hasattr(x, "shape") and not isinstance(x, keras.KerasTensor)


def _with_batch(structure, old, new):
    """New `KerasTensor`s, with `new` for the size `old` of their first axes.

    Code that makes shapes from that of a tensor fails on an open size.
    """

    def anew(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        shape = x.shape
        if shape and shape[0] == old:
            shape = (new, *shape[1:])
        return keras.KerasTensor(shape, x.dtype, sparse=x.sparse)

    return keras.tree.map_structure(anew, structure)


def as_array(tensor) -> np.ndarray:
    """The numbers of a tensor, in an array that may be the tensor's own memory.

    So do not write to it.

    NumPy cannot read a tensor of PyTorch that needs gradients, is on another
    device, or holds bfloat16. Its array is a copy, of float32 for bfloat16: a
    variable of PyTorch keeps its tensor, and changes what that holds.
    """
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    is_bfloat16 = str(tensor.dtype) == "torch.bfloat16"
    tensor = tensor.float() if is_bfloat16 else tensor
    return tensor.numpy(force=True).copy()


def is_random_state(variable) -> bool:
    """Whether a variable is the state of a `keras.random.SeedGenerator`."""
    return variable.name == "seed_generator_state"


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
