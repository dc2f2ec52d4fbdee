"""Find the parallel columns of a matrix, and fuse two into one: in NumPy."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

# How many random sums of a column's numbers are compared first.
SKETCH = 32


@dataclasses.dataclass(frozen=True)
class Fusion:
    """Two parallel columns a, b of a matrix become one.

    With a = r b, both are multiples of s b, where s = sqrt(r^2 + 1):

        [a b] = (s b) [r/s 1/s]

    So s b takes the place of b, what used a uses r/s of it, and what used b
    uses 1/s of it. These are the `shares`.

    Attributes:
        kept: the number of the column b.
        gone: the number of the column a.
        ratio: r, negative for opposite columns.

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021). There r is the ratio of the sums
    of the two columns, which may be 0; here it is the ratio of their norms.
    """

    kept: int
    gone: int
    ratio: float

    @classmethod
    def of(cls, kept: int, gone: int, b: NDArray, a: NDArray) -> "Fusion":
        """The fusion of the columns b, which is kept, and a, which goes.

        Raises:
            ValueError: both are the same column, or the one to keep is 0.
        """
        norms = np.linalg.norm(a), np.linalg.norm(b)
        if kept == gone or not norms[1] > 0:
            what = "the same" if kept == gone else "0"
            raise ValueError(
                f"Columns {kept} and {gone} cannot be fused: the one to keep "
                f"is {what}. Keep one of two that is not 0."
            )
        sign = -1 if a @ b < 0 else 1
        return cls(int(kept), int(gone), float(sign * norms[0] / norms[1]))

    @property
    def shares(self) -> tuple[float, float]:
        """r/s and 1/s: what a and what b are of the column that is left."""
        size = np.hypot(self.ratio, 1)
        return self.ratio / size, 1 / size

    def join(self, array: NDArray, axis: int, squares: bool = False) -> None:
        """Fuse the two columns, in place: the one that goes becomes 0.

        The new column is r/s a + 1/s b, which is s b for a = r b. Gradients,
        and so an optimizer's momenta, are fused in the same way: the gradient
        by s b is the sum of those by a and b, each times its share.

        Squares of gradients, such as Adam's second moment, become
        (r/s)^2 a + (1/s)^2 b, the mean square of that sum if its parts are
        independent. The squares of the column that goes stay, because
        optimizers divide by them.

        Args:
            array: the matrix, or another one of its shape.
            axis: the axis along which its columns are counted.
            squares: whether it holds squares.
        """
        columns = np.moveaxis(array, axis, -1)
        of_gone, of_kept = np.square(self.shares) if squares else self.shares
        columns[..., self.kept] = (
            of_kept * columns[..., self.kept]
            + of_gone * columns[..., self.gone]
        )
        if not squares:
            columns[..., self.gone] = 0


def parallel_columns(
    matrix: NDArray, used: NDArray, tau_cos: float, tau_euc: float
) -> list[Fusion]:
    """The fusions after which no two columns in use are parallel.

    Pairs are chosen by `SKETCH` random sums of each column's numbers, with ten
    times `tau_cos`, and then compared by all numbers. Parallel columns have
    parallel sums; of pairs right at `tau_cos`, fewer than one in 10^8 are
    missed (the tail of an F distribution).

    Args:
        matrix: shape (numbers, columns).
        used: the numbers of the columns in use, sorted, without repeats.
        tau_cos: columns with 1 - |cos| below this are parallel, if `tau_euc`
            holds too.
        tau_euc: the limit of their distance, after the shorter one is scaled
            to the norm of the longer one, in units of the root mean square
            norm of the columns in use. A column of zeros is parallel to all.

    Returns:
        Fusions in an order in which they can be made, the closest pairs first
        (columns of zeros before them). The longer column of a pair is kept.
        None if a number is not finite.
    """
    matrix = np.asarray(matrix, np.float32)
    norms = np.linalg.norm(matrix, axis=0).astype(np.float64)
    usual = np.sqrt(np.mean(norms[used] ** 2))
    if len(used) < 2 or not 0 < usual < np.inf:
        return []
    largest = used[np.argmax(norms[used])]
    fusions = [Fusion(int(largest), int(x), 0.0) for x in used if not norms[x]]
    pairs = _candidates(matrix, used[norms[used] > 0], tau_cos)
    columns = {
        int(x): matrix[:, x].astype(np.float64) for x in np.unique(pairs)
    }
    fused_into = {x: x for x in columns}
    sines = [_sine(columns[a], columns[b]) for a, b in pairs]
    for pair in pairs[np.argsort(sines)]:
        a, b = (_last(fused_into, int(x)) for x in pair)
        if a == b:
            continue
        kept, gone = (a, b) if norms[a] >= norms[b] else (b, a)
        sine = _sine(columns[a], columns[b])
        cosine_is_near = 1 - np.sqrt(max(1 - sine**2, 0)) < tau_cos
        # The chord between two vectors of the larger norm.
        distance = 2 * np.sin(np.arcsin(min(sine, 1)) / 2) * norms[kept]
        if cosine_is_near and distance < tau_euc * usual:
            fusion = Fusion.of(kept, gone, columns[kept], columns[gone])
            of_gone, of_kept = fusion.shares
            columns[kept] = of_kept * columns[kept] + of_gone * columns[gone]
            norms[kept] = np.linalg.norm(columns[kept])
            fused_into[gone] = kept
            fusions.append(fusion)
    return fusions


def _candidates(matrix, used, tau_cos):
    """Pairs of columns that may be parallel, shape (pairs, 2)."""
    units = matrix[:, used] if len(used) < matrix.shape[1] else matrix
    if len(matrix) > SKETCH:
        units = random_signs(len(matrix)).astype(np.float32) @ units
        tau_cos = 10 * tau_cos
    units = units / np.maximum(np.linalg.norm(units, axis=0), 1e-30)
    cosines = units.T @ units
    np.abs(cosines, out=cosines)
    np.fill_diagonal(cosines, 0)
    # By rounding, the cosine of parallel columns may be a little below 1.
    least = 1 - max(tau_cos, 1e-6)
    some = np.flatnonzero(cosines.max(axis=0) > least)
    pairs = np.argwhere(np.triu(cosines[np.ix_(some, some)]) > least)
    return used[some[pairs]]


@functools.cache
def random_signs(numbers: int) -> NDArray:
    """Signs for `SKETCH` random sums, shape (SKETCH, numbers).

    The same ones in each call.
    """
    return np.random.default_rng(0).choice([-1, 1], (SKETCH, numbers))


def _sine(a, b):
    """The sine of the angle between two vectors, exact for small angles."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return np.linalg.norm(a - (a @ b) * b)


def _last(fused_into, number):
    """The column that a column was fused into, through all fusions."""
    while fused_into[number] != number:
        number = fused_into[number]
    return number
