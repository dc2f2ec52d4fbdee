"""Find the parallel vectors of a matrix, and join two into one."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

# Columns are compared by so many random sums of their numbers first.
SKETCH = 32


@dataclasses.dataclass(frozen=True)
class Fusion:
    """Two columns of a matrix become one.

    With a = r b, both are multiples of s b, where s = sqrt(r^2 + 1): a is
    r / s of it and b is 1 / s. So what took the two columns takes these shares
    of the one, and [a b] = (s b) [r/s 1/s].

    Attributes:
        kept, gone: the numbers of b and a.
        ratio: r, which is negative for opposite columns.

    Source: Lee et al., On the Redundancy in the Rank of Neural Network
    Parameters and Its Controllability (2021). Its ratio is that of the sums
    of the two columns, which may be 0; here it is that of their norms.
    """

    kept: int
    gone: int
    ratio: float

    @classmethod
    def of(cls, matrix: NDArray, kept: int, gone: int) -> "Fusion":
        """The fusion of two columns of a matrix.

        Raises:
            ValueError: they are the same one, or the one to keep is 0.
        """
        return cls.of_vectors(kept, gone, matrix[:, kept], matrix[:, gone])

    @classmethod
    def of_vectors(cls, kept: int, gone: int, b: NDArray, a: NDArray):
        """As `of`, of the two columns by themselves, first the one to keep."""
        sizes = np.linalg.norm(a), np.linalg.norm(b)
        if kept == gone or not sizes[1] > 0:
            what = "the same" if kept == gone else "0"
            raise ValueError(
                f"Columns {kept} and {gone} cannot be fused: the one to keep "
                f"is {what}. Keep one of two that is not 0."
            )
        sign = -1 if a @ b < 0 else 1
        return cls(int(kept), int(gone), float(sign * sizes[0] / sizes[1]))

    @property
    def shares(self) -> tuple[float, float]:
        """What the gone and the kept column are of the one that is left."""
        size = np.hypot(self.ratio, 1)
        return self.ratio / size, 1 / size

    def join(self, array: NDArray, axis: int, squares: bool = False) -> None:
        """Join the two columns, in place; 0 stays in place of the other.

        Gradients, and so an optimizer's momenta, are joined in the same way:
        what the column is to the loss is the sum of what its shares are. Of
        squares, such as Adam's second moment, it is the mean square of a sum
        of what is independent; those of the other column are left, as
        optimizers divide by them.

        Args:
            array: the matrix, or another one of its shape.
            axis: that along which its columns stand.
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

    def joined(self, array: NDArray, axis: int) -> NDArray:
        """A copy with the two columns joined, as by `join`."""
        result = array.copy()
        self.join(result, axis)
        return result


def parallel_columns(
    matrix: NDArray, used: NDArray, tau_cos: float, tau_euc: float
) -> list[Fusion]:
    """The fusions after which no two columns in use are parallel.

    Those that seem parallel by `SKETCH` random sums, ten times less strictly,
    are compared by all numbers. What is parallel is so in any sums: of pairs
    at the limit fewer than one in 10^8 are missed (the tail of an F
    distribution).

    Args:
        matrix: shape (numbers, columns).
        used: the numbers of the columns in use.
        tau_cos: two with 1 - |cos| below it are parallel, if also
        tau_euc: their distance, the shorter one scaled to the size of the
            longer, is below it, in units of the root mean square of the sizes
            of those in use. A column of zeros is parallel to all.

    Returns:
        In an order in which they can be made, the closest first. The longer
        column of two is kept. None where a number is not finite.
    """
    matrix = np.asarray(matrix, np.float32)
    sizes = np.linalg.norm(matrix, axis=0).astype(np.float64)
    usual = np.sqrt(np.mean(sizes[used] ** 2))
    if len(used) < 2 or not 0 < usual < np.inf:
        return []
    largest = used[np.argmax(sizes[used])]
    fusions = [Fusion(int(largest), int(x), 0.0) for x in used if not sizes[x]]
    used = used[sizes[used] > 0]
    pairs = _candidates(matrix, used, tau_cos)
    columns = {
        int(x): matrix[:, x].astype(np.float64) for x in np.unique(pairs)
    }
    now = {x: x for x in columns}  # What became of each.
    sines = [_sine(columns[a], columns[b]) for a, b in pairs]
    for pair in pairs[np.argsort(sines)]:
        a, b = (_last(now, int(x)) for x in pair)
        if a == b:
            continue
        kept, gone = (a, b) if sizes[a] >= sizes[b] else (b, a)
        sine = _sine(columns[a], columns[b])
        cosine_is_near = 1 - np.sqrt(max(1 - sine**2, 0)) < tau_cos
        # The chord of two vectors of the larger size.
        distance = 2 * np.sin(np.arcsin(min(sine, 1)) / 2) * sizes[kept]
        if cosine_is_near and distance < tau_euc * usual:
            fusion = Fusion.of_vectors(kept, gone, columns[kept], columns[gone])
            of_gone, of_kept = fusion.shares
            columns[kept] = of_kept * columns[kept] + of_gone * columns[gone]
            sizes[kept] = np.linalg.norm(columns[kept])
            now[gone] = kept
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
    # What is parallel to the last bit may seem not to be.
    least = 1 - max(tau_cos, 1e-6)
    some = np.flatnonzero(cosines.max(axis=0) > least)
    pairs = np.argwhere(np.triu(cosines[np.ix_(some, some)]) > least)
    return used[some[pairs]]


@functools.cache
def random_signs(numbers: int) -> NDArray:
    """Of the random sums, shape (SKETCH, numbers): the same ones each time."""
    return np.random.default_rng(0).choice([-1, 1], (SKETCH, numbers))


def _sine(a, b):
    """Of the angle between two vectors, exact for small ones."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return np.linalg.norm(a - (a @ b) * b)


def _last(now, number):
    while now[number] != number:
        number = now[number]
    return number
