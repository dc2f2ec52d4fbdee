"""Layers whose kernel is P W Q, with P and Q that only join."""

import keras
import numpy as np
from keras import ops

from keras_redundancy import _keras
from keras_redundancy._shared.arguments import check_count, check_option
from keras_redundancy.low_rank.fusion import Fusion, parallel_columns
from keras_redundancy.low_rank.rare import (
    CANDIDATES,
    SIDES,
    VECTORS,
    RaReRegularizer,
    as_loss,
    sides_of,
)

# What the number of rows and that of columns of W are called.
SIZES = {"input": "rows", "unit": "columns"}

# Of the constructor: what no other layer takes.
OWN_ARGUMENTS = ("vectors", "rows", "columns", "refresh")


class Factorized:
    """What `FactorizedDense` and `FactorizedConv2D` share.

    It stands before `Dense` or a convolution among the bases of a class.
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
                        f"{name} is the number of those that {side}s share, "
                        f"but vectors={vectors!r} leaves {side}s as they are. "
                        'Pass vectors="both".'
                    )
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
        if self.rare is not None:
            self._require_units_last()
        if self.drawn_sides:
            self._add_state()

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
        """The kernel has the sizes of W, and RaRe is added in `call`."""
        if kwargs.get("name") == "kernel":
            *rest, inputs, units = kwargs["shape"]
            shape = *rest, self.rows or inputs, self.columns or units
            # RaRe compares what is trained, not what a lower precision makes
            # of it: `call` casts it by itself.
            kwargs |= {"shape": shape, "autocast": False}
            if self.rare is not None:
                also = self.rare.also and self.rare.penalty_also
                kwargs["regularizer"] = also
        return super().add_weight(*args, **kwargs)

    def _add_factor(self, side, size):
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
            dtype=_wide(self.variable_dtype),
            initializer="ones",
            trainable=False,
            autocast=False,
        )
        setattr(self, f"{side}_index", index)
        setattr(self, f"{side}_scale", scale)

    def _add_state(self):
        """The closest pairs of each side, as found some steps ago."""
        # Every replica finds the same.
        state = {"trainable": False, "aggregation": "only_first_replica"}
        self.pairs = self.add_weight(
            name="pairs",
            shape=self._shape_of_pairs(),
            dtype="int32",
            initializer="zeros",
            **state,
        )
        self.age = self.add_weight(
            name="age", shape=(), dtype="int32", initializer="zeros", **state
        )
        self.share = self.add_weight(
            name="share",
            shape=(),
            dtype=_wide(self.variable_dtype),
            initializer="ones",
            autocast=False,
            **state,
        )

    def _shape_of_pairs(self):
        shape = self.kernel.shape
        counts = [shape[SIDES[side]] for side in self.drawn_sides]
        return len(counts), min(CANDIDATES, *counts), 2

    @property
    def state(self) -> list:
        """The variables that RaRe keeps."""
        return [self.pairs, self.age, self.share] if self.drawn_sides else []

    def call(self, inputs, training=None):
        kernel = ops.convert_to_tensor(self.kernel)
        if self.drawn_sides:
            self.add_loss(as_loss(self._penalty(kernel, training)))
        x = self._mapped(
            *(ops.cast(x, self.compute_dtype) for x in (inputs, kernel))
        )
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)

    def _mapped(self, x, kernel):
        """x P W Q, for the kernel W."""
        raise NotImplementedError

    def _joined(self, x):
        """Sums of what reads the same row of W: x^T and (x P)^T."""
        if "input" not in self.sides:
            return x
        size = self.kernel.shape[SIDES["input"]]
        # In float32 at least: a sum of many in bfloat16 is of a few digits.
        scaled = _widened(x) * _column(self.input_scale)
        rows = ops.segment_sum(scaled, self.input_index.value, size)
        return ops.cast(rows, x.dtype)

    def _shared(self, x):
        """The columns that units take: x^T and (x Q)^T."""
        if "unit" not in self.sides:
            return x
        # So is the gradient of what several units share such a sum.
        taken = ops.take(_widened(x), self.unit_index.value, axis=0)
        return ops.cast(taken * _column(self.unit_scale), x.dtype)

    def _penalty(self, kernel, training):
        """RaRe of the first pair of each side; in training, it goes on.

        Where that is parallel now, the next one takes its place in the step
        after. In every `refresh` steps the closest ones are looked for anew.
        """
        pairs = ops.convert_to_tensor(self.pairs.value)
        distances = ops.stack(
            [
                self.rare.distance(matrix, pairs[i, 0], axis)
                for i, (matrix, axis) in enumerate(self._matrices(kernel))
            ]
        )
        if training:
            are_done = self.rare.is_parallel(ops.stop_gradient(distances))
            are_done = ops.reshape(are_done, (-1, 1, 1))
            turned = ops.where(are_done, ops.roll(pairs, -1, axis=1), pairs)
            age = ops.convert_to_tensor(self.age.value)
            pairs = ops.cond(
                age == 0,
                lambda: self._closest(kernel),
                lambda: turned,
            )
            self.pairs.assign(pairs)
            self.age.assign((age + 1) % self.refresh)
        return self.rare.strength / 2 * self.share.value * ops.sum(distances)

    def _closest(self, kernel):
        count = self.pairs.shape[1]
        found = (self.rare.closest(*x)[:count] for x in self._matrices(kernel))
        return ops.stack(list(found))

    def _matrices(self, kernel):
        """For each side, a matrix and the axis along which vectors stand."""
        if len(kernel.shape) == 2:
            return [(kernel, SIDES[side]) for side in self.drawn_sides]
        return [(as_columns(kernel, side), -1) for side in self.drawn_sides]

    @property
    def P(self) -> np.ndarray:
        """Shape (inputs, rows of W)."""
        index, scale = self._factor("input")
        rows = np.eye(self.kernel.shape[SIDES["input"]])
        return rows[index] * scale[:, None]

    @property
    def Q(self) -> np.ndarray:
        """Shape (columns of W, units)."""
        index, scale = self._factor("unit")
        columns = np.eye(self.kernel.shape[SIDES["unit"]])
        return columns[:, index] * scale

    @property
    def sizes(self) -> tuple[int, int]:
        """How many rows and columns of W are used."""
        rows, columns = (self._factor(side)[0] for side in SIDES)
        return len(np.unique(rows)), len(np.unique(columns))

    @property
    def outer_sizes(self) -> tuple[int, int]:
        """How many inputs and units there are."""
        inputs, units = (self._factor(side)[0] for side in SIDES)
        return len(inputs), len(units)

    def weights_of(self, sizes: tuple[int, int]) -> int:
        """How many numbers a kernel of these sizes has."""
        return int(np.prod([*self.kernel.shape[:-2], *sizes]))

    def effective_kernel(self) -> np.ndarray:
        """P W Q: what a `Dense` layer or convolution would have."""
        kernel = _numpy(self.kernel)
        rows, row_scale = self._factor("input")
        columns, column_scale = self._factor("unit")
        kernel = kernel[..., rows, :][..., columns]
        return kernel * row_scale[:, None] * column_scale

    def fuse(self, side: str, kept: int, gone: int) -> Fusion:
        """Join two rows or two columns of W into one, in place.

        For parallel ones P W Q is what it was. For others, the one that is
        left is what is nearest to both, of those in their ratio.

        Args:
            side: "unit" for columns, "input" for rows.
            kept, gone: which of W. The second one is 0 after that.

        Returns:
            The `Fusion`, to do the same to an optimizer's slots.

        Raises:
            ValueError: `side` is unknown or not factorized, the two are the
                same, are not used, or the one that is kept is 0.
        """
        check_option("side", side, self.sides)
        index, _ = self._factor(side)
        for number in (kept, gone):
            if number not in index:
                raise ValueError(
                    f"No {side} of the layer {self.name!r} uses number "
                    f"{number} of {len(index)}, which was fused before or "
                    "never was. Those in use are in the layer's "
                    f"{side}_index."
                )
        columns = as_columns(_numpy(self.kernel), side)
        fusion = Fusion.of(columns, kept, gone)
        self._apply(side, [fusion])
        return fusion

    def fuse_parallel(
        self,
        tau_cos: float = 1e-4,
        tau_euc: float = 0.1,
        to_square: bool = True,
    ) -> list[tuple[str, Fusion]]:
        """Join all vectors of W that are parallel or opposite, in place.

        The closest go first.

        Args:
            tau_cos: two with 1 - |cos| below it are parallel, if also
            tau_euc: their distance, the shorter one scaled to the size of the
                longer, is below it, in units of the root mean square of the
                sizes of those in use.
            to_square: whether, of rows and columns, only the more numerous
                are joined, so that W tends to a square. Where one of them is
                not factorized, the others are joined in any case.

        Returns:
            What was joined: its side and the `Fusion`, in order.
        """
        kernel = ops.convert_to_numpy(self.kernel)
        waiting, sizes = {}, {}
        for side in self.sides:
            used = np.unique(self._factor(side)[0])
            sizes[side] = len(used)
            waiting[side] = parallel_columns(
                as_columns(kernel, side), used, tau_cos, tau_euc
            )
        done = []
        while any(waiting.values()):
            side = max(sizes, key=sizes.get)
            if not waiting[side]:
                if to_square:
                    break
                side = next(x for x in sizes if waiting[x])
            done.append((side, waiting[side].pop(0)))
            sizes[side] -= 1
        for side in self.sides:
            self._apply(side, [fusion for s, fusion in done if s == side])
        return done

    def _apply(self, side, fusions):
        if not fusions:
            return
        index, scale = self._factor(side)
        kernel = _numpy(self.kernel)
        for fusion in fusions:
            fusion.join(kernel, SIDES[side])
            shares = fusion.shares
            scale[index == fusion.gone] *= shares[0]
            scale[index == fusion.kept] *= shares[1]
            index[index == fusion.gone] = fusion.kept
        self.kernel.assign(kernel)
        getattr(self, f"{side}_index").assign(index)
        getattr(self, f"{side}_scale").assign(scale)

    def shrink(self, optimizer=None) -> bool:
        """Make W as small as what is in use of it, in place.

        The layer computes what it did. A model that was compiled with it has
        to compile its functions anew.

        Args:
            optimizer: one that trains it, whose slots are made smaller too.

        Returns:
            Whether it could be done: not for an optimizer with slots that are
            not of the shape of the kernel.
        """
        slots = [slot for slot, _ in _keras.slots(optimizer, self.kernel)]
        shape = tuple(self.kernel.shape)
        if any(tuple(slot.shape) != shape for slot in slots):
            return False
        variables = [self.kernel, *slots]
        arrays, indices = self.in_use(variables)
        for side, index in indices.items():
            getattr(self, f"{side}_index").assign(index)
            setattr(self, SIZES[side], arrays[0].shape[SIDES[side]])
        for variable, array in zip(variables, arrays, strict=True):
            _keras.resize(variable, array, optimizer)
        if self.drawn_sides:
            _keras.resize(self.pairs, np.zeros(self._shape_of_pairs()))
            self.age.assign(0)
        return True

    def in_use(self, variables) -> tuple[list, dict]:
        """What is in use of W, or of variables of its shape.

        Returns:
            For each variable an array of the rows and columns in use, and
            {side: for each input or unit the place of what it uses in them} of
            the sides that are factorized.
        """
        arrays = [np.array(ops.convert_to_numpy(x)) for x in variables]
        indices = {}
        for side in self.sides:
            used, indices[side] = np.unique(
                self._factor(side)[0], return_inverse=True
            )
            arrays = [np.take(x, used, axis=SIDES[side]) for x in arrays]
        return arrays, indices

    def save_own_variables(self, store):
        """As all layers do: their own way would leave out P and Q."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self):
        own = {name: getattr(self, name) for name in OWN_ARGUMENTS}
        return super().get_config() | own

    def _factor(self, side):
        """Index and scale of P or Q, as arrays of their own."""
        if side not in self.sides:
            size = self.kernel.shape[SIDES[side]]
            return np.arange(size), np.ones(size)
        index, scale = (
            getattr(self, f"{side}_{what}") for what in ("index", "scale")
        )
        return np.array(ops.convert_to_numpy(index)), _numpy(scale)


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FactorizedDense(Factorized, keras.layers.Dense):
    """`Dense` with the kernel P W Q: W is trained, P and Q are not.

    P has one number in each row and Q one in each column: input i is scaled
    and reads one row of W, and unit j takes one column of W and scales it. At
    first both are the identity, and it is a `Dense` layer. `fuse` joins two
    columns, or two rows, of W that are parallel: several units then share a
    column. Shapes stay, so that nothing is compiled anew: what is no more used
    of W is 0. `compact` makes the layers smaller.

    Of a `RaReRegularizer` given as `kernel_regularizer` the layer keeps the
    closest pairs, which are not looked for in each step. They are drawn
    together one after the other. Vectors that the layer cannot join are not
    drawn together.

    Args:
        units, activation, use_bias, ...: those of `keras.layers.Dense`.
        vectors: what can be joined: "units", "inputs", or "both".
        rows, columns: the size of W where it is not (inputs, units).
        refresh: the steps after which RaRe looks for the closest pairs again.

    Attributes:
        kernel: W, shape (rows, columns).
        input_index, input_scale: of P, shape (inputs,): the row of W that each
            input reads, and how much of it.
        unit_index, unit_scale: of Q, shape (units,): the column of W that each
            unit takes, and how much of it.

    Raises:
        TypeError, ValueError: an argument is of a wrong type, out of range or
            unknown.

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

    As `FactorizedDense`, of channels: input channels are scaled and summed
    into those that W reads, and each filter takes one of W and scales it. A
    row of W is all that reads one channel, at all places of the window.

    Args:
        filters, kernel_size, ...: those of `keras.layers.Conv2D`, of one
            group and with channels last.
        vectors, rows, columns, refresh: those of `FactorizedDense`.

    Raises:
        TypeError, ValueError: an argument is of a wrong type, out of range or
            unknown, or not of those that can be factorized.

    Source: as `FactorizedDense`, which has it for dense layers alone.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not can_be_factorized(self):
            raise ValueError(
                f"FactorizedConv2D has groups={self.groups} and "
                f"data_format={self.data_format!r}, but filters of several "
                "groups read no common channels, and channels have to stand "
                'last. Use Conv2D, or groups=1 and "channels_last".'
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


# The classes that these take the place of.
STOCK_CLASSES = {
    FactorizedDense: keras.layers.Dense,
    FactorizedConv2D: keras.layers.Conv2D,
}


def share_out(layers: list) -> None:
    """RaRe weighs each factorized layer by its present size: m'n' / c."""
    layers = [layer for layer in layers if layer.drawn_sides]
    before = np.array([x.weights_of(x.outer_sizes) for x in layers])
    now = np.array([x.weights_of(x.sizes) for x in layers])
    shares = (now / now.sum()) / (before / before.sum())
    for layer, share in zip(layers, shares, strict=True):
        layer.share.assign(share)


def can_be_factorized(layer) -> bool:
    """Whether it is of a kind that has a factorized form."""
    if isinstance(layer, keras.layers.Conv2D):
        return layer.groups == 1 and layer.data_format == "channels_last"
    return isinstance(layer, keras.layers.Dense)


def as_columns(kernel, side: str):
    """A matrix with a column for each unit, or for each input."""
    axis = SIDES[side]
    if isinstance(kernel, np.ndarray):
        return np.moveaxis(kernel, axis, -1).reshape(-1, kernel.shape[axis])
    kernel = ops.moveaxis(kernel, axis, -1)
    return ops.reshape(kernel, (-1, kernel.shape[-1]))


def _wide(dtype):
    """The dtype that holds sums and factors: float32, or float64."""
    return keras.backend.result_type(dtype, "float32")


def _widened(x):
    return ops.cast(x, _wide(x.dtype))


def _column(scale):
    return ops.expand_dims(ops.cast(scale, _wide(scale.dtype)), 1)


def _numpy(variable):
    return np.array(ops.convert_to_numpy(variable), np.float64)
