"""Regularizers that make a kernel redundant while it is trained."""

import keras
from keras import ops

from keras_redundancy.fusion import SKETCH, random_signs
from keras_redundancy.options import check_finite, check_option

MEASURES = ("squared_sine", "squared_distance")
VECTORS = ("both", "units", "inputs")

# So many of the pairs that seem closest by random sums are compared by all
# their numbers.
CANDIDATES = 8


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
    are those at all places of the window.

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

    Raises:
        TypeError, ValueError: an argument is of a wrong type, out of range or
            unknown.

    Example:

        keras.layers.Dense(500, kernel_regularizer=kr.RaReRegularizer(5.0))

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

    def __call__(self, x):
        if len(x.shape) < 2:
            raise ValueError(
                "RaRe compares the columns and rows of a kernel, but received "
                f"a tensor of shape {tuple(x.shape)}. Use it as "
                "kernel_regularizer=, not for a bias."
            )
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        if keras.backend.standardize_dtype(x.dtype) != "float64":
            matrix = ops.cast(matrix, "float32")
        penalty = ops.zeros((), matrix.dtype)
        if self.vectors != "inputs":
            penalty += self._penalty(matrix, -1)
        if self.vectors != "units":
            penalty += self._penalty(matrix, -2)
        penalty = ops.cast(self.strength / 2 * penalty, x.dtype)
        return penalty if self.also is None else penalty + self.also(x)

    def _penalty(self, matrix, axis):
        columns = matrix if axis == -1 else ops.transpose(matrix)
        pair = self.closest(columns)
        return self.distance(vectors_of(matrix, pair, axis), pair)

    def closest(self, matrix):
        """The two columns of a matrix to draw together, int32, shape (2,)."""
        return closest_columns(
            _vectors(ops.stop_gradient(matrix)),
            self.measure == "squared_distance",
            1 - self.tau_cos,
            self.exact,
        )

    def distance(self, vectors, pair):
        """How far two vectors are from parallel: a scalar.

        Args:
            vectors: the two, of the same shape.
            pair: what they are numbers of; it is 0 if that is the same.
        """
        a, b = vectors
        sizes = ops.sum(a * a) * ops.sum(b * b)
        # Vectors of zeros, or with NaN, have no direction.
        are_vectors = ops.logical_and(sizes > 0, ops.isfinite(sizes))
        are_vectors = ops.logical_and(are_vectors, pair[0] != pair[1])
        sizes = ops.where(are_vectors, sizes, 1)
        product = ops.where(are_vectors, ops.sum(a * b), 0)
        if self.measure == "squared_distance":
            distance = ops.square(1 - product / ops.sqrt(sizes))
        else:
            distance = 1 - ops.square(product) / sizes
        return ops.where(are_vectors, distance, 0)

    def is_parallel(self, distance):
        """Whether that is the `distance` of two that count as parallel.

        It is 0 for what is no pair of two: that is not one.
        """
        if self.measure == "squared_distance":
            limit = self.tau_cos**2
        else:
            limit = 1 - (1 - self.tau_cos) ** 2
        return ops.logical_and(distance > 0, distance < limit)

    def get_config(self):
        return {
            "strength": self.strength,
            "measure": self.measure,
            "vectors": self.vectors,
            "tau_cos": self.tau_cos,
            "exact": self.exact,
            "also": keras.regularizers.serialize(self.also),
        }


def vectors_of(matrix, pair, axis):
    """Two columns of a matrix (axis -1) or two rows (-2), a list of vectors."""
    return [_vector(matrix, pair[i], axis) for i in range(2)]


def _vector(matrix, number, axis):
    """One of them.

    The gradient of a gather would be a scatter, which takes as long as all
    of a step; here it is a product, which is joined with what it is added to.
    """

    def gradient(*args, upstream=None):
        (upstream,) = args if upstream is None else (upstream,)
        upstream = ops.where(ops.isfinite(upstream), upstream, 0)
        place = ops.one_hot(number, matrix.shape[axis], dtype=upstream.dtype)
        # Each along its own axis of the matrix.
        return ops.expand_dims(upstream, axis) * ops.expand_dims(
            place, -3 - axis
        )

    @ops.custom_gradient
    def take(matrix):
        return ops.take(matrix, number, axis=axis), gradient

    return take(matrix * 1)  # A tensor: a variable would be captured.


