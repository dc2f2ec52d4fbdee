"""A `Dense` layer whose kernel is P W Q, with P and Q that only join."""

import keras
import numpy as np
from keras import ops

from keras_redundancy.fusion import Fusion
from keras_redundancy.options import check_option

# The axes of a kernel.
SIDES = ("input", "unit")


@keras.saving.register_keras_serializable(package="keras_redundancy")
class FactorizedDense(keras.layers.Dense):
    """`Dense` with the kernel P W Q: W is trained, P and Q are not.

    P has one number in each row and Q one in each column: input i is scaled
    and reads one row of W, and unit j takes one column of W and scales it. At
    first both are the identity, and it is a `Dense` layer. `fuse` joins two
    columns, or two rows, of W that are parallel: several units then share a
    column. Shapes stay, so that nothing is compiled anew: what is no more used
    of W is 0.

    Args:
        units, activation, use_bias, ...: those of `keras.layers.Dense`.

    Attributes:
        kernel: W, shape (inputs, units).
        input_index, input_scale: of P, shape (inputs,): the row of W that each
            input reads, and how much of it.
        unit_index, unit_scale: of Q, shape (units,): the column of W that each
            unit takes, and how much of it.

    Example:

        layer = kr.FactorizedDense(500, activation="relu")

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021), dynamic low-rank approximation.
    """

    def build(self, input_shape):
        super().build(input_shape)
        for side, size in zip(SIDES, self.kernel.shape, strict=True):
            index = self.add_weight(
                name=f"{side}_index",
                shape=(size,),
                dtype="int32",
                initializer=lambda shape, dtype=None: ops.arange(
                    shape[0], dtype=dtype
                ),
                trainable=False,
            )
            scale = self.add_weight(
                name=f"{side}_scale",
                shape=(size,),
                initializer="ones",
                trainable=False,
            )
            setattr(self, f"{side}_index", index)
            setattr(self, f"{side}_scale", scale)

    def call(self, inputs, training=None):
        x = self._joined(inputs * self.input_scale)
        x = ops.matmul(x, self.kernel)
        x = ops.take(x, self.unit_index.value, axis=-1) * self.unit_scale
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)

    def _joined(self, x):
        """Sums of what reads the same row of W, in its place."""
        size = x.shape[-1]
        rows = ops.transpose(ops.reshape(x, (-1, size)))
        rows = ops.segment_sum(rows, self.input_index.value, size)
        return ops.reshape(ops.transpose(rows), ops.shape(x))

    @property
    def P(self) -> np.ndarray:
        """Shape (inputs, inputs)."""
        index, scale = self._factor("input")
        return np.eye(len(index))[index] * scale[:, None]

    @property
    def Q(self) -> np.ndarray:
        """Shape (units, units)."""
        index, scale = self._factor("unit")
        return np.eye(len(index))[:, index] * scale

    @property
    def sizes(self) -> tuple[int, int]:
        """How many rows and columns of W are used."""
        rows, columns = (self._factor(side)[0] for side in SIDES)
        return len(np.unique(rows)), len(np.unique(columns))

    def effective_kernel(self) -> np.ndarray:
        """P W Q, shape (inputs, units): what a `Dense` layer would have."""
        rows, row_scale = self._factor("input")
        columns, column_scale = self._factor("unit")
        kernel = _numpy(self.kernel)[np.ix_(rows, columns)]
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
            ValueError: `side` is unknown, the two are the same, are not used,
                or the one that is kept is 0.
        """
        check_option("side", side, SIDES)
        index, scale = self._factor(side)
        for number in (kept, gone):
            if number not in index:
                raise ValueError(
                    f"No {side} of the layer {self.name!r} uses number "
                    f"{number} of {len(index)}, which was fused before or "
                    "never was. Those in use are in the layer's "
                    f"{side}_index."
                )
        axis = SIDES.index(side)
        kernel = _numpy(self.kernel)
        fusion = Fusion.of(np.moveaxis(kernel, axis, -1), kept, gone)
        self.kernel.assign(fusion.joined(kernel, axis))
        shares = fusion.shares
        scale[index == gone] *= shares[0]
        scale[index == kept] *= shares[1]
        index[index == gone] = kept
        getattr(self, f"{side}_index").assign(index)
        getattr(self, f"{side}_scale").assign(scale)
        return fusion

    def save_own_variables(self, store):
        """As all layers do: `Dense` would leave out P and Q."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)

    def _factor(self, side):
        """Index and scale of P or Q, as arrays of their own."""
        index, scale = (
            getattr(self, f"{side}_{what}") for what in ("index", "scale")
        )
        return np.array(ops.convert_to_numpy(index)), _numpy(scale)


def _numpy(variable):
    return np.array(ops.convert_to_numpy(variable), np.float64)
