"""Layers that are made of layers: the graphs inside take their place."""

import contextlib
import functools
import itertools

import keras
import numpy as np

from keras_redundancy import _keras
from keras_redundancy.channels.rules.registry import has_rule

SEVERAL_CALLS = "it is called in several ways"
OTHER_NUMBERS = "its call returns other numbers than the graph it records"
SAMPLES = 3  # Not the batch that the graph is recorded on.
OPEN_SIZE = 16  # In place of sizes that are not known.
SMALL_SIZE = 4  # Where that is too much.


def opened(model, shapes=None, names=frozenset()):
    """The model, with the graphs inside of layers in their places.

    Those are the layers of classes without a rule that are made of other
    layers: their `call` is run on symbols, and the graph that it records is
    compared with the layer on random numbers. Where that fails because a size
    of the model's inputs is open, as where a mask is made for the length of
    a sequence, the copy gets inputs of known sizes.

    Args:
        model: a functional or Sequential model, which does not change.
        shapes: the shape of a sample of each input, for open sizes.
        names: those of layers that are opened though they hold no layers.

    Returns:
        `model` itself if it has no such layer, and no nested models whose
        calls `_keras.with_opened` puts into other graphs. Else a copy that
        shares its variables; layers in it that could not be opened have the
        attribute `not_opened`, which says why.
    """
    has_layers = has_layers_to_open(model, names)
    if not has_layers and not _keras.models_to_merge(model):
        return model
    opener = Opener(model, names=names)
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
    """`opened`, with the sizes and the layers open that are so in another.

    Of the layers inside of an opened one, some stand in the model itself where
    it was made by putting the graph in the place of the layer.
    """
    shapes = [x.shape[1:] for x in _keras.graph_of(other).inputs]
    found = [x for x in _keras.flat_layers(other) if _is_opened(x)]
    return opened(model, shapes, {x.name for x in found})


def has_layers_to_open(model, names=frozenset()) -> bool:
    """Whether a model has layers to look into; `names`: as for `opened`."""
    opener = Opener(model, names=names)
    return any(map(opener.opens, _keras.flat_graph(model).layers))


def _is_opened(layer):
    return isinstance(layer, _keras.Opened)


def has_stand_ins(model) -> bool:
    """Whether an opened model has known sizes where the original has not."""
    inputs = map(_keras.origin, _keras.graph_of(model).inputs)
    return any(hasattr(x, "open_shape") for x in inputs)


def _closed(model) -> int:
    """The number of layers that could not be opened, and of their weights."""
    closed = [x for x in _keras.flat_layers(model) if hasattr(x, "not_opened")]
    return len(closed) + sum(x.count_params() for x in closed)


def is_made_of_layers(layer) -> bool:
    """Whether it is of an unknown class, and has layers inside."""
    return _is_unknown(layer) and len(_keras.flat_layers(layer)) > 1


def _is_gone_through(layer):
    """Whether a layer inside of another one is no more than what it calls."""
    return is_made_of_layers(layer) and not _keras.has_state(layer)


def _is_unknown(layer):
    return (
        not has_rule(layer)
        and not hasattr(layer, "not_opened")
        and not _keras.is_stock_class(type(layer))
    )


class Opener:
    """Makes the `Opened` of a layer that is called, or returns None."""

    def __init__(self, model, is_inside: bool = False, names=frozenset()):
        """Args:
        model: the model that is walked through.
        is_inside: whether it is the graph inside of a layer. There, layers
            without layers inside are opened as well: whoever uses a block can
            hardly write rules for what its author put into it.
        names: those of layers that are opened as if they were inside.
        """
        self._is_inside, self._names = is_inside, names
        self._calls = {}
        for call in _keras.flat_graph(model).calls:
            ways = self._calls.setdefault(id(call.operation), set())
            ways.add(_way(call))

    def opens(self, layer) -> bool:
        """Whether to look inside of a layer."""
        if self._is_inside or layer.name in self._names:
            return _is_unknown(layer)
        return is_made_of_layers(layer)

    def __call__(self, layer, args, kwargs, prefix):
        if not isinstance(layer, keras.Layer) or not self.opens(layer):
            return None
        if len(self._calls[id(layer)]) > 1 and layer.weights:
            raise _keras.RecordingError(SEVERAL_CALLS)
        prefix = f"{prefix}{layer.name}{_keras.BORDER}"
        opener = functools.partial(Opener, is_inside=True)
        found = recorded(layer, args, kwargs, opener=opener, prefix=prefix)
        if found.branches:
            raise _keras.RecordingError(_keras.BRANCHES)
        return found


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


def recorded(layer, args, kwargs, **options):
    """The `Opened` of a call, once it has returned the same numbers.

    Args:
        layer, args, kwargs, **options: as for `_keras.recorded`, which is
            called in several ways.

    Returns:
        The `Opened`. Its attribute `branches` says whether the call does
        something else in training, which is not in the graph.

    Raises:
        RecordingError: the call cannot be recorded, or returns other numbers.
    """
    failure = None
    ways = (True, False) if _keras.has_stock_bases(layer) else (False,)

    def record(**ways):
        found = _keras.recorded(
            layer, args, kwargs, through=_is_gone_through, **ways, **options
        )
        _require_same_numbers(layer, found)
        return found

    # Masks are made from the size of a batch: one sample broadcasts to many.
    for batch, as_stock in itertools.product((None, 1), ways):
        try:
            found = record(batch=batch, as_stock=as_stock)
        except _keras.RecordingError as error:
            failure = error
            continue
        if found.branches:
            # What a Dropout `if training` is in there does no harm.
            with contextlib.suppress(_keras.RecordingError):
                found = record(batch=batch, as_stock=as_stock, training=True)
                vars(found)["branches"] = False
        return found
    raise failure


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

    return not returns_the_same(run, model)


def returns_the_same(run, model) -> bool:
    """Whether a function returns the numbers that a model does.

    Args:
        run: takes a list of a tensor for each input of the model.
        model: a functional model; its variables do not change.
    """
    try:
        found = _both(run, model, OPEN_SIZE)
    except Exception:  # Some layers take only so many positions.
        found = _both(run, model, SMALL_SIZE)
    return all(
        a.shape == b.shape and np.allclose(a, b, 1e-3, 1e-4)
        for a, b in zip(*map(_arrays, found), strict=True)
    )


def _both(run, model, size):
    """What a function and a model return for random numbers."""
    random = np.random.default_rng(0)
    given = [_numbers(x, random, size) for x in _keras.graph_of(model).inputs]
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


def _numbers(x, random, size):
    """Random numbers of the shape of an input; 0 and 1 for integers."""
    first, *others = x.shape
    shape = [size if n is None else n for n in others]
    shape = (SAMPLES * (first or 1), *shape)  # Windows may be samples, too.
    if keras.backend.is_float_dtype(x.dtype):
        return keras.ops.cast(random.normal(size=shape), x.dtype)
    return keras.ops.cast(random.integers(0, 2, shape), x.dtype)
