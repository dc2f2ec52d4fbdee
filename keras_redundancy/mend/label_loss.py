"""What labels say of a model's outputs: the loss that it is compiled with."""

import keras
from keras import ops

from keras_redundancy import _keras
from keras_redundancy._shared.tables import shown
from keras_redundancy.calibration.outputs import compiled_by_output

# How many names of outputs an error shows.
NAMES = 6


class LabelLoss:
    """The sum of the losses of a model's outputs, as `Model.fit` adds them.

    Labels may come in any structure that `fit` takes: that of the outputs, a
    list or a mapping by the names of outputs, with or without labels for
    outputs that have no loss.
    """

    def __init__(self, model):
        """Look up the losses.

        Raises:
            ValueError: the model is not compiled, or with no loss.
        """
        losses, weights = (
            compiled_by_output(model, what) for what in ("loss", "loss_weights")
        )
        if not any(losses):
            raise ValueError(
                f"labels were received, but {model.name!r} is compiled with no "
                "loss to compare them by, or not with one for each output. "
                "Call compile(loss=...) before, or leave labels= out."
            )
        self._losses = [None if x is None else _as_in_fit(x) for x in losses]
        self._weights = [1.0 if w is None else w for w in weights]
        graph = _keras.graph_of(model)
        structure = _keras.output_structure(graph)
        is_dict = isinstance(structure, dict)
        self._names = sorted(structure) if is_dict else graph.output_names
        self._model_name = model.name

    def __call__(self, labels, outputs):
        """The loss of a batch, a scalar tensor.

        Raises:
            ValueError: the labels do not fit the outputs.
        """
        outputs = keras.tree.flatten(outputs)
        each = [outputs[number] for number in self._numbers]
        return sum(
            self._weights[number] * _mean(self._losses[number], y, found)
            for number, y, found in zip(
                self._numbers, self.needed(labels), each, strict=True
            )
        )

    def needed(self, labels) -> tuple:
        """The labels of the outputs that have a loss, in their order.

        Raises:
            ValueError: there are more or fewer.
        """
        numbers, given = self._numbers, labels
        if isinstance(labels, dict) and len(self._names) == len(self._losses):
            names = [self._names[number] for number in numbers]
            given = [labels.get(name) for name in names]
        flat = keras.tree.flatten(given)
        if len(flat) == len(self._losses):
            flat = [flat[number] for number in numbers]
        if len(flat) != len(numbers) or any(y is None for y in flat):
            raise self._misfit(labels, flat)
        return tuple(flat)

    @property
    def _numbers(self) -> list[int]:
        """Those of the outputs that have a loss."""
        losses = enumerate(self._losses)
        return [number for number, loss in losses if loss is not None]

    def _misfit(self, labels, flat):
        if labels is None:
            return ValueError(
                "labels=True takes the labels that come with a dataset, but "
                "its batches hold none. Leave labels= out, or let the dataset "
                "make (inputs, labels)."
            )
        received = shown(labels)
        if isinstance(labels, dict):
            received = f"a mapping of {', '.join(map(repr, labels))}"
        elif isinstance(labels, list | tuple):
            received = f"a {type(labels).__name__} of {len(flat)}"
        names = [self._names[n] for n in self._numbers[:NAMES]]
        names = ", ".join(map(repr, names))
        names += ", ..." * (len(self._numbers) > NAMES)
        return ValueError(
            f"labels= received {received}, but the outputs of "
            f"{self._model_name!r} that have a loss are {names}. Pass what "
            "Model.fit takes: an array for each of these, in this order or in "
            "a mapping by their names. numpy.asarray(labels) makes one array "
            "of a list of numbers."
        )


class FunctionLoss(keras.losses.Loss):
    """A function of labels and outputs as a loss, as `Model.fit` takes it."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def call(self, y_true, y_pred):
        return self._function(*_of_one_rank(y_true, y_pred))


def _as_in_fit(loss):
    loss = keras.losses.get(loss)
    return loss if isinstance(loss, keras.losses.Loss) else FunctionLoss(loss)


def _of_one_rank(x, y):
    """Both with as many axes, if a last axis of length 1 is all that differs.

    A number for each sample becomes a vector of one, as in `Model.fit`.
    """
    if len(x.shape) > len(y.shape):
        return _of_one_rank(y, x)[::-1]
    if len(y.shape) == len(x.shape) or y.shape[-1] != 1:
        return x, y
    if len(x.shape) == 1:
        return ops.expand_dims(x, -1), y
    return x, ops.squeeze(y, -1)


def _mean(loss, labels, outputs):
    return ops.cast(ops.mean(loss(labels, outputs)), "float32")
