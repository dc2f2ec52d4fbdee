"""Mean and scatter matrix of rows that arrive in batches, in float64."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

# Every fifth sample is not fitted to, but tests the fits.
HELD_OUT = 5


@dataclasses.dataclass
class Moments:
    """First and second moments of rows of n numbers.

    Attributes:
        count: the number of rows.
        samples: the number of samples: each sample of an image has a row for
            every position that was observed.
        mean: shape (n,).
        scatter: shape (n, n), sum over rows x of (x - mean)(x - mean)^T.
    """

    count: int
    samples: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def of_no_rows(cls, n: int) -> "Moments":
        return cls(0, 0, np.zeros(n), np.zeros((n, n)))

    def add(self, count: int, samples: int, mean, scatter) -> None:
        """Add a batch of rows, given by its count, mean and scatter.

        Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise
        Algorithm for Computing Sample Variances (1979).
        """
        self.samples += samples
        if not count:
            return
        total = self.count + count
        step = np.asarray(mean, np.float64) - self.mean
        self.scatter += scatter
        if self.count:
            # In place: BLAS wants columns together, and it is symmetric.
            weight, columns = self.count * count / total, self.scatter.T
            self.scatter = linalg.blas.dger(
                weight, step, step, a=columns, overwrite_a=True
            ).T
        self.mean += step * (count / total)
        self.count = total

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of the rows of both."""
        both = Moments(
            self.count, self.samples, self.mean.copy(), self.scatter.copy()
        )
        both.add(other.count, other.samples, other.mean, other.scatter)
        return both

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Shape (n, n): the mean outer product of rows minus their mean."""
        return self.scatter / self.count

    def about(self, center) -> NDArray[np.float64]:
        """Shape (n, n): the mean outer product of rows minus `center`."""
        if not self.count:
            return np.zeros_like(self.scatter)
        step = self.mean - center
        return self.covariance + np.outer(step, step)

    def part(self, numbers) -> "Moments":
        """The moments of some of the n numbers of each row."""
        return Moments(
            self.count,
            self.samples,
            self.mean[numbers],
            self.scatter[np.ix_(numbers, numbers)],
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
        """Take in a batch: count, mean and scatter of both kinds of rows.

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
