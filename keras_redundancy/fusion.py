"""Join two parallel vectors of a matrix into one: numbers in, numbers out."""

import dataclasses

import numpy as np
from numpy.typing import NDArray


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
        a, b = matrix[:, gone], matrix[:, kept]
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

    def joined(self, array: NDArray, axis: int) -> NDArray:
        """A copy with the two columns joined, and 0 in place of the other.

        Gradients, and so an optimizer's momenta, are joined in the same way:
        what the column is to the loss is the sum of what its shares are.

        Args:
            array: the matrix, or another one of its shape.
            axis: that along which its columns stand.
        """
        result = array.copy()
        columns = np.moveaxis(result, axis, -1)
        of_gone, of_kept = self.shares
        columns[..., self.kept] *= of_kept
        columns[..., self.kept] += of_gone * columns[..., self.gone]
        columns[..., self.gone] = 0
        return result
