"""Layers whose kernel is P W Q, where P and Q let vectors of W be shared."""

import weakref

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import check_count, check_option
from keras_redundancy._shared.precision import as_loss, wide, widened
from keras_redundancy.low_rank import joining
from keras_redundancy.low_rank.kept_pairs import KeptPairs
from keras_redundancy.low_rank.rare import RaReRegularizer
from keras_redundancy.low_rank.sides import (
    SIDES,
    SIZES,
    VECTORS,
    float64_of,
    sides_of,
)

# Arguments of the constructor that stock layers do not take.
OWN_ARGUMENTS = ("vectors", "rows", "columns", "refresh")


class Factorized:
    """What `FactorizedDense` and `FactorizedConv2D` have in common.

    A mixin: it comes before `Dense` or `Conv2D` among the bases of a class.

    Attributes:
        sides: the names in `SIDES` that are factorized: "input" if the layer
            has P, "unit" if it has Q.
        rare: its `RaReRegularizer`, or None.
        drawn_sides: the sides whose vectors `rare` pulls together.
        kept_pairs: the `KeptPairs` of `rare`, from `build` on; None if there
            are no `drawn_sides`.
    """

    def __init__(
        self,
        *args,
        vectors: str = "both",
        rows: int | None = None,
        columns: int | None = None,
        refresh: int = 50,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        check_option("vectors", vectors, VECTORS)
        check_count("refresh", refresh)
        self.vectors, self.refresh = vectors, refresh
        self.sides = sides_of(vectors)
        self.rows, self.columns = rows, columns
        for side, name in SIZES.items():
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
                if side not in self.sides:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r} is the number of "
                        f"{name} of W that {side}s share, but with "
                        f"vectors={vectors!r} each of the {side}s has its own. "
                        'Pass vectors="both".'
                    )
        self.kept_pairs, self._counted_in = None, None
        self.rare, self.drawn_sides = None, []
        if isinstance(self.kernel_regularizer, RaReRegularizer):
            self.rare = self.kernel_regularizer
            drawn = sides_of(self.rare.vectors)
            self.drawn_sides = [side for side in self.sides if side in drawn]

    def build(self, input_shape):
        super().build(input_shape)
        inputs = input_shape[-1]
        outputs = self.compute_output_shape(input_shape)[-1]
        for side, size in (("input", inputs), ("unit", outputs)):
            if side in self.sides:
                self._add_factor(side, size)
        if self.rare is not None and self.rare.units_axis is not None:
            self._require_units_last()
        if self.drawn_sides:
            self.kept_pairs = KeptPairs(self, self.rare, self.drawn_sides)

    def _require_units_last(self):
        last = len(self.kernel.shape) - 1
        of_units = np.atleast_1d(self.rare.units_axis) % (last + 1)
        if of_units.tolist() != [last]:
            raise ValueError(
                f"The RaReRegularizer of the layer {self.name!r} has "
                f"units_axis={self.rare.units_axis!r}, but the kernel of a "
                f"{type(self).__name__} has its units on the last axis. Leave "
                "units_axis out."
            )

    def add_weight(self, *args, **kwargs):
        """As in `keras.Layer`, but the kernel has the shape of W.

        The kernel's regularizer is `rare.also` alone, since `call` adds RaRe.
        """
        if kwargs.get("name") == "kernel":
            *rest, inputs, units = kwargs["shape"]
            shape = *rest, self.rows or inputs, self.columns or units
            # RaRe compares the float32 weights that are trained, not a copy
            # in a lower precision: `call` casts the kernel.
            kwargs |= {"shape": shape, "autocast": False}
            if self.rare is not None:
                also = self.rare.also and self.rare.penalty_also
                kwargs["regularizer"] = also
        return super().add_weight(*args, **kwargs)

    def _add_factor(self, side, size):
        """Variables of P or Q: at first the identity, or its rows in turn."""
        used = self.kernel.shape[SIDES[side]]
        index = self.add_weight(
            name=f"{side}_index",
            shape=(size,),
            dtype="int32",
            initializer=lambda shape, dtype=None: (
                ops.arange(size, dtype=dtype) % used
            ),
            trainable=False,
        )
        scale = self.add_weight(
            name=f"{side}_scale",
            shape=(size,),
            dtype=wide(self.variable_dtype),
            initializer="ones",
            trainable=False,
            autocast=False,
        )
        setattr(self, f"{side}_index", index)
        setattr(self, f"{side}_scale", scale)

    @property
    def state(self) -> list:
        """The variables that RaRe keeps from step to step."""
        return self.kept_pairs.variables if self.kept_pairs else []

    def call(self, inputs, training=None):
        kernel = ops.convert_to_tensor(self.kernel)
        if self.drawn_sides and self._is_first_call():
            if not self.has_pairs(self.drawn_sides):
                shape = *kernel.shape[:-2], *self.outer_sizes
                self.rare.warn_of_no_effect(shape)
            penalty = self.kept_pairs.penalty(kernel, training)
            self.add_loss(as_loss(penalty))
        x = self._mapped(
            *(ops.cast(x, self.compute_dtype) for x in (inputs, kernel))
        )
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)

    def _is_first_call(self):
        """Whether no call in this pass through the model has added RaRe."""
        present = _keras.present_pass()
        if present is None:
            return True
        last = self._counted_in and self._counted_in()
        self._counted_in = weakref.ref(present)
        return present is not last

    def has_pairs(self, sides: list[str]) -> bool:
        """Whether vectors of these sides could differ in direction.

        By the sizes before any vector was fused: at least two vectors of at
        least two numbers on one side.
        """
        counts = [self.outer_sizes[list(SIDES).index(side)] for side in sides]
        numbers = self.weights_of(self.outer_sizes)
        return any(1 < count < numbers for count in counts)

    def _mapped(self, x, kernel):
        """x P W Q for a batch x and the kernel W, in the compute dtype."""
        raise NotImplementedError

    def _joined(self, x):
        """(x P)^T from x^T: the sum of the inputs that read each row of W."""
        if "input" not in self.sides:
            return x
        size = self.kernel.shape[SIDES["input"]]
        # A sum of many numbers in bfloat16 would keep only a few digits.
        scaled = widened(x) * _column(self.input_scale)
        rows = _row_sums(scaled, self.input_index.value, size)
        return ops.cast(rows, x.dtype)

    def _shared(self, x):
        """(x Q)^T from x^T: each unit takes one column of W and scales it."""
        if "unit" not in self.sides:
            return x
        # The gradient of a column that several units take is such a sum too.
        taken = ops.take(widened(x), self.unit_index.value, axis=0)
        return ops.cast(taken * _column(self.unit_scale), x.dtype)

    @property
    def P(self) -> np.ndarray:
        """Shape (inputs, rows of W)."""
        index, scale = self.factor("input")
        rows = np.eye(self.kernel.shape[SIDES["input"]])
        return rows[index] * scale[:, None]

    @property
    def Q(self) -> np.ndarray:
        """Shape (columns of W, units)."""
        index, scale = self.factor("unit")
        columns = np.eye(self.kernel.shape[SIDES["unit"]])
        return columns[:, index] * scale

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of rows and the number of columns of W in use."""
        rows, columns = (self.factor(side)[0] for side in SIDES)
        return len(np.unique(rows)), len(np.unique(columns))

    @property
    def outer_sizes(self) -> tuple[int, int]:
        """The number of inputs and the number of units: P W Q's, not W's."""
        return tuple(
            self.factor_variables(side)[0].shape[0]
            if side in self.sides
            else self.kernel.shape[axis]
            for side, axis in SIDES.items()
        )

    def weights_of(self, sizes: tuple[int, int]) -> int:
        """How many numbers a kernel of (rows, columns) has, window included."""
        return int(np.prod([*self.kernel.shape[:-2], *sizes]))

    def effective_kernel(self) -> np.ndarray:
        """P W Q: the kernel of a stock layer that computes the same.

        Shape (..., inputs, units), float64.
        """
        kernel = float64_of(self.kernel)
        rows, row_scale = self.factor("input")
        columns, column_scale = self.factor("unit")
        kernel = kernel[..., rows, :][..., columns]
        return kernel * row_scale[:, None] * column_scale

    def factor(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        """P or Q as two new arrays: the index and the scale of each entry.

        The identity if the side is not factorized.
        """
        if side not in self.sides:
            size = self.kernel.shape[SIDES[side]]
            return np.arange(size), np.ones(size)
        index, scale = self.factor_variables(side)
        return np.array(ops.convert_to_numpy(index)), float64_of(scale)

    def factor_variables(self, side: str) -> tuple:
        """The variables of P or Q, of a side that is factorized."""
        return getattr(self, f"{side}_index"), getattr(self, f"{side}_scale")

    fuse = joining.fuse
    fuse_parallel = joining.fuse_parallel

    # `Dense` and `Conv2D` save the kernel and the bias alone.
    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self):
        own = {name: getattr(self, name) for name in OWN_ARGUMENTS}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FactorizedDense(Factorized, keras.layers.Dense):
    """`Dense` with the kernel P W Q: W is trained, P and Q are not.

    Each row of P, and each column of Q, has one number that is not 0: input i
    is scaled and reads one row of W, and unit j takes one column of W and
    scales it. At first both are the identity, and the layer computes what a
    `Dense` layer does.

    `fuse` and `fuse_parallel` fuse columns, or rows, of W that are parallel,
    so that several units share a column. The shape of W stays, so nothing has
    to be compiled again; the columns that are no longer used become 0.
    `compact` makes W smaller.

    If `kernel_regularizer` is a `RaReRegularizer`, the layer looks for the
    closest pairs of vectors only every `refresh` steps, and pulls together
    one pair after the other. Vectors that the layer cannot fuse (see
    `vectors`) are not pulled together.

    Args:
        units, activation, use_bias, ...: those of `keras.layers.Dense`.
        vectors: what can be fused: "units" (the layer has Q), "inputs" (it
            has P) or "both".
        rows, columns: the shape of W if it is not (inputs, units). The rank
            of the kernel P W Q is at most the smaller of the two.
        refresh: after how many steps RaRe looks for the closest pairs again.

    Attributes:
        kernel: W, shape (rows, columns).
        input_index, input_scale: P, each of shape (inputs,): the row of W that
            each input reads, and the factor of the input.
        unit_index, unit_scale: Q, each of shape (units,): the column of W that
            each unit takes, and the factor of the column.
        P, Q: the two as NumPy matrices, shapes (inputs, rows), (columns,
            units).
        sizes: the numbers of rows and columns of W in use.

    Raises:
        TypeError, ValueError: an argument is of a wrong type, out of range or
            unknown.

    Warns:
        UserWarning: the kernel has one input or one unit, so that its
            `RaReRegularizer` has no effect.

    Example:

        layer = kr.FactorizedDense(500, activation="relu")

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021), dynamic low-rank approximation.
    """

    def _mapped(self, x, kernel):
        # Rows are faster to add and to take than columns.
        shape = *ops.shape(x)[:-1], self.units
        x = ops.transpose(ops.reshape(x, (-1, x.shape[-1])))
        x = ops.matmul(ops.transpose(kernel), self._joined(x))
        return ops.reshape(ops.transpose(self._shared(x)), shape)


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FactorizedConv2D(Factorized, keras.layers.Conv2D):
    """`Conv2D` whose filters share those of a smaller convolution.

    As `FactorizedDense`, with channels in place of inputs: input channels are
    scaled and summed into the channels that W reads, and each filter takes one
    filter of W and scales it. A row of W holds all weights that read one input
    channel, at all places of the window; a column holds a filter.

    Args:
        filters, kernel_size, ...: those of `keras.layers.Conv2D`, with
            groups=1 and data_format="channels_last".
        vectors, rows, columns, refresh: those of `FactorizedDense`.

    Raises:
        TypeError, ValueError: an argument is of a wrong type, out of range or
            unknown, or asks for several groups or channels first.

    Source: as `FactorizedDense`; the paper describes dense layers alone.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not can_be_factorized(self):
            raise ValueError(
                f"FactorizedConv2D has groups={self.groups} and "
                f"data_format={self.data_format!r}, but filters of different "
                "groups read different channels, so that they cannot be "
                "shared, and channels have to be on the last axis. Use Conv2D, "
                'or groups=1 and data_format="channels_last".'
            )

    def _mapped(self, x, kernel):
        x = ops.moveaxis(x, -1, 0)
        x = ops.moveaxis(self._on_rows(self._joined, x), 0, -1)
        x = self.convolution_op(x, kernel)
        x = self._on_rows(self._shared, ops.moveaxis(x, -1, 0))
        return ops.moveaxis(x, 0, -1)

    def _on_rows(self, function, x):
        rows = function(ops.reshape(x, (x.shape[0], -1)))
        return ops.reshape(rows, (rows.shape[0], *ops.shape(x)[1:]))


# The stock class that each of these replaces.
STOCK_CLASSES = {
    FactorizedDense: keras.layers.Dense,
    FactorizedConv2D: keras.layers.Conv2D,
}


def factorized_layers(model) -> list:
    """The factorized layers of a model, at any depth."""
    return [x for x in _keras.flat_layers(model) if isinstance(x, Factorized)]


def can_be_factorized(layer) -> bool:
    """Whether a layer is a `Dense` or a `Conv2D` that W can be shared in."""
    if isinstance(layer, keras.layers.Conv2D):
        return layer.groups == 1 and layer.data_format == "channels_last"
    return isinstance(layer, keras.layers.Dense)


def _row_sums(x, index, size):
    """The sums of the rows of x that have the same index, shape (size, ...)."""
    if keras.backend.backend() != "torch":
        return ops.segment_sum(x, index, size)
    # There `segment_sum` waits for the device, computes in float32, and takes
    # a multiple of the time and memory.
    zeros = ops.zeros((size, x.shape[1]), x.dtype)
    return ops.scatter_update(zeros, ops.expand_dims(index, 1), x, "add")


def _column(scale):
    return ops.expand_dims(widened(scale), 1)
