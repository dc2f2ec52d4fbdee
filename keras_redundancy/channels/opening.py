"""Layers without a rule: the graphs that they record take their place."""

import contextlib

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy.channels.rules.registry import has_rule

SEVERAL_CALLS = "it is called in several ways"
OPTIONAL = "it reads an input of the model that can be left out"
OTHER_NUMBERS = "its call returns other numbers than the graph it records"
SAMPLES = 3  # Not the batch that the graph is recorded on.
OPEN_SIZE = 16  # In place of sizes that are not known.
SMALL_SIZE = 4  # Where that is too much.


def opened(model, shapes=None):
    """The model, with the graphs inside of layers in their places.

    Those are the layers of classes without a rule: their `call` is run on
    symbols, and the graph that it records is compared with the layer on random
    numbers. Where that fails because a size of the model's inputs is open, as
    where a mask is made for the length of a sequence, the copy gets inputs of
    known sizes.

    Args:
        model: a functional or Sequential model, which does not change.
        shapes: the shape of a sample of each input, for open sizes.

    Returns:
        `model` itself if it has no such layer, and no nested models whose
        calls `_keras.with_opened` puts into other graphs. Else a copy that
        shares its variables; layers in it that could not be opened have the
        attribute `not_opened`, which says why.
    """
    if not has_layers_to_open(model) and not _keras.models_to_merge(model):
        return model
    opener = Opener(model)
    found = _keras.with_opened(model, opener)
    inputs = _keras.graph_of(model).inputs
    if not _closed(found) or not any(None in x.shape[1:] for x in inputs):
        return found
    if shapes is None:
        shapes = [
            [OPEN_SIZE if n is None else n for n in x.shape[1:]] for x in inputs
        ]
    shapes = [
        (x.shape[0], *shape) for x, shape in zip(inputs, shapes, strict=True)
    ]
    try:
        other = _keras.with_opened(model, opener, shapes)
    except Exception:  # A layer in there takes no such sizes.
        return found
    return other if _closed(other) <= _closed(found) else found


def opened_like(model, other):
    """`opened`, with the sizes of the inputs of another model."""
    return opened(model, [x.shape[1:] for x in _keras.graph_of(other).inputs])


def has_layers_to_open(model) -> bool:
    """Whether a model has layers to look into."""
    return any(map(_is_unknown, _keras.flat_graph(model).layers))


def has_stand_ins(model) -> bool:
    """Whether an opened model has known sizes where the original has not."""
    inputs = map(_keras.origin, _keras.graph_of(model).inputs)
    return any(hasattr(x, "open_shape") for x in inputs)


def _closed(model) -> int:
    """The number of layers that could not be opened, and of their weights.

    Only those that are made of layers: for less no size is worth fixing.
    """
    closed = [
        x
        for x in _keras.flat_layers(model)
        if hasattr(x, "not_opened") and len(_keras.flat_layers(x)) > 1
    ]
    return len(closed) + sum(x.count_params() for x in closed)


def _is_gone_through(layer):
    """Whether a layer inside of another one is no more than what it calls."""
    is_made_of_layers = len(_keras.flat_layers(layer)) > 1
    return (
        is_made_of_layers and _is_unknown(layer) and not _keras.has_state(layer)
    )


def _is_unknown(layer):
    return (
        not has_rule(layer)
        and not hasattr(layer, "not_opened")
        and not _keras.is_stock_class(type(layer))
    )


class Opener:
    """Makes the `Opened` of a layer that is called, or returns None."""

    def __init__(self, model):
        """`model`: the model that is walked through."""
        self._calls = {}
        for call in _keras.flat_graph(model).calls:
            ways = self._calls.setdefault(id(call.operation), set())
            ways.add(_way(call))

    def __call__(self, layer, args, kwargs, prefix, one_sample):
        if not isinstance(layer, keras.Layer) or not _is_unknown(layer):
            return None
        if len(self._calls[id(layer)]) > 1 and layer.weights:
            raise _keras.RecordingError(SEVERAL_CALLS)
        if any(map(_is_optional, _keras.tensors_in((args, kwargs)))):
            raise _keras.RecordingError(OPTIONAL)
        prefix = f"{prefix}{layer.name}{_keras.BORDER}"
        return recorded(
            layer, args, kwargs, one_sample, opener=Opener, prefix=prefix
        )


def _is_optional(x):
    return getattr(_keras.origin(x), "optional", False)


def _way(call):
    """How a layer is called: shapes of tensors, which are the same, all else.

    A graph that is recorded on f(x, x) has one input, that on f(x, y) two.
    """
    number = {id(x): n for n, x in enumerate(_keras.tensors_in(call.arguments))}

    def described(x):
        if isinstance(x, keras.KerasTensor):
            return number[id(x)], x.shape
        if not np.ndim(x):
            return x
        # The repr of a large array leaves most of its numbers out.
        array = _keras.as_array(x)
        return array.dtype, array.shape, hash(array.tobytes())

    return repr(keras.tree.map_structure(described, call.arguments))


