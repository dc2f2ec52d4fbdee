"""A regularizer that makes the vectors of a kernel parallel in training."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_redundancy._shared import arguments
from keras_redundancy._shared.precision import as_loss
from keras_redundancy._shared.warn import warn
from keras_redundancy.building.stock import register_check
from keras_redundancy.low_rank.pairs import Pair, closest_pairs
from keras_redundancy.low_rank.sides import SIDES, VECTORS, sides_of
from keras_redundancy.low_rank.units_axes import (
    penalized_units,
    rare_kernel,
    windows_kernel,
)

MEASURES = ("squared_sine", "squared_distance")

OTHER_AXES = (
    "The {argument} of {name!r} ({kind}) is a RaReRegularizer with "
    "units_axis={given!r}, but the units of this layer are on other axes of "
    "the kernel: other vectors than filters become parallel in training, and "
    "no unit becomes redundant. Leave units_axis out: "
    "kr.RaReRegularizer({strength})."
)


@keras.saving.register_keras_serializable(package="keras_redundancy")
class RaReRegularizer(keras.regularizers.Regularizer):
    """Redundancy in the rank: pulls the closest two vectors closer together.

    A kernel is read as a matrix of shape (inputs, units): a column holds the
    weights of one unit, a row the weights that read one input. With a, b the
    two columns, and c, d the two rows, that are nearest to parallel or
    opposite, the penalty is

        strength / 2 * (1 - cos(a, b)^2 + 1 - cos(c, d)^2)

    so that only these four vectors get a gradient. Pairs that are parallel
    already are passed over. Parallel vectors can be fused without changing
    what the layer computes (see `factorize`): the rank of the kernel has
    fallen.

    Use it as `kernel_regularizer` of `Dense`, `EinsumDense` and convolutions,
    transposed ones included, where each place of the window counts as an
    input of its own. As `depthwise_regularizer` it compares the windows of
    all channels; no row of such a kernel belongs to one input, so rows are
    not compared there.

    Args:
        strength: at least 0. `apply_rare` divides one strength among all
            layers.
        measure: "squared_sine", 1 - cos^2, as in the text of the paper; or
            "squared_distance", (1 - cos)^2, as its formula is printed, which
            does not pull opposite vectors together.
        vectors: "units" compares columns, "inputs" rows, "both" both.
        tau_cos: vectors with 1 - |cos| below this count as parallel.
        exact: whether to compare all numbers of all pairs in each step. By
            default pairs are chosen by random sums of the vectors' numbers,
            the same sums in every step, and the best few are compared by all
            numbers. That finds parallel vectors as surely, in a fraction of
            the time.
        also: another regularizer whose penalty is added, since a kernel can
            have only one: an object, an identifier such as "l2", or None.
        units_axis: the axis of the kernel that holds the units, or a list of
            axes whose combinations are the units. By default the axes are
            those of the layer that Keras asks for the penalty: -1 for `Dense`
            and convolutions, -2 for transposed convolutions, [-2, -1] for
            depthwise kernels (..., channels, multiplier), and the axes that
            kernel and output share for `EinsumDense`. They are -1 for layers
            of other kinds, and where the regularizer is called by hand.

    Raises:
        TypeError, ValueError: an argument is of a wrong type, out of range or
            unknown; or, when it is called, the kernel does not have the axes
            `units_axis`, or has no other axis.

    Warns:
        UserWarning: the first time it is called with a kernel of a shape that
            has a single unit or a single input, where no angle can change, or
            with vectors="inputs" for a depthwise kernel. `prune`, `strip` and
            the callbacks warn where `units_axis` is not that of the layer.

    Example:

        keras.layers.Dense(500, kernel_regularizer=kr.RaReRegularizer(5.0))
        keras.layers.DepthwiseConv2D(
            3, depthwise_regularizer=kr.RaReRegularizer(5.0)
        )

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability, Appl. Sci. 11:725 (2021), L_RaRe.
    """

    def __init__(
        self,
        strength: float,
        measure: str = "squared_sine",
        vectors: str = "both",
        tau_cos: float = 1e-4,
        exact: bool = False,
        also=None,
        units_axis: int | Sequence[int] | None = None,
    ):
        self.strength = arguments.check_finite("strength", strength)
        self.tau_cos = arguments.check_fraction(
            "tau_cos",
            tau_cos,
            "the 1 - |cos| below which vectors count as parallel, so that "
            "none are pulled together at 1",
            zero=True,
            example=1e-4,
        )
        arguments.check_option("measure", measure, MEASURES)
        arguments.check_option("vectors", vectors, VECTORS)
        self.measure, self.vectors, self.exact = measure, vectors, bool(exact)
        self.also = keras.regularizers.get(also)
        if units_axis is not None:
            units_axis = arguments.check_axes("units_axis", units_axis)
        self.units_axis = units_axis
        self._shapes_warned_of = set()

    def __call__(self, x):
        axes, sides = self.units_axis, sides_of(self.vectors)
        if axes is None:
            axes, known = penalized_units(x)
            sides = [side for side in sides if side in known]
        matrix = as_matrix(x, axes)
        if 1 in matrix.shape or not sides:
            self.warn_of_no_effect(tuple(x.shape), axes)
        distances = (
            self.distance(matrix, self.closest(matrix, axis)[0], axis)
            for axis in (SIDES[side] for side in sides)
        )
        penalty = as_loss(self.strength / 2 * sum(distances))
        return penalty if self.also is None else penalty + self.penalty_also(x)

    def penalty_also(self, x):
        """The penalty of the regularizer `also` alone."""
        return as_loss(self.also(x))

    def warn_of_no_effect(self, shape: tuple, units_axis=-1) -> None:
        """Warn, once for each shape, of a kernel that gets no gradient.

        With a single vector on a side there is no pair, and vectors of a
        single number are all parallel.
        """
        if not self.strength or shape in self._shapes_warned_of:
            return
        self._shapes_warned_of.add(shape)
        remedy, last = "Leave", len(shape) - 1
        is_last = self.units_axis is not None and _axes(
            self.units_axis, len(shape)
        ) == {last}
        if is_last and last > 1 and shape[-1] == 1:
            remedy = (
                "If it is the kernel (..., channels, multiplier) of a "
                "depthwise convolution, leave units_axis out to compare its "
                "channels; otherwise leave"
            )
        warn(
            f"RaReRegularizer has no effect on a kernel of shape {shape} with "
            f"units_axis={units_axis!r} and vectors={self.vectors!r}: it has a "
            "single unit or a single input, or no row of it belongs to one "
            "input, so there are no two vectors whose angle could change. "
            f"{remedy} the regularizer out for this layer, as apply_rare does.",
        )

    def closest(self, matrix, axis: int = -1):
        """The vectors of a matrix to pull together.

        Args:
            matrix: shape (inputs, units).
            axis: the axis along which vectors are counted: -1 for columns, -2
                for rows.

        Returns:
            Pairs of vector numbers, int32, shape (pairs, 2), the closest pair
            first, as `closest_pairs` returns them.
        """
        return closest_pairs(
            ops.stop_gradient(matrix),
            axis,
            self.measure == "squared_distance",
            1 - self.tau_cos,
            self.exact,
        )

    def distance(self, matrix, pair, axis: int = -1):
        """How far two vectors of a matrix are from parallel, by `measure`.

        The gradient is computed by hand: only the two vectors get one, and no
        gather is differentiated, because its transpose, a scatter, takes as
        long as the rest of a training step.

        Args:
            matrix: shape (inputs, units).
            pair: two vector numbers, shape (2,).
            axis: the axis along which vectors are counted: -1 for columns, -2
                for rows.

        Returns:
            A scalar, float32 or float64: 0 if both numbers are the same, or if
            a vector is 0 or not finite and so has no direction.
        """

        @ops.custom_gradient
        def measured(matrix):
            # XLA does not fuse a sort with the operations behind it. Without
            # the sort it would look up the pair again for each number of the
            # gradient.
            found = Pair(matrix, ops.sort(pair), axis)

            def gradient(*args, upstream=None):
                (upstream,) = args if upstream is None else (upstream,)
                return found.gradient(upstream * self._slope(found.cosine))

            distance = self._distance(found.cosine)
            return ops.where(found.is_valid, distance, 0), gradient

        # TensorFlow refuses a custom gradient by a variable; a product with 1
        # is a tensor.
        return measured(matrix * 1)

    def _distance(self, cosine):
        if self.measure == "squared_distance":
            return ops.square(1 - cosine)
        return 1 - ops.square(cosine)

    def _slope(self, cosine):
        """The derivative of `_distance` by the cosine."""
        if self.measure == "squared_distance":
            return -2 * (1 - cosine)
        return -2 * cosine

    def is_parallel(self, distance):
        """Whether two vectors at this `distance` count as parallel.

        A distance of 0 counts, so it is true as well for a pair that is not
        valid: there is nothing to pull together.
        """
        if self.measure == "squared_distance":
            limit = self.tau_cos**2
        else:
            limit = 1 - (1 - self.tau_cos) ** 2
        return distance < limit

    def get_config(self):
        return {
            "strength": self.strength,
            "measure": self.measure,
            "vectors": self.vectors,
            "tau_cos": self.tau_cos,
            "exact": self.exact,
            "also": keras.regularizers.serialize(self.also),
            "units_axis": self.units_axis,
        }


def as_matrix(kernel, units_axis: int | Sequence[int]):
    """A kernel as a matrix of shape (inputs, units).

    Raises:
        ValueError: the kernel does not have the axes `units_axis`, or has no
            other axis.
    """
    rank, shape = len(kernel.shape), tuple(kernel.shape)
    if rank < 2:
        raise ValueError(
            "RaRe compares the columns and rows of a kernel, but received a "
            f"tensor of shape {shape}. Use it as kernel_regularizer=, not for "
            "a bias."
        )
    axes = np.atleast_1d(units_axis)
    of_units = [int(axis) % rank for axis in axes]
    is_out = any(not -rank <= axis < rank for axis in axes)
    if is_out or len({*of_units}) < len(of_units) or len(axes) == rank:
        raise ValueError(
            f"units_axis={units_axis!r} does not fit a kernel of shape "
            f"{shape}: it has to name axes of the kernel, none of them twice, "
            "and leave one for the inputs."
        )
    of_inputs = [axis for axis in range(rank) if axis not in of_units]
    order = [*of_inputs, *of_units]
    if order != list(range(rank)):
        kernel = ops.transpose(kernel, order)
    units = math.prod(shape[axis] for axis in of_units)
    return ops.reshape(kernel, (-1, units))


@register_check
def other_units_axis(layer) -> str | None:
    """What to write where RaRe was given wrong axes of units, else None."""
    places = rare_kernel(layer), windows_kernel(layer)
    for name, argument, axes in filter(None, places):
        rare = getattr(layer, argument, None)
        if not isinstance(rare, RaReRegularizer) or not rare.strength:
            continue
        if rare.units_axis is None:
            continue
        rank = len(getattr(layer, name).shape)
        if _axes(axes, rank) != _axes(rare.units_axis, rank):
            return OTHER_AXES.format(
                argument=argument,
                name=layer.name,
                kind=type(layer).__name__,
                given=rare.units_axis,
                strength=rare.strength,
            )
    return None


def _axes(axes, rank):
    return {int(axis) % rank for axis in np.atleast_1d(axes)}
