"""Sums over the rows that kernels are fitted to, taken on the device."""

import dataclasses
import functools

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_redundancy.numbers import regression

# So many rows of a symmetric matrix are computed at once, right of its
# diagonal: half of a large matrix need not be computed.
BLOCK = 512


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Sums over rows x, y of all groups, about numbers near their means.

    Attributes:
        count: how many rows each group has.
        origin: the numbers that are taken from x, shape (1, groups, k), and
            from y, shape (1, groups, r).
        sums: tensors: those of x, y, x y^T and y^2, shapes (groups, k),
            (groups, r), (groups, k, r) and (groups, r).
        products: the sum of x x^T, which is symmetric, in blocks of rows,
            each without what lies left of the diagonal.
    """

    count: int
    origin: tuple
    sums: tuple
    products: tuple

    @classmethod
    def of(cls, x, y, origin) -> "Sums":
        """Of rows minus the origin, (groups, rows, k) and (groups, rows, r)."""
        sums = (
            ops.sum(x, axis=1),
            ops.sum(y, axis=1),
            _products(x, y),
            ops.sum(ops.square(y), axis=1),
        )
        products = tuple(
            _products(x[..., start : start + BLOCK], x[..., start:])
            for start in range(0, x.shape[2], BLOCK)
        )
        return cls(x.shape[1], origin, sums, products)

    def __add__(self, other):
        sums, products = (
            tuple(a + b for a, b in zip(*both, strict=True))
            for both in (
                (self.sums, other.sums),
                (self.products, other.products),
            )
        )
        return Sums(self.count + other.count, self.origin, sums, products)

    @functools.cached_property
    def _means(self):
        """Of x, y, x x^T, x y^T and y^2, float64."""
        x, y, shared, size = map(self._mean_of, self.sums)
        known = np.empty((*x.shape, x.shape[1]))
        for number, product in enumerate(self.products):
            start, block = number * BLOCK, self._mean_of(product)
            stop = start + block.shape[1]
            known[:, start:stop, start:] = block
            known[:, stop:, start:stop] = block[..., BLOCK:].swapaxes(1, 2)
        return x, y, known, shared, size

    def _mean_of(self, sums):
        sums = np.asarray(ops.convert_to_numpy(sums), np.float64)
        return sums / max(self.count, 1)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Of x and then y, shape (groups, k + r)."""
        origin = np.concatenate(
            [ops.convert_to_numpy(x)[0] for x in self.origin], axis=1
        )
        return origin + np.concatenate(self._means[:2], axis=1)

    def about(self, center) -> regression.Equations:
        """Those of the rows minus `center`, shape (groups, k + r)."""
        x, y, known, shared, size = self._means
        if not self.count:
            return regression.Equations(known, shared, size)
        # About the mean, and from there about the center.
        step = np.split(self.mean - center, [x.shape[1]], axis=1)
        known, shared = (
            products + _outer(step[0], other) - _outer(x, own)
            for products, other, own in (
                (known, step[0], x),
                (shared, step[1], y),
            )
        )
        size = size - np.square(y) + np.square(step[1])
        return regression.Equations(known, shared, size)


def _products(x, y):
    """The sum over rows of x y^T: (g, rows, k), (g, rows, r) -> (g, k, r)."""
    if x.shape[0] > 1:
        return ops.matmul(ops.swapaxes(x, 1, 2), y)
    # Two matrices are multiplied faster than a batch of one.
    return ops.matmul(ops.transpose(x[0]), y[0])[None]


def _outer(a, b):
    return a[:, :, None] * b[:, None]
