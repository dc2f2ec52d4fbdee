"""Mean and scatter matrix of rows that arrive in batches.

The matrices of all layers are in memory at the same time. They are symmetric,
so half of each is held, in the precision that the rows have.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

# Every fifth sample is not fitted to, but tests the fits.
HELD_OUT = 5
# Rows of a symmetric matrix that are held together.
BLOCK = 256


def rows_of_blocks(n: int) -> list[slice]:
    """The rows of each block of a symmetric matrix of shape (n, n)."""
    return [slice(start, start + BLOCK) for start in range(0, n, BLOCK)]


def in_blocks(matrix: NDArray) -> list[NDArray]:
    """Half of a symmetric matrix: up to `BLOCK` rows each, from the diagonal.

    Args:
        matrix: shape (n, n).

    Returns:
        For each s of 0, BLOCK, 2 BLOCK, ... the rows s to s + BLOCK, without
        the columns before s: other blocks hold the same numbers.
    """
    rows_of_all = rows_of_blocks(len(matrix))
    return [matrix[rows, rows.start :] for rows in rows_of_all]


@dataclasses.dataclass
class Moments:
    """First and second moments of rows of n numbers.

    Attributes:
        count: the number of rows.
        samples: the number of samples: each sample of an image has a row for
            every position that was observed.
        mean: shape (n,), in float64.
        blocks: the scatter matrix, as `in_blocks` divides it.
    """

    count: int
    samples: int
    mean: NDArray[np.float64]
    blocks: list[NDArray]

    @classmethod
    def of_no_rows(cls, n: int) -> "Moments":
        return cls(0, 0, np.zeros(n), in_blocks(np.zeros((n, n), "float32")))

    def add(self, count: int, samples: int, mean, blocks) -> None:
        """Add a batch of rows, given by its count, mean and scatter matrix.

        Args:
            count, samples, mean: as the attributes, of the batch.
            blocks: its scatter matrix, as `in_blocks` divides it. It is held
                in the precision of the first batch.

        Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise
        Algorithm for Computing Sample Variances (1979).
        """
        self.samples += samples
        if not count:
            return
        total = self.count + count
        step = np.asarray(mean, np.float64) - self.mean
        if not self.count:
            self.blocks = [np.array(block) for block in blocks]
        else:
            between = step * (self.count * count / total)
            for rows, own, block in zip(
                rows_of_blocks(len(step)), self.blocks, blocks, strict=True
            ):
                own += block
                own += between[rows, None] * step[rows.start :]
        self.mean += step * (count / total)
        self.count = total

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of the rows of both."""
        both = Moments(
            self.count,
            self.samples,
            self.mean.copy(),
            [block.copy() for block in self.blocks],
        )
        both.add(other.count, other.samples, other.mean, other.blocks)
        return both

    @property
    def scatter(self) -> NDArray[np.float64]:
        """Shape (n, n): the sum over rows x of (x - mean)(x - mean)^T."""
        n = len(self.mean)
        whole = np.empty((n, n))
        for rows, block in zip(rows_of_blocks(n), self.blocks, strict=True):
            whole[rows, rows.start :] = block
            whole[rows.stop :, rows] = block[:, len(block) :].T
        return whole

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Shape (n, n): the mean outer product of rows minus their mean."""
        whole = self.scatter
        whole /= self.count
        return whole

    @property
    def variance(self) -> NDArray[np.float64]:
        """Shape (n,): the diagonal of the covariance."""
        parts = [block.diagonal() for block in self.blocks]
        return np.concatenate(parts).astype(np.float64) / self.count

    def about(self, center) -> NDArray[np.float64]:
        """Shape (n, n): the mean outer product of rows minus `center`."""
        if not self.count:
            return np.zeros((len(self.mean), len(self.mean)))
        step = self.mean - center
        whole = self.covariance
        whole += np.outer(step, step)
        return whole

    def part(self, numbers) -> "Moments":
        """The moments of some of the n numbers of each row."""
        if np.array_equal(numbers, np.arange(len(self.mean))):
            return self
        return Moments(
            self.count,
            self.samples,
            self.mean[numbers],
            in_blocks(self.scatter[np.ix_(numbers, numbers)]),
        )


@dataclasses.dataclass
class Divided:
    """Moments of the rows to fit to, and of rows that are held out.

    Whether a fit is an improvement is tested on rows of other samples than
    those that it was fitted to.

    Attributes:
        fitted, held_out: the moments of either kind of rows.
        batches: the number of batches.
    """

    fitted: Moments
    held_out: Moments
    batches: int = 0

    @classmethod
    def of_no_rows(cls, n: int) -> "Divided":
        return cls(Moments.of_no_rows(n), Moments.of_no_rows(n))

    def add(self, samples: int, fitted, held_out) -> None:
        """Take in a batch: count, mean and blocks of both kinds of rows.

        Of batches too small to hold rows out, every fifth one is.
        """
        self.batches += 1
        if not int(held_out[0]) and self.batches % HELD_OUT == 0:
            fitted, held_out = held_out, fitted
        for own, (count, *moments) in (
            (self.fitted, fitted),
            (self.held_out, held_out),
        ):
            own.add(int(count), samples, *moments)
            samples = 0

    @property
    def samples(self) -> int:
        """How many samples all rows are from."""
        return self.fitted.samples + self.held_out.samples

    @property
    def whole(self) -> Moments:
        """Of all rows."""
        return self.fitted + self.held_out
