"""Regularizers that make a kernel redundant while it is trained."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_redundancy._shared.arguments import (
    check_axes,
    check_finite,
    check_option,
)
from keras_redundancy.low_rank.fusion import SKETCH, random_signs

MEASURES = ("squared_sine", "squared_distance")
VECTORS = ("both", "units", "inputs")

# What a vector of a kernel is of, and the axis along which they stand.
SIDES = {"input": -2, "unit": -1}

# So many of the closest pairs are kept.
CANDIDATES = 8

# Vectors with a sum of squares below it count as 0. The product of two such
# sums is no number of float32 any more, nor is what is divided by it.
LEAST_SQUARES = 1e-18


@keras.saving.register_keras_serializable(package="keras_redundancy")
class RaReRegularizer(keras.regularizers.Regularizer):
    """Redundancy in the rank: draws the closest two vectors of a kernel closer.

    A kernel is a matrix: a column for each unit, of the weights that make it,
    and a row for each input, of the weights that read it. Of the columns, and
    of the rows, the two that are nearest to parallel or opposite are found,
    and only these are drawn together. What has become parallel can be fused
    without a change of what the layer computes: the rank has fallen. The
    penalty is

        strength / 2 * (1 - cos(columns)^2 + 1 - cos(rows)^2)

    It is a `kernel_regularizer` of `Dense` and of convolutions, whose inputs
    are those at all places of the window. A regularizer is given the kernel
    and nothing of its layer, so it has to be told where the units are if they
    are not on the last axis: see `units_axis`. `apply_rare` tells it.

    Args:
        strength: at least 0. `apply_rare` shares one out among all layers.
        measure: "squared_sine", 1 - cos^2, as the text of the paper has it; or
            "squared_distance", (1 - cos)^2, as its formula is printed, which
            draws no opposite vectors together.
        vectors: "units" for columns alone, "inputs" for rows alone, or "both".
        tau_cos: vectors with 1 - |cos| below this count as parallel.
        exact: whether to compare all numbers of all pairs in each step. By
            default random sums of them are compared, the same ones in every
            step, then the best few pairs by all numbers: vectors that are
            parallel are found as surely, at a fraction of the time.
        also: another regularizer, whose penalty is added; an identifier of
            one, such as "l2"; or None. A kernel can have but one.
        units_axis: the axis of the kernel on which the units are, or a list
            of several whose combinations are the units. -1 is right for
            `Dense`, for convolutions, and for the pointwise kernel of a
            `SeparableConv2D`; -2 for transposed convolutions, whose kernels
            are (..., units, inputs). The kernel of a `DepthwiseConv2D` is
            (..., channels, multiplier): with [-2, -1] and vectors="units" the
            windows of all its channels are compared.

    Raises:
        TypeError, ValueError: an argument is of a wrong type, out of range or
            unknown; when it is called, the tensor has no such axes, or none
            beside them.

    Example:

        keras.layers.Dense(500, kernel_regularizer=kr.RaReRegularizer(5.0))
        keras.layers.Conv2DTranspose(
            32, 3, kernel_regularizer=kr.RaReRegularizer(5.0, units_axis=-2)
        )

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021).
    """

    def __init__(
        self,
        strength: float,
        measure: str = "squared_sine",
        vectors: str = "both",
        tau_cos: float = 1e-4,
        exact: bool = False,
        also=None,
        units_axis: int | Sequence[int] = -1,
    ):
        self.strength = check_finite("strength", strength)
        self.tau_cos = check_finite("tau_cos", tau_cos)
        if self.tau_cos >= 1:
            raise ValueError(
                f"tau_cos={tau_cos!r} counts all vectors as parallel, so that "
                "none are drawn together. Pass a number in [0, 1), e.g. 1e-4."
            )
        check_option("measure", measure, MEASURES)
        check_option("vectors", vectors, VECTORS)
        self.measure, self.vectors, self.exact = measure, vectors, bool(exact)
        self.also = keras.regularizers.get(also)
        self.units_axis = check_axes("units_axis", units_axis)

    def __call__(self, x):
        matrix = self.as_matrix(x)
        distances = (
            self.distance(matrix, self.closest(matrix, axis)[0], axis)
            for axis in (SIDES[side] for side in sides_of(self.vectors))
        )
        penalty = as_loss(self.strength / 2 * sum(distances))
        return penalty if self.also is None else penalty + self.penalty_also(x)

    def penalty_also(self, x):
        """The penalty of the regularizer `also` by itself."""
        return as_loss(self.also(x))

    def as_matrix(self, kernel):
        """A kernel as a matrix of shape (inputs, units).

        Raises:
            ValueError: it has not all of `units_axis`, or no axis beside them.
        """
        rank, shape = len(kernel.shape), tuple(kernel.shape)
        if rank < 2:
            raise ValueError(
                "RaRe compares the columns and rows of a kernel, but received "
                f"a tensor of shape {shape}. Use it as kernel_regularizer=, "
                "not for a bias."
            )
        axes = np.atleast_1d(self.units_axis)
        of_units = [int(axis) % rank for axis in axes]
        is_out = any(not -rank <= axis < rank for axis in axes)
        if is_out or len({*of_units}) < len(of_units) or len(axes) == rank:
            raise ValueError(
                f"units_axis={self.units_axis!r} does not fit a kernel of "
                f"shape {shape}: it has to name axes of the kernel, none of "
                "them twice, and leave one for the inputs."
            )
        of_inputs = [axis for axis in range(rank) if axis not in of_units]
        order = [*of_inputs, *of_units]
        if order != list(range(rank)):
            kernel = ops.transpose(kernel, order)
        units = math.prod(shape[axis] for axis in of_units)
        return ops.reshape(kernel, (-1, units))

    def closest(self, matrix, axis: int = -1):
        """The vectors of a matrix to draw together.

        Args:
            matrix: shape (inputs, units).
            axis: that along which they stand: -1 for columns, -2 for rows.

        Returns:
            Pairs of their numbers, the first one the closest, int32, shape
            (pairs, 2); as `closest_pairs`.
        """
        return closest_pairs(
            ops.stop_gradient(matrix),
            axis,
            self.measure == "squared_distance",
            1 - self.tau_cos,
            self.exact,
        )

    def distance(self, matrix, pair, axis: int = -1):
        """How far two vectors of a matrix are from parallel.

        The gradient is that of these vectors alone. No gather is in it: its
        transpose, a scatter, would take as long as all of a training step.

        Args:
            matrix: shape (inputs, units).
            pair: their numbers, shape (2,).
            axis: that along which they stand: -1 for columns, -2 for rows.

        Returns:
            A scalar, float32 or float64. It is 0 where they are the same one,
            or one has no direction: it is 0 or not finite.
        """

        @ops.custom_gradient
        def measured(matrix):
            # XLA joins no sort with what comes after it. Else it would look up
            # the pair again for each number of the gradient.
            found = _Pair(matrix, ops.sort(pair), axis)

            def gradient(*args, upstream=None):
                (upstream,) = args if upstream is None else (upstream,)
                return found.gradient(upstream * self._slope(found))

            return self._distance(found), gradient

        # Times 1: what was read of a variable counts as one in TensorFlow.
        return measured(matrix * 1)

    def _distance(self, pair):
        if self.measure == "squared_distance":
            distance = ops.square(1 - pair.cosine)
        else:
            distance = 1 - ops.square(pair.cosine)
        return ops.where(pair.is_one, distance, 0)

    def _slope(self, pair):
        """The derivative of the distance by the cosine."""
        if self.measure == "squared_distance":
            return -2 * (1 - pair.cosine)
        return -2 * pair.cosine

    def is_parallel(self, distance):
        """Whether that is the `distance` of two that count as parallel.

        So does that of what is no pair of two with directions, which is 0:
        there is nothing to draw together.
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