def _vectors(matrix):
    """The matrix, and 0 for columns that have no direction: 0, or with NaN."""
    squares = ops.sum(ops.square(ops.stop_gradient(matrix)), axis=0)
    is_vector = ops.logical_and(squares > 0, ops.isfinite(squares))
    return ops.where(is_vector, matrix, 0)


def closest_columns(
    matrix, signed: bool = False, below: float = 2.0, exact: bool = True
):
    """The two columns of a matrix that are nearest to parallel.

    Args:
        matrix: shape (numbers, columns), on the device.
        signed: whether opposite columns are the farthest; else they are as
            close as parallel ones.
        below: pairs with a cosine of at least this are passed over.
        exact: whether to compare all numbers of all pairs. Else pairs are
            found by `SKETCH` random sums, and the closest of `CANDIDATES` of
            them is taken. Parallel columns have parallel sums.

    Returns:
        Two indices, int32, shape (2,); the same one twice where there is but
        one column.

    Source of the random sums: Charikar, Similarity Estimation Techniques from
    Rounding Algorithms (2002); Johnson and Lindenstrauss (1984).
    """
    numbers, columns = matrix.shape
    if columns < 2:
        return ops.zeros((2,), "int32")
    is_sketch = not exact and numbers > SKETCH
    compared = matrix
    if is_sketch:
        signs = ops.convert_to_tensor(random_signs(numbers), matrix.dtype)
        compared = ops.matmul(signs, matrix)
    cosines = _cosines(compared, signed, below)
    best = ops.max(cosines, axis=1)
    if not is_sketch:
        one = ops.argmax(best)
        other = ops.argmax(ops.take(cosines, one, axis=0))
        return ops.cast(ops.stack([one, other]), "int32")
    _, ones = ops.top_k(best, min(CANDIDATES, columns))
    others = ops.argmax(ops.take(cosines, ones, axis=0), axis=1)
    pairs = ops.stack([ops.cast(ones, "int32"), ops.cast(others, "int32")])
    a, b = (ops.take(matrix, pairs[i], axis=1) for i in range(2))
    sizes = ops.sum(a * a, axis=0) * ops.sum(b * b, axis=0)
    cosines = ops.sum(a * b, axis=0) * _inverse_root(sizes)
    if not signed:
        cosines = ops.abs(cosines)
    is_pair = ops.logical_and(sizes > 0, cosines < below)
    cosines = ops.where(is_pair, cosines, -2)
    return ops.take(pairs, ops.argmax(cosines), axis=1)


def _cosines(matrix, signed, below):
    """Of all pairs of columns; less than -1 for what is no pair of two."""
    squares = ops.sum(ops.square(matrix), axis=0)
    units = others = matrix * _inverse_root(squares)
    if signed:
        # One more number in each: a column of zeros is no one's nearest.
        no_vector = ops.cast(squares <= 0, matrix.dtype)
        units = ops.concatenate([units, ops.ones_like(units[:1])])
        others = ops.concatenate([others, -2 * no_vector[None]])
    cosines = ops.matmul(ops.transpose(units), others)
    if not signed:
        cosines = ops.abs(cosines)
    # A column and itself are parallel too, but not always to the last bit.
    is_pair = cosines < below
    is_itself = ops.eye(matrix.shape[1], dtype="bool")
    is_pair = ops.logical_and(is_pair, ops.logical_not(is_itself))
    return ops.where(is_pair, cosines, -2)


def _inverse_root(squares):
    """1 / sqrt(x), and 0 where x is 0."""
    is_some = squares > 0
    return ops.where(is_some, ops.rsqrt(ops.where(is_some, squares, 1)), 0)
