"""The closest two vectors of a matrix, found and compared on the device."""

import keras
from keras import ops

from keras_redundancy.low_rank.fusion import SKETCH, random_signs

# How many of the closest pairs `closest_pairs` returns at most.
CANDIDATES = 8

# Vectors whose sum of squares is below this count as 0: float32 cannot hold
# the product of two smaller sums, nor its inverse.
LEAST_SQUARES = 1e-18


class Pair:
    """Two vectors of a matrix and the cosine of the angle between them.

    In float32 at least.

    Args:
        matrix: shape (rows, columns).
        pair: the numbers of the two vectors, shape (2,).
        axis: the axis along which vectors are counted: -1 for columns, -2 for
            rows.

    Attributes:
        is_valid: whether the two are different vectors and both have a
            direction, a boolean scalar.
        cosine: cos(a, b), a scalar; of no meaning where `is_valid` is false.
    """

    def __init__(self, matrix, pair, axis: int):
        self.pair, self.axis = pair, axis
        self.count, self.dtype = matrix.shape[axis], matrix.dtype
        vectors = ops.take(matrix, pair, axis=axis)
        if axis == -1:
            vectors = ops.transpose(vectors)
        vectors = _widened(vectors)
        a, b = vectors[0], vectors[1]
        # One sum over three products is faster than three sums.
        products = ops.sum(ops.stack([a * a, b * b, a * b]), axis=1)
        have_directions = ops.logical_and(
            _have_direction(products[0]), _have_direction(products[1])
        )
        self.is_valid = ops.logical_and(have_directions, pair[0] != pair[1])
        self.vectors = ops.where(self.is_valid, vectors, 0)
        products = ops.where(self.is_valid, products, 1)
        self.norms = ops.sqrt(products[:2])
        self.cosine = products[2] / (self.norms[0] * self.norms[1])

    def gradient(self, upstream):
        """The gradient of upstream * cos(a, b) by the matrix.

        With unit vectors u = a / |a| and v = b / |b| it is
        (v - cos u) / |a| for a, (u - cos v) / |b| for b, and 0 elsewhere.
        """
        u, v = ops.unstack(self.vectors / ops.expand_dims(self.norms, 1))
        factors = upstream / self.norms
        by_a = factors[0] * (v - self.cosine * u)
        by_b = factors[1] * (u - self.cosine * v)
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
        axis: the axis along which vectors are counted: -1 for columns, -2 for
            rows.
        signed: compare cos, so that opposite vectors are the farthest; else
            |cos|, so that they are as close as parallel ones.
        below: pairs with a cosine of at least this come last.
        exact: whether to compare all numbers of all pairs. Else `CANDIDATES`
            pairs are chosen by `SKETCH` random sums of each vector, and only
            these are compared by all numbers. Parallel vectors have parallel
            sums.

    Returns:
        min(`CANDIDATES`, vectors) pairs of vector numbers, int32, shape
        (pairs, 2), the closest one first. Each pair is the closest one of its
        first vector with any vector of a higher number. A matrix with a single
        vector gives that vector paired with itself.

    Source of the random sums: Charikar, Similarity Estimation Techniques from
    Rounding Algorithms (2002); Johnson and Lindenstrauss (1984).
    """
    matrix = _widened(matrix)
    size = matrix.shape[-3 - axis]
    is_sketched = not exact and size > SKETCH
    compared = _sketch(matrix, axis, size) if is_sketched else matrix
    pairs = _best_partners(_cosines(compared, axis, signed), below)
    if not is_sketched:
        return pairs
    cosines = _cosines_of_pairs(matrix, pairs, axis, signed)
    cosines = ops.where(cosines < below, cosines, -2)
    return ops.take(pairs, ops.argsort(-cosines), axis=0)


def _sketch(matrix, axis, size):
    """Random sums of the numbers of each vector, `SKETCH` for each."""
    signs = ops.convert_to_tensor(random_signs(size), matrix.dtype)
    if axis == -1:
        return ops.matmul(signs, matrix)
    return ops.matmul(matrix, ops.transpose(signs))


def _best_partners(cosines, below):
    """For the vectors with the highest cosines, the partner of each."""
    count = cosines.shape[0]
    numbers = ops.arange(count)
    is_pair = ops.expand_dims(numbers, 0) > ops.expand_dims(numbers, 1)
    is_pair = ops.logical_and(is_pair, cosines < below)
    cosines = ops.where(is_pair, cosines, -2)
    _, ones = ops.top_k(ops.max(cosines, axis=1), min(CANDIDATES, count))
    others = ops.argmax(ops.take(cosines, ones, axis=0), axis=1)
    ones, others = ops.cast(ones, "int32"), ops.cast(others, "int32")
    return ops.stack([ones, others], axis=1)


def _cosines_of_pairs(matrix, pairs, axis, signed):
    """cos or |cos| of each pair, shape (pairs,); -2 without a direction."""
    a, b = (ops.take(matrix, pairs[:, i], axis=axis) for i in (0, 1))
    squares = [ops.sum(x * x, axis=-3 - axis) for x in (a, b)]
    is_pair = ops.logical_and(*map(_have_direction, squares))
    product = ops.where(is_pair, squares[0] * squares[1], 0)
    cosines = ops.sum(a * b, axis=-3 - axis) * _inverse_root(product)
    if not signed:
        cosines = ops.abs(cosines)
    return ops.where(is_pair, cosines, -2)


def _cosines(matrix, axis, signed):
    """cos or |cos| of all pairs of vectors, shape (vectors, vectors).

    With a vector that has no direction (it is 0, or not finite) |cos| is 0
    and cos is -2.
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
    have_directions = ops.logical_and(is_vector, ops.transpose(is_vector))
    return ops.where(have_directions, cosines, -2)


def _have_direction(squares):
    """Whether vectors with these sums of squares are finite and not 0."""
    return ops.logical_and(squares > LEAST_SQUARES, ops.isfinite(squares))


def _inverse_root(squares):
    """1 / sqrt(x), and 0 where x is 0."""
    is_positive = squares > 0
    root = ops.rsqrt(ops.where(is_positive, squares, 1))
    return ops.where(is_positive, root, 0)


def _widened(x):
    """In float32 at least."""
    if keras.backend.standardize_dtype(x.dtype) == "float64":
        return x
    return ops.cast(x, "float32")
