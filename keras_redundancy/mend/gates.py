"""The gates of recurrent cells as matrix products."""

import dataclasses

import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from keras_redundancy.channels.filters import read
from keras_redundancy.channels.rules.recurrent import reset_gate


@dataclasses.dataclass(frozen=True)
class Part:
    """Gates of a cell that read the same numbers and are fitted together.

    Attributes:
        gates: the numbers of the gates.
        reads_inputs, reads_states: whether they read x, and h.
        is_reset: whether h is multiplied by the reset gate before.
        row: which row of the bias they have, of a bias with two.
    """

    gates: tuple[int, ...]
    reads_inputs: bool = True
    reads_states: bool = True
    is_reset: bool = False
    row: int = 0

    def columns(self, cell, units: NDArray) -> NDArray[np.intp]:
        """Those of the kernels that write these gates of some units."""
        return (np.array(self.gates)[:, None] * cell.units + units).reshape(-1)

    def _kernels(self, cell):
        kernels = [cell.kernel] * self.reads_inputs
        return kernels + [cell.recurrent_kernel] * self.reads_states

    def matrix(self, cell, columns) -> NDArray:
        """What the gates multiply (x, h) with, shape (numbers, columns)."""
        kernels = map(read, self._kernels(cell))
        return np.concatenate([kernel[:, columns] for kernel in kernels])

    def shift(self, cell, columns) -> NDArray:
        """What is added to the products, shape (columns,)."""
        if cell.bias is None:
            return np.zeros(len(columns), "float32")
        bias = np.atleast_2d(read(cell.bias))[:, columns]
        is_sum = self.reads_inputs and self.reads_states
        return bias.sum(axis=0) if is_sum else bias[self.row]

    def assign(self, cell, columns, matrix, shift) -> None:
        """Put a matrix and a shift in the place of those that there are."""
        shift = shift - self.shift(cell, columns)
        start = 0
        for variable in self._kernels(cell):
            value, stop = read(variable).copy(), start + variable.shape[0]
            value[:, columns] = matrix[start:stop]
            variable.assign(value)
            start = stop
        if cell.bias is not None:
            bias = read(cell.bias).copy()
            np.atleast_2d(bias)[self.row, columns] += shift
            cell.bias.assign(bias)

    def read(self, cell, x, h):
        """The numbers that the gates read, shape (rows, numbers)."""
        if self.is_reset:
            h = reset_gate(cell, x, h) * h
        parts = [x] * self.reads_inputs + [h] * self.reads_states
        return ops.concatenate(parts, axis=1)

    def made(self, cell, x, h, columns):
        """What goes into the gates, shape (rows, columns)."""
        matrix, shift = (
            ops.convert_to_tensor(part(cell, columns), "float32")
            for part in (self.matrix, self.shift)
        )
        return ops.matmul(self.read(cell, x, h), matrix) + shift


def parts_of(cell) -> tuple[Part, ...]:
    """The gates of a cell that are fitted together, in order."""
    if isinstance(cell, layers.LSTMCell):
        return (Part((0, 1, 2, 3)),)
    if isinstance(cell, layers.SimpleRNNCell):
        return (Part((0,)),)
    if not cell.reset_after:
        return Part((0, 1)), Part((2,), is_reset=True)
    # The reset gate multiplies what comes from the states.
    return (
        Part((0, 1)),
        Part((2,), reads_states=False),
        Part((2,), reads_inputs=False, row=1),
    )