def sides_of(vectors: str) -> list[str]:
    """Those of `SIDES` that "both", "units" or "inputs" means."""
    return [side for side in SIDES if vectors in ("both", f"{side}s")]


def as_loss(penalty):
    """In the dtype of losses: Keras does not add up several dtypes.

    A layer may have another one than `keras.config.floatx()`, which losses
    have.
    """
    return ops.cast(penalty, keras.config.floatx())


class _Pair:
    """Two vectors of a matrix, and the cosine of the angle between them.

    Attributes:
        is_one: whether they are two and have directions.
        cosine: between them.
    """

    def __init__(self, matrix, pair, axis):
        self.pair, self.axis = pair, axis
        self.count, self.dtype = matrix.shape[axis], matrix.dtype
        vectors = ops.take(matrix, pair, axis=axis)
        if axis == -1:
            vectors = ops.transpose(vectors)
        if keras.backend.standardize_dtype(matrix.dtype) != "float64":
            vectors = ops.cast(vectors, "float32")
        a, b = vectors[0], vectors[1]
        # All at once, which is faster than one after the other.
        products = ops.sum(ops.stack([a * a, b * b, a * b]), axis=1)
        is_one = ops.logical_and(
            _have_direction(products[0]), _have_direction(products[1])
        )
        self.is_one = ops.logical_and(is_one, pair[0] != pair[1])
        self.vectors = ops.where(self.is_one, vectors, 0)
        products = ops.where(self.is_one, products, 1)
        self.sizes = ops.sqrt(products[:2])
        self.cosine = products[2] / (self.sizes[0] * self.sizes[1])

    def gradient(self, upstream):
        """Of the cosine, times a number: a matrix."""
        sizes = ops.expand_dims(self.sizes, 1)
        a, b = ops.unstack(self.vectors / sizes)
        slopes = upstream / self.sizes
        by_a = slopes[0] * (b - self.cosine * a)
        by_b = slopes[1] * (a - self.cosine * b)
        numbers = ops.arange(self.count, dtype="int32")
        numbers = ops.expand_dims(numbers, -3 - self.axis)
        rest = ops.where(
            numbers == self.pair[1], ops.expand_dims(by_b, self.axis), 0
        )
        gradient = ops.where(
            numbers == self.pair[0], ops.expand_dims(by_a, self.axis), rest
        )
        return ops.cast(gradient, self.dtype)


