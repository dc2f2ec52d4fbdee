"""What an activation function does with channels.

Keras's own functions are known. Any other function, such as `tf.nn.relu`, a
partial function, a lambda or an activation layer, is run on numbers of the
shape that it is called on in the model. Its outputs show the kind.
"""

import dataclasses
import enum
import math

import keras
import numpy as np
from keras import activations, ops

from keras_redundancy import _keras
from keras_redundancy._shared.named import named


class Kind(enum.Enum):
    """What an activation function does with channels.

    Element-wise: each number depends on the one in its place alone.
    Homogeneous: element-wise, and f(s x) = s f(x) for all s > 0.
    Channel-wise: each channel depends on itself alone, but on all positions.
    Normalizing: each channel depends on all channels, symmetrically, such as
    in a softmax. Mixing: anything else.
    """

    LINEAR = "linear"
    RELU = "relu"
    HOMOGENEOUS = "homogeneous"
    SIGMOID = "sigmoid"
    ELEMENTWISE = "elementwise"
    CHANNELWISE = "channelwise"
    SOFTMAX = "softmax"
    NORMALIZING = "normalizing"
    MIXING = "mixing"
    UNKNOWN = "unknown"

    @property
    def is_homogeneous(self) -> bool:
        return self in (Kind.LINEAR, Kind.RELU, Kind.HOMOGENEOUS)

    @property
    def is_elementwise(self) -> bool:
        return self.is_homogeneous or self in (Kind.SIGMOID, Kind.ELEMENTWISE)

    @property
    def is_channelwise(self) -> bool:
        return self.is_elementwise or self is Kind.CHANNELWISE

    @property
    def is_normalizing(self) -> bool:
        return self in (Kind.SOFTMAX, Kind.NORMALIZING)


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """The kind of an activation function, and why it is not element-wise."""

    kind: Kind
    reason: str | None = None


class Behaviours:
    """Finds the kind of activation functions; each is run once."""

    def __init__(self):
        self._found = {}

    def of(self, activation, shape, axis: int = -1) -> Behaviour:
        """What an activation function does with channels.

        Args:
            activation: what Keras takes as `activation=`; None is linear.
            shape: that of the tensors it is called on, None for open sizes.
            axis: their channel axis.
        """
        axis %= len(shape)
        kind = KNOWN.get(id(activation))
        if kind is None:
            # Its id is its own as long as it is kept: it may not be hashable.
            key = id(activation), tuple(shape), axis
            if key not in self._found:
                found = _found_by_running(activation, shape, axis)
                self._found[key] = activation, found
            return self._found[key][1]
        if kind.is_normalizing and axis != len(shape) - 1:
            kind = Kind.CHANNELWISE
        return _of_kind(kind)


def activation_name(activation) -> str:
    """What to call an activation function in a message."""
    named = getattr(activation, "func", activation)  # of a partial function
    return getattr(named, "__name__", type(named).__name__)


# By id, which is theirs alone since they never go away.
KNOWN = {
    id(None): Kind.LINEAR,
    id(activations.linear): Kind.LINEAR,
    id(activations.relu): Kind.RELU,
    id(activations.leaky_relu): Kind.HOMOGENEOUS,
    id(activations.sigmoid): Kind.SIGMOID,
    id(activations.softmax): Kind.SOFTMAX,
    id(activations.log_softmax): Kind.NORMALIZING,
    id(activations.sparsemax): Kind.NORMALIZING,
    id(activations.glu): Kind.MIXING,
} | {
    id(function): Kind.ELEMENTWISE
    for function in named(
        activations,
        """
        celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh
        log_sigmoid mish relu6 selu silu soft_shrink softplus softsign
        sparse_plus sparse_sigmoid squareplus tanh tanh_shrink threshold
        """,
    )
}
REASONS = {
    Kind.CHANNELWISE: "it combines positions",
    Kind.SOFTMAX: "it normalises over the channels",
    Kind.NORMALIZING: "it normalises over the channels",
    Kind.MIXING: "it mixes the channels, or does not treat them alike",
}
SAMPLES = "it combines the samples of a batch"
RANDOM = "it returns something else each time"
UNBUILT = "it is a layer that is not built yet"
READS = "it reads the variable {name}, which can change"
RESHAPES = "of the shape {before} it makes {after}"
FAILS = "on numbers of the shape {shape} it raises {kind}: {error}"

# An open size is taken for this, and so are positions where they are many.
FEW = 3
# How many numbers to run a function on, at least and, but for channels, at
# most.
LEAST, MOST = 2**12, 2**16
# Their magnitudes, as powers of ten.
ORDINARY, WIDE = (-3, 1), (-25, 25)
# Rounding of one number, and of what is added up in another order.
CLOSE, LOOSE = 1e-6, 1e-5
# Of the text of an error.
LONGEST = 100


def _of_kind(kind):
    return Behaviour(kind, REASONS.get(kind))


def _found_by_running(activation, shape, axis):
    if isinstance(activation, keras.Layer) and not activation.built:
        return Behaviour(Kind.UNKNOWN, UNBUILT)
    try:
        return _Probe(activation, _sizes(shape, axis), axis).behaviour()
    except _CannotBeRunError as error:
        return Behaviour(Kind.UNKNOWN, str(error))