def recorded(layer, args, kwargs, one_sample=None, **options):
    """The `Opened` of a call, once it has returned the same numbers.

    Args:
        layer, args, kwargs, **options: as for `_keras.recorded`, which is
            called in several ways.
        one_sample: a function that returns the first sizes of the tensors
            that are read, for one sample; None if each is 1.

    Returns:
        The `Opened`.

    Raises:
        RecordingError: the call cannot be recorded, or returns other numbers.
    """
    failure, count = None, len(_keras.tensors_in((args, kwargs)))

    def record(**ways):
        found = _keras.recorded(
            layer,
            args,
            kwargs,
            one_sample=one_sample,
            through=_is_gone_through,
            **ways,
            **options,
        )
        _require_same_numbers(layer, found)
        return found

    ways = (
        (rows, as_stock)
        for rows in _first_sizes(count, one_sample)
        for as_stock in _ways_of_classes(layer)
    )
    for rows, as_stock in ways:
        try:
            found = record(rows=rows, as_stock=as_stock)
        except _keras.RecordingError as error:
            failure = error
            continue
        if found.branches:
            # What a Dropout `if training` is in there does no harm.
            with contextlib.suppress(_keras.RecordingError):
                found = record(rows=rows, as_stock=as_stock, training=True)
                vars(found)["branches"] = False
        return found
    raise failure


def _first_sizes(count, one_sample):
    """What to record a call on, one after the other until one is right.

    First open sizes of batches. Then one entry, as masks are made from the
    size of a batch, and one entry broadcasts to many. Then as many entries as
    one sample is made of, such as all windows of an image.
    """
    yield None
    yield [1] * count
    if one_sample is not None and (rows := one_sample()) != [1] * count:
        yield rows


def _ways_of_classes(layer):
    return (True, False) if _keras.has_stock_bases(layer) else (False,)


def _require_same_numbers(layer, found):
    try:
        other = differs(layer, found, found)
    except Exception as error:
        message = _keras.what_and_where(error)
        raise _keras.RecordingError(message) from error
    if other:
        raise _keras.RecordingError(OTHER_NUMBERS)


def differs(layer, model, opened) -> bool:
    """Whether a layer and a model return different numbers.

    Args:
        layer: the layer; its variables do not change.
        model: a functional model.
        opened: the `Opened` that says how the layer is called, and which of
            the tensors that it returns the outputs of the model are.
    """

    def run(tensors):
        args, kwargs = opened.arguments_with(tensors)
        returned = _keras.run_for_inference(layer, args, kwargs)
        return opened.outputs_among(returned)

    return not returns_the_same(run, model, opened.rows)


def returns_the_same(run, model, rows=None) -> bool:
    """Whether a function returns the numbers that a model does.

    Args:
        run: takes a list of a tensor for each input of the model.
        model: a functional model; its variables do not change.
        rows: the size of the first axis of each input for one sample; None
            where each entry is a sample.
    """
    rows = rows or [1] * len(_keras.graph_of(model).inputs)
    try:
        found = _both(run, model, rows, OPEN_SIZE)
    except Exception:  # Some layers take only so many positions.
        found = _both(run, model, rows, SMALL_SIZE)
    return all(
        a.shape == b.shape and np.allclose(a, b, 1e-3, 1e-4)
        for a, b in zip(*map(_arrays, found), strict=True)
    )


def _both(run, model, rows, size):
    """What a function and a model return for random numbers."""
    random = np.random.default_rng(0)
    given = [
        _numbers(x, random, SAMPLES * count, size)
        for x, count in zip(_keras.graph_of(model).inputs, rows, strict=True)
    ]
    with keras.StatelessScope(), _keras.without_gradients():
        return run(given), run_packed(model, given)


def run_packed(model, tensors: list):
    """What a model returns, given a list of a tensor for each input."""
    structure = _keras.input_structure(_keras.graph_of(model))
    # Else a layer such as Resizing sets training=True for those behind it.
    packed = keras.tree.pack_sequence_as(structure, tensors)
    return model(packed, training=False)


def _arrays(structure):
    tensors = keras.tree.flatten(structure)
    arrays = map(keras.ops.convert_to_numpy, tensors)
    return [x.astype("float64") for x in arrays]


def _numbers(x, random, rows, size):
    """Random numbers of the shape of an input; 0 and 1 for integers."""
    shape = (rows, *(size if n is None else n for n in x.shape[1:]))
    if keras.backend.is_float_dtype(x.dtype):
        return keras.ops.cast(random.normal(size=shape), x.dtype)
    return keras.ops.cast(random.integers(0, 2, shape), x.dtype)
