"""Means and scatter matrices, batch after batch, in float64."""

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass
class Moments:
    """First and second moments of rows of n numbers.

    Attributes:
        count: how many rows.
        samples: how many samples they are from: a sample of a convolution has
            a row for each position that was looked at.
        mean: shape (n,).
        scatter: sum of the outer products of rows minus their mean, (n, n).
    """

    count: int
    samples: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def of_no_rows(cls, n: int) -> "Moments":
        return cls(0, 0, np.zeros(n), np.zeros((n, n)))

    def add(self, count: int, samples: int, mean, scatter) -> None:
        """Take in a batch, of which all this is known.

        Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise
        Algorithm for Computing Sample Variances (1979).
        """
        total = self.count + count
        step = np.asarray(mean, np.float64) - self.mean
        self.scatter += scatter
        # Not by BLAS, whose threads would go on waiting for more while the
        # model runs on the next batch.
        self.scatter += np.outer(step, step * (self.count * count / total))
        self.mean += step * (count / total)
        self.count = total
        self.samples += samples

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Shape (n, n): the mean outer product of rows minus their mean."""
        return self.scatter / self.count

    def part(self, numbers) -> "Moments":
        """The moments of some of the n numbers of each row."""
        return Moments(
            self.count,
            self.samples,
            self.mean[numbers],
            self.scatter[np.ix_(numbers, numbers)],
        )
