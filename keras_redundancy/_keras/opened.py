"""What takes the place of a layer whose graph inside was recorded."""

import traceback

import keras
from keras.src import backend
from keras.src.models.functional import Functional


class Opened(Functional):
    """A functional model that computes what a layer does, with its variables.

    Attributes:
        layer: the layer that it takes the place of.
        arguments: (args, kwargs) of the call of the layer that was recorded,
            with the inputs of this model for tensors.
        returned: which entries of what the layer returns, in flat order, the
            outputs of this model are. Others do not depend on the inputs.
        returns_more: whether there are others.
        rows: the first size of each of the inputs for one sample, which may
            be made of many entries, such as all windows of an image.
        branches: whether the call of the layer does something else in
            training, which is not in the graph.
        adding: the layers whose calls add losses, which are not in the graph:
            `layer`, or some inside of it.
        has_known_sizes: whether it computes the same for the sizes of its
            inputs only, which the model around it leaves open.
    """

    branches = has_known_sizes = False
    adding = ()

    def arguments_with(self, tensors: list) -> tuple[tuple, dict]:
        """`arguments`, with other tensors for the inputs of the model."""
        return replaced(self.arguments, self.inputs, tensors)

    def outputs_among(self, returned) -> list:
        """What the outputs of this model are, of all that the layer returns."""
        flat = keras.tree.flatten(returned)
        return [flat[number] for number in self.returned]


class RecordingError(Exception):
    """A `call` cannot be recorded: the message says why, and where."""


def opened_from(model):
    """The model that an opened model is a copy of; other models themselves."""
    return vars(model).get("_opened_from", model)


def put_in_place(model) -> list:
    """The `Opened`s whose calls are part of the graph of an opened model."""
    return vars(model).get("_put_in_place", [])


def tensors_in(arguments) -> list:
    """The `KerasTensor`s in a nested structure, each one once."""
    flat = keras.tree.flatten(arguments)
    tensors = [x for x in flat if isinstance(x, keras.KerasTensor)]
    return list({id(x): x for x in tensors}.values())


def replaced(structure, old, new):
    twins = dict(zip(map(id, old), new, strict=True))
    return keras.tree.map_structure(lambda x: twins.get(id(x), x), structure)


def new_input(layer, x, batch=None):
    """An input like `x`, of the dtype that the layer casts it to.

    Raises:
        RecordingError: it has no axis for the batch.
    """
    if not x.shape:
        raise RecordingError("its call is given a number")
    size = x.shape[0] if batch is None else batch
    is_cast = layer.autocast and backend.is_float_dtype(x.dtype)
    dtype = layer.compute_dtype if is_cast else x.dtype
    shape = (size, *x.shape[1:])
    return keras.Input(batch_shape=shape, dtype=dtype, name=x.name)


def what_and_where(error):
    """What a call raised, and the line of code that is not a library's."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    libraries = ("/keras/src/", "/tensorflow/", "/jax/", "/torch/")
    own = [x for x in frames if not any(y in x.filename for y in libraries)]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    text = " ".join(str(error).split())
    return f"its call raises {type(error).__name__}{where}: {text[:200]}"
