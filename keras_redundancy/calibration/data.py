"""Calibration data: what `Model.predict` takes, batch after batch."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterator

import keras
import numpy as np
import scipy.sparse

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import check_count
from keras_redundancy._shared.tables import shown
from keras_redundancy._shared.warn import warn
from keras_redundancy.calibration.kinds import (
    STRINGS,
    WrongKindError,
    require_kinds,
)
from keras_redundancy.calibration.vocabulary import (
    embeddings_of_inputs,
    require_known,
)
from keras_redundancy.channels.opening import has_layers_to_open
from keras_redundancy.channels.sizes import has_open_sizes

# An iterator can be read once: so many of its batches are kept for later.
REMEMBERED = 32
# The most samples used of data that may be endless, unless steps= is given.
MOST_SAMPLES = 10_000
# tf.data's cardinality of an endless dataset; -2 is an unknown length.
INFINITE = -1


@dataclasses.dataclass(eq=False)
class Samples:
    """Calibration data that can be read several times.

    Attributes:
        data: what `Model.predict` takes.
        steps: the number of batches to use at most; None for all of them, or
            for the first `MOST_SAMPLES` samples where the length is unknown.
        batch_size: of the batches that `steps` counts of arrays, so that
            passes in batches of another size see the same samples; None: that
            of each pass.
        shapes: the shape of one sample, without the batch axis, for each
            input of the model; None before the first batch was read.

    Raises:
        TypeError: `data` is None.
        ValueError: `data` is endless and `steps` is None; or `steps` is no
            integer of at least 1.
    """

    data: object
    steps: int | None = None
    batch_size: int | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self):
        if self.data is None:
            raise TypeError(
                "data is None. Pass some hundred samples like those that the "
                "model was trained on, without targets."
            )
        if self.steps is not None:
            check_count("steps", self.steps)
        if self.steps is None and _is_endless(self.data):
            raise ValueError(
                f"data is {type(self.data).__name__} without an end. Pass "
                "steps=, the number of batches to use, so that they hold "
                "some hundred or thousand samples."
            )

    def steps_of(self, batch_size: int) -> float:
        """How many batches are used at most, if arrays come in this size."""
        if math.isfinite(self.most):
            return math.ceil(self.most / batch_size)
        return math.inf if self.steps is None else self.steps

    @property
    def most(self) -> float:
        """How many samples are used at most, as far as that is known."""
        has_size = self.batch_size is not None
        if self.steps is None or not has_size or comes_in_batches(self.data):
            return math.inf
        return self.steps * self.batch_size

    def after_a_pass(self) -> tuple["Samples", "Samples"]:
        """(The samples for the first pass, the samples for later passes).

        They differ for an iterator, which can be read only once: its first
        `REMEMBERED` batches are kept for later passes.
        """
        if not isinstance(self.data, Iterator):
            return self, self
        kept = _Remembered()
        now = dataclasses.replace(self, data=_remembering(self.data, kept))
        return now, Samples(kept)

    def remembered(self) -> "Samples":
        """Samples for several passes: the first batches of an iterator."""
        if not isinstance(self.data, Iterator):
            return self
        count = min(REMEMBERED, self.steps or REMEMBERED)
        return Samples(_Remembered(itertools.islice(self.data, count)))


class _Remembered(list):
    """Batches that were kept of an iterator."""


def comes_in_batches(data) -> bool:
    """Whether data make their batches themselves: they are no arrays."""
    if isinstance(data, Iterator | _Remembered):
        return True
    if isinstance(data, list):
        return False
    return not all(
        x is None or hasattr(x, "shape") for x in keras.tree.flatten(data)
    )


def _remembering(data, kept):
    for batch in data:
        if len(kept) < REMEMBERED:
            kept.append(batch)
        yield batch


def _is_endless(data):
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    if type(data).__module__.startswith("tensorflow."):
        count = getattr(data, "cardinality", None)
        count = count() if callable(count) else count
        return count is not None and int(count) == INFINITE
    return isinstance(data, itertools.cycle | itertools.count)


def batches(model, data, batch_size: int):
    """The model's inputs, a list of arrays per batch.

    Args:
        model: a functional or Sequential model.
        data: arrays, a `tf.data.Dataset`, a `PyDataset` or a generator, as
            `Model.predict` takes them, or `Samples` of that; targets and
            weights are left out, and so are entries of a dictionary that are
            no inputs of the model.
        batch_size: for arrays; all other data come in batches. A model that
            can be called on batches of one size alone is given those.

    Yields:
        A list with an array for each input of the model, in their order;
        None for an optional input that the data leave out. Batches without
        samples are left out, and so are those with too few for the model.

    Raises:
        TypeError: `data` is of a kind that Keras does not take.
        ValueError: `data` is empty, endless, or does not fit the model's
            inputs.

    Warns:
        UserWarning: `data` of unknown length has more than `MOST_SAMPLES`
            samples, and the rest is not used.
    """
    samples = data if isinstance(data, Samples) else Samples(data)
    graph, needed = _keras.graph_of(model), _keras.needed_batch(model)
    found, is_bounded = _batches_of(samples, needed or batch_size, graph)
    embeddings = embeddings_of_inputs(model)
    seen = given = 0
    for number, x in enumerate(found):
        if not is_bounded and seen >= MOST_SAMPLES:
            _warn_of_the_rest(samples.data, seen)
            samples.steps = number  # Of later passes as well.
            break
        arrays = _checked(graph, x, number, embeddings)
        if samples.most < given + samples_in(arrays):
            rest = samples.most - given
            arrays = [None if y is None else y[:rest] for y in arrays]
        if samples.shapes is None:
            samples.shapes = tuple(map(_sample_shape, arrays))
        size = samples_in(arrays)
        given += size
        if size > (needed or size):
            raise _misfit(graph, x, number)
        if size >= (needed or 1):
            seen += size
            yield arrays
    if given and not seen:
        raise ValueError(
            f"data has {given} samples, but the model takes batches of "
            f"{needed}. Pass so many samples, or a multiple of it."
        )
    if not seen:
        raise ValueError(
            "data is empty: there is no batch to calibrate on. Pass some "
            "hundred samples like those that the model was trained on. A "
            "generator can be read once: make a new one."
        )


def samples_in(batch) -> int:
    """The number of samples in a batch."""
    return next(len(x) for x in batch if x is not None)


def expected_samples(data, first: list) -> int:
    """The number of samples, or a lower bound of it.

    Args:
        data: as for `batches`.
        first: the first batches, or the only one.
    """
    samples = data if isinstance(data, Samples) else Samples(data)
    sizes, data = [samples_in(batch) for batch in first], samples.data
    if len(sizes) < 2 or isinstance(data, Iterator):
        count = 0
    elif isinstance(data, _Remembered):
        count = len(data)
    else:
        options = {"batch_size": sizes[0]}
        count = _keras.number_of_batches(data, None, options) or 0
    count = min(count, samples.steps_of(sizes[0]))
    return max(count * sizes[0], sum(sizes))


def first_shapes(model, samples: Samples, batch_size: int) -> tuple:
    """The shape of one sample for each input; reads a batch if need be."""
    if samples.shapes is None:
        next(batches(model, samples, batch_size))
    return samples.shapes


def shapes_to_open_on(model, data, steps, batch_size: int) -> tuple | None:
    """`first_shapes`, for a model with open sizes that is to be looked into.

    None for another model, and for data that can be read only once.
    """
    if isinstance(data, Iterator | None) or not has_open_sizes(model):
        return None
    if not has_layers_to_open(model):
        return None
    return first_shapes(model, Samples(data, steps), batch_size)


def _sample_shape(array):
    return None if array is None else array.shape[1:]


def _warn_of_the_rest(data, seen):
    warn(
        f"data is {type(data).__name__} of unknown length: its first {seen:,} "
        "samples are used, and it has more. Pass steps=, the number of "
        "batches to use.",
    )


def _batches_of(samples, batch_size, graph):
    """(an iterator of the inputs in each batch, whether its end is known)."""
    data = samples.data
    is_bounded = samples.steps is not None or isinstance(data, _Remembered)
    has_arrays = isinstance(data, np.ndarray | list | tuple | dict)
    is_iterator = isinstance(data, Iterator | _Remembered)
    if has_arrays and not is_iterator:
        data = _of_inputs(graph, data)
        _require_as_many(graph, data)
        require_kinds(graph.inputs, data)
    try:
        if is_iterator:
            # Keras looks at the first batch before it is asked for one.
            data = iter(data)
            first = list(itertools.islice(data, 1))
            if not first:
                return (), True
            data = itertools.chain(first, data)
            del first
            data = (x if isinstance(x, tuple) else (x,) for x in data)
        elif has_arrays:
            data = keras.tree.map_structure(_sliceable, data)
        found, count = _keras.numpy_batches(data, batch_size)
    except (TypeError, ValueError) as error:
        raise type(error)(_not_in_batches(data, str(error))) from error
    inputs = (keras.utils.unpack_x_y_sample_weight(x)[0] for x in found)
    if samples.steps is not None:
        inputs = itertools.islice(inputs, samples.steps_of(batch_size))
    return inputs, is_bounded or count is not None


def _not_in_batches(data, why):
    """The message of an error: Keras makes no batches of `data`."""
    # The message of Keras goes on with all of the data.
    known = why.startswith("Unrecognized data type")
    why = "" if known else f": {why[:200].rstrip()}"
    is_list = isinstance(data, list | tuple)
    return (
        f"data is {shown(data)}, which Keras cannot make batches of{why}. "
        "Pass what Model.predict takes, the samples themselves: arrays, a "
        "tf.data.Dataset, a keras.utils.PyDataset or a generator."
        + " numpy.asarray(data) makes an array of a list."
        * is_list
    )


def _of_inputs(graph, data):
    """Arrays without those that are no inputs of the model."""
    if all(x is None for x in keras.tree.flatten(data)):
        raise _misfit(graph, data)
    try:
        return _as_read_by(_keras.input_structure(graph), data)
    except (KeyError, ValueError) as error:
        raise _misfit(graph, data) from error


def _require_as_many(graph, data):
    """Raise unless the arrays for all inputs have as many samples."""
    flat = keras.tree.flatten(data)
    shapes = [tuple(getattr(x, "shape", ())) for x in flat]
    counts = [shape[0] for shape in shapes if shape]
    if len(flat) == len(graph.inputs) and len(set(counts)) > 1:
        raise ValueError(
            f"data has {', '.join(map(str, counts))} samples for the inputs of "
            "the model, in this order. Pass as many for each of them."
        )


def _sliceable(x):
    """An array as Keras can slice it: text has to be a tensor."""
    if isinstance(x, np.ndarray) and x.dtype.kind in STRINGS:
        return keras.ops.convert_to_tensor(x, dtype="string")
    return x


def _checked(graph, x, number, embeddings):
    """`x` as a list of arrays in the order of the model's inputs.

    Args:
        graph: that of the model.
        x: the inputs in a batch.
        number: how many batches came before.
        embeddings: those that read inputs, {id(input): layer}.
    """
    try:
        tensors = _standardized(graph, x)
    except WrongKindError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise _misfit(graph, x, number) from error
    arrays = [None if y is None else _dense(y) for y in tensors]
    given = [
        (array, y)
        for array, y in zip(arrays, graph.inputs, strict=True)
        if array is not None
    ]
    if not given:
        raise _misfit(graph, x, number)
    for array, y in given:
        if not _fits(array.shape, y.shape):
            raise _misfit(graph, x, number, f" of the input {y.name!r}")
        if not _is_finite(array):
            sample = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise ValueError(
                f"data holds NaN or infinity: first in sample {sample} of "
                f"batch {number} (counted from 0) of the input {y.name!r}. "
                "Leave such samples out, or fill in what is missing as it was "
                "for training."
            )
        require_known(array, y, embeddings.get(id(y)), number)
    return arrays


def _standardized(graph, x):
    """A list of tensors in the order of the model's inputs.

    Raises:
        TypeError, ValueError, KeyError: `x` does not fit them.
    """
    structure = _keras.input_structure(graph)
    flat = keras.tree.flatten(x)
    if len(flat) == len(graph.inputs) == 1 and not isinstance(x, dict):
        x = keras.tree.pack_sequence_as(structure, flat)
    x = keras.tree.map_structure(_dense, _as_read_by(structure, x))
    if len(keras.tree.flatten(x)) != len(graph.inputs):
        raise ValueError("There are more or fewer arrays than inputs.")
    require_kinds(graph.inputs, x)
    with warnings.catch_warnings():
        # Keras warns of tuples in place of dictionaries; `predict` takes both.
        warnings.filterwarnings("ignore", message="The structure of")
        return _keras.standardized_inputs(graph, x)


def _as_read_by(structure, x):
    """`x` without entries of dictionaries that are no inputs of the model."""
    if isinstance(x, dict):
        if isinstance(structure, dict):
            return {k: _as_read_by(v, x[k]) for k, v in structure.items()}
        if isinstance(structure, list | tuple):
            return [x[part.name] for part in structure]
        return x[structure.name]
    if isinstance(x, list | tuple) and isinstance(structure, list | tuple):
        return [_as_read_by(*each) for each in zip(structure, x, strict=True)]
    return x


def _dense(x):
    """`x` as a dense array."""
    if scipy.sparse.issparse(x):
        return x.toarray()
    if x is None or isinstance(x, np.ndarray):
        return x
    if hasattr(x, "__array__"):
        return _keras.as_array(x)
    return keras.ops.convert_to_numpy(x)


def _is_finite(array):
    return array.dtype.kind in STRINGS or np.isfinite(array).all()


def _fits(given, wanted):
    return len(given) == len(wanted) and all(
        size is None or size == own
        for own, size in zip(given[1:], wanted[1:], strict=True)
    )


def _misfit(graph, x, number=0, of=""):
    """The error to raise: batch `number` does not fit the model's inputs."""

    def shape_of(x):
        return None if x is None else np.shape(x)

    wanted = ", ".join(str(tuple(x.shape)) for x in graph.inputs)
    arrays, hint = keras.tree.flatten(x), ""
    if isinstance(x, list | tuple) and len(x) > max(4, len(graph.inputs)):
        received = f"{len(arrays)} arrays, the first of shape"
        received += f" {shape_of(arrays[0])}"
        hint = " numpy.stack(data) makes one array of a list of samples."
    else:
        received = "batches of shape"
        received += f" {keras.tree.map_structure(shape_of, x)}"
    return ValueError(
        f"data has {received}, but the model takes {wanted}: see batch "
        f"{number} (counted from 0){of}. Pass what Model.predict takes: the "
        f"inputs alone, without targets, and with a batch axis.{hint}"
    )