def closest_pairs(
    matrix,
    axis: int = -1,
    signed: bool = False,
    below: float = 2.0,
    exact: bool = True,
):
    """The columns, or the rows, of a matrix that are nearest to parallel.

    Args:
        matrix: shape (rows, columns), on the device.
        axis: that along which the vectors stand: -1 for columns, -2 for rows.
        signed: whether opposite vectors are the farthest; else they are as
            close as parallel ones.
        below: pairs with a cosine of at least this are passed over.
        exact: whether to compare all numbers of all pairs. Else pairs are
            found by `SKETCH` random sums, and only put in order by all
            numbers. Parallel vectors have parallel sums.

    Returns:
        `CANDIDATES` pairs of two numbers, or as many as there are vectors,
        int32, shape (pairs, 2). The closest one comes first; of the others,
        each is the closest of one vector to those after it. One vector alone
        is paired with itself, and what is passed over comes last.

    Source of the random sums: Charikar, Similarity Estimation Techniques from
    Rounding Algorithms (2002); Johnson and Lindenstrauss (1984).
    """
    if keras.backend.standardize_dtype(matrix.dtype) != "float64":
        matrix = ops.cast(matrix, "float32")
    other_axis = -3 - axis
    size, count = matrix.shape[other_axis], matrix.shape[axis]
    is_sketch = not exact and size > SKETCH
    compared = matrix
    if is_sketch:
        signs = ops.convert_to_tensor(random_signs(size), matrix.dtype)
        if axis == -1:
            compared = ops.matmul(signs, matrix)
        else:
            compared = ops.matmul(matrix, ops.transpose(signs))
    cosines = _cosines(compared, axis, signed)
    numbers = ops.arange(count)
    is_pair = ops.expand_dims(numbers, 0) > ops.expand_dims(numbers, 1)
    is_pair = ops.logical_and(is_pair, cosines < below)
    cosines = ops.where(is_pair, cosines, -2)
    _, ones = ops.top_k(ops.max(cosines, axis=1), min(CANDIDATES, count))
    others = ops.argmax(ops.take(cosines, ones, axis=0), axis=1)
    ones, others = ops.cast(ones, "int32"), ops.cast(others, "int32")
    pairs = ops.stack([ones, others], axis=1)
    if not is_sketch:
        return pairs
    a, b = (ops.take(matrix, x, axis=axis) for x in (ones, others))
    squares = [ops.sum(x * x, axis=other_axis) for x in (a, b)]
    is_pair = ops.logical_and(*map(_have_direction, squares))
    sizes = ops.where(is_pair, squares[0] * squares[1], 0)
    cosines = ops.sum(a * b, axis=other_axis) * _inverse_root(sizes)
    if not signed:
        cosines = ops.abs(cosines)
    is_pair = ops.logical_and(is_pair, cosines < below)
    cosines = ops.where(is_pair, cosines, -2)
    return ops.take(pairs, ops.argsort(-cosines), axis=0)


def _cosines(matrix, axis, signed):
    """Of all pairs of vectors, shape (vectors, vectors).

    It is 0, or -2 if `signed`, with one that has no direction: that is 0, or
    holds what is not finite.
    """
    squares = ops.sum(ops.square(matrix), axis=-3 - axis, keepdims=True)
    is_vector = _have_direction(squares)
    root = _inverse_root(ops.where(is_vector, squares, 0))
    units = ops.where(is_vector, matrix * root, 0)
    is_vector = ops.reshape(is_vector, (-1, 1))
    turned = ops.transpose(units)
    factors = (turned, units) if axis == -1 else (units, turned)
    cosines = ops.matmul(*factors)
    if not signed:
        return ops.abs(cosines)
    # One without a direction is no one's nearest.
    have_directions = ops.logical_and(is_vector, ops.transpose(is_vector))
    return ops.where(have_directions, cosines, -2)


def _have_direction(squares):
    """Whether vectors with these sums of squares are not 0, and finite."""
    return ops.logical_and(squares > LEAST_SQUARES, ops.isfinite(squares))


def _inverse_root(squares):
    """1 / sqrt(x), and 0 where x is 0."""
    is_some = squares > 0
    return ops.where(is_some, ops.rsqrt(ops.where(is_some, squares, 1)), 0)
