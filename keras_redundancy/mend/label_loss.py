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

    def __call__(self, labels, outputs, sample_weight=None):
        """The loss of a batch, a scalar tensor.

        Args:
            labels: in any structure that `fit` takes.
            outputs: what the model returns, in its structure.
            sample_weight: one array for all outputs, or one for each in a
                structure as that of the labels, shape (samples,); or None.

        Raises:
            ValueError: the labels or the weights do not fit the outputs.
        """
        outputs = keras.tree.flatten(outputs)
        each = [outputs[number] for number in self._numbers]
        return sum(
            self._weights[number] * _mean(self._losses[number], *of_output)
            for number, *of_output in zip(
                self._numbers,
                self.needed(labels),
                each,
                self._sample_weights(sample_weight),
                strict=True,
            )
        )

    def needed(self, labels) -> tuple:
        """The labels of the outputs that have a loss, in their order.

        Raises:
            ValueError: there are more or fewer.
        """
        flat = self._by_output(labels)
        if len(flat) != len(self._numbers) or any(y is None for y in flat):
            raise self._misfit(labels, flat)
        return tuple(flat)

    def _sample_weights(self, given) -> list:
        """The weights of the samples for each output that has a loss."""
        flat, count = self._by_output(given), len(self._numbers)
        if len(flat) == 1:
            flat *= count
        if len(flat) != count:
            raise ValueError(
                f"Batches hold {len(flat)} arrays of sample weights, but "
                f"{self._model_name!r} has {count} outputs with a loss, "
                f"{self._shown_names()}. Pass one array, or one for each."
            )
        return flat

    def _by_output(self, given) -> list:
        """What is given for each output that has a loss, if it fits."""
        numbers = self._numbers
        if isinstance(given, dict) and len(self._names) == len(self._losses):
            given = [given.get(self._names[number]) for number in numbers]
        flat = keras.tree.flatten(given)
        if len(flat) == len(self._losses):
            flat = [flat[number] for number in numbers]
        return flat

    def _shown_names(self) -> str:
        """The names of the outputs that have a loss."""
        names = [self._names[n] for n in self._numbers[:NAMES]]
        more = ", ..." * (len(self._numbers) > NAMES)
        return ", ".join(map(repr, names)) + more

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
        return ValueError(
            f"labels= received {received}, but the outputs of "
            f"{self._model_name!r} that have a loss are "
            f"{self._shown_names()}. Pass what Model.fit takes: an array for "
            "each of these, in this order or in a mapping by their names. "
            "numpy.asarray(labels) makes one array of a list of numbers."
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


def _mean(loss, labels, outputs, weights):
    found = loss(labels, outputs, sample_weight=weights)
    return ops.cast(ops.mean(found), "float32")