def _sizes(shape, axis):
    """Sizes to run a function on: those of the model, where they are small."""
    sizes = [size or FEW for size in shape[1:]]
    if FEW * math.prod(sizes) > MOST:
        sizes = [
            size if number == axis else min(size, FEW)
            for number, size in enumerate(sizes, 1)
        ]
    samples = -(-LEAST // math.prod(sizes))
    return max(samples, FEW), *sizes


class _CannotBeRunError(Exception):
    """What a function does cannot be found by running it."""


class _Probe:
    """A function, and what it returns for some arrays of one shape.

    Numbers of all magnitudes and both signs, zeros and ones: a bound, a bend
    or a sum over others shows in some of them.
    """

    def __init__(self, function, shape, axis):
        # A layer itself would round to its dtype, and keep what it returned.
        is_layer = isinstance(function, keras.Layer)
        self.function = function.call if is_layer else function
        self.shape, self.axis = shape, axis
        self.rng = np.random.default_rng(0)
        powers = ORDINARY, ORDINARY, WIDE, WIDE
        self.given = [self._numbers(*power) for power in powers]
        self.given += [np.full(shape, x, "float32") for x in (0, 1, -1)]
        self.returned = [self._run(x) for x in self.given]

    def behaviour(self) -> Behaviour:
        again = self._run(self.given[0])
        if not np.array_equal(again, self.returned[0], equal_nan=True):
            return Behaviour(Kind.UNKNOWN, RANDOM)
        everywhere = self._masks(*range(len(self.shape)))
        if self._is_split_by(everywhere) and self._is_same_everywhere():
            return _of_kind(self._elementwise_kind())
        if not self._is_split_by(self._masks(0)):
            return Behaviour(Kind.UNKNOWN, SAMPLES)
        if not self._treats_channels_alike():
            return _of_kind(Kind.MIXING)
        if self._is_split_by(self._masks(self.axis)):
            return _of_kind(Kind.CHANNELWISE)
        last = self.axis == len(self.shape) - 1
        is_softmax = last and self._computes(activations.softmax)
        return _of_kind(Kind.SOFTMAX if is_softmax else Kind.NORMALIZING)

    def _run(self, x):
        with _keras.Reads() as reads:
            try:
                y = self.function(ops.convert_to_tensor(x))
                y = ops.convert_to_numpy(ops.cast(y, "float32"))
            except Exception as error:  # Whatever a function may raise.
                said = " ".join(str(error).split())[:LONGEST]
                kind = type(error).__name__
                self._give_up(FAILS, shape=x.shape, kind=kind, error=said)
        if reads.variables:
            first = next(iter(reads.variables.values()))
            self._give_up(READS, name=first.path)
        if y.shape != x.shape:
            self._give_up(RESHAPES, before=x.shape, after=y.shape)
        return y

    def _give_up(self, reason, **words):
        raise _CannotBeRunError(reason.format(**words)) from None

    def _numbers(self, low, high):
        sizes = 10 ** self.rng.uniform(low, high, self.shape)
        signs = self.rng.choice([-1, 1], self.shape)
        return (signs * sizes).astype("float32")

    def _masks(self, *axes):
        """Half of all places along some axes; one of them, or all but one."""
        sizes = [n if i in axes else 1 for i, n in enumerate(self.shape)]
        half = self.rng.random(sizes) < 0.5
        one = np.zeros(sizes, bool)
        one[tuple(self.rng.integers(sizes))] = True
        return half, one, ~one

    def _is_split_by(self, masks) -> bool:
        """Whether what lies on one side of a mask does not hear of the other.

        That is f(a where mask, else b) = f(a) where mask, else f(b).
        """
        first, *others = zip(self.given, self.returned, strict=True)
        return all(
            np.array_equal(
                self._run(np.where(mask, first[0], x)),
                np.where(mask, first[1], y),
                equal_nan=True,
            )
            for x, y in others
            for mask in masks
        )

    def _is_same_everywhere(self) -> bool:
        order = self.rng.permutation(self.given[0].size)
        return self._commutes_with(lambda x: x.flat[order].reshape(self.shape))

    def _treats_channels_alike(self) -> bool:
        """A rotation and the swap of two make every order of the channels."""
        numbers = np.arange(self.shape[self.axis])
        orders = np.roll(numbers, 1), [*numbers[:2][::-1], *numbers[2:]]
        return all(
            self._commutes_with(lambda x, order=order: x.take(order, self.axis))
            for order in orders
        )

    def _commutes_with(self, moved) -> bool:
        x, y = self.given[0], self.returned[0]
        return _are_close(self._run(moved(x)), moved(y), LOOSE)

    def _elementwise_kind(self) -> Kind:
        """Homogeneous is what has one slope above 0 and one below."""
        up, down = (y.flat[0] for y in self.returned[-2:])
        with np.errstate(all="ignore"):
            expected = [np.where(x > 0, up, -down) * x for x in self.given]
        pairs = zip(self.returned, expected, strict=True)
        if all(np.allclose(y, z, rtol=CLOSE, atol=0) for y, z in pairs):
            slopes = {(1, -1): Kind.LINEAR, (1, 0): Kind.RELU}
            return slopes.get((up, down), Kind.HOMOGENEOUS)
        is_sigmoid = self._computes(activations.sigmoid)
        return Kind.SIGMOID if is_sigmoid else Kind.ELEMENTWISE

    def _computes(self, known) -> bool:
        """Whether it is one of Keras's functions under another name."""
        return all(
            _are_close(y, ops.convert_to_numpy(known(x)), LOOSE)
            for x, y in zip(self.given, self.returned, strict=True)
        )


def _are_close(x, y, tolerance) -> bool:
    size = np.abs(y[np.isfinite(y)]).max(initial=0)
    return np.allclose(
        x, y, rtol=tolerance, atol=tolerance * size, equal_nan=True
    )
