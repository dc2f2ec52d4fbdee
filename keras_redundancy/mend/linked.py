"""Fit a kernel with what becomes of its outputs in mind.

Least squares do not know what becomes of the numbers that they predict: those
below 0 are lost in a ReLU, and a score says little of the classes where these
are clear. The losses here know it. They are convex, and bend nowhere more than
a multiple of the squares do. So steps that are exact for that multiple come
nearer and nearer, and Nesterov's momentum takes fewer of them. Samples that
are held out say when to stop.

Sources: Zhang et al., Accelerating Very Deep Convolutional Networks (2015),
for taking the ReLU into a reconstruction; Hinton, Vinyals and Dean, Distilling
the Knowledge in a Neural Network (2015), for probabilities as targets; Boehning
and Lindsay, Monotonicity of Quadratic-Approximation Algorithms (1988), for the
bounds of the slopes; O'Donoghue and Candes, Adaptive Restart for Accelerated
Gradient Schemes (2015).
"""

import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy import linalg

STEPS = 60
# Stop where so many steps in a row are no better for the rows held out.
PATIENCE = 8
# Added to the inputs' second moments, in units of their mean variance.
ROUNDING = 1e-6


def fit_to_link(
    read,
    wanted,
    sides: list[NDArray],
    matrix: NDArray,
    shift: NDArray,
    link: str,
    has_shift: bool,
) -> tuple[NDArray, NDArray]:
    """A matrix and a shift whose outputs come nearer to what is wanted.

    Args:
        read: tensor of shape (rows, numbers).
        wanted: what read @ matrix + shift should be, (rows, units).
        sides: the rows to fit to, and those that say when to stop.
        matrix, shift: to start from.
        link: what becomes of the outputs: "relu": all that is not positive is
            the same; "softmax" or "sigmoid": probabilities, compared by their
            cross-entropy.
        has_shift: whether a shift is fitted too; otherwise it is 0.

    Returns:
        Matrix and shift of the step that is best on the rows held out.
    """
    if not len(sides[1]):
        return matrix, shift
    x, x_held = (ops.take(read, side, axis=0) for side in sides)
    wanted = [ops.take(wanted, side, axis=0) for side in sides]
    center = ops.mean(x, axis=0)
    if not has_shift:
        center, shift = ops.zeros_like(center), np.zeros_like(shift)
    x, x_held = x - center, x_held - center
    dear = ops.mean(ops.square(x)) / x.shape[0]
    first = _tensor(matrix, x)
    outputs = [ops.matmul(z, first) for z in (x, x_held)]
    basis = _basis(x)
    if basis is not None:
        x, x_held = (ops.matmul(z, _tensor(basis, z)) for z in (x, x_held))
    fitted, judged = (
        _Problem(*given, link)
        for given in zip((x, x_held), outputs, wanted, strict=True)
    )
    middle = np.asarray(ops.convert_to_numpy(center), np.float64)
    start = [
        ops.zeros((x.shape[1], matrix.shape[1]), x.dtype),
        _tensor(shift + middle @ matrix, x),
    ]
    step = fitted.stepper(float(dear), has_shift)
    best = _best_step(step, start, judged.value)
    if best is start:
        return matrix, shift
    change, shift = (
        np.asarray(ops.convert_to_numpy(z), np.float64) for z in best
    )
    matrix = matrix + (change if basis is None else basis @ change)
    return matrix, shift - middle @ matrix


def _basis(x):
    """Orthonormal directions of the rows, if they are fewer than the numbers.

    Steps change the matrix by combinations of rows. So all that there is to
    know is how large the rows are in these directions.

    Args:
        x: tensor of shape (rows, numbers).

    Returns:
        Shape (numbers, rows), float64; None if there are as many rows.
    """
    if x.shape[0] >= x.shape[1]:
        return None
    rows = np.asarray(ops.convert_to_numpy(x), np.float64)
    return np.linalg.qr(rows.T)[0]


class _Problem:
    """The loss of a change of the matrix, and of a shift, over some rows."""

    def __init__(self, x, before, wanted, link):
        """Take the rows.

        Args:
            x: what is read, a tensor of shape (rows, numbers).
            before: what the matrix before makes of it, (rows, units).
            wanted: what is to come out, (rows, units).
            link: the name of the loss.
        """
        self._x, self._before, self._wanted = x, before, wanted
        self._link = link
        self._loss, self._bound = LOSSES[link]

    def _outcome(self, change, shift):
        """(The loss, the slope of each row's own)."""
        outputs = self._before + ops.matmul(self._x, change) + shift
        return self._loss(outputs, self._wanted)

    def value(self, change, shift) -> float:
        """The mean loss of a row."""
        return float(self._outcome(change, shift)[0])

    def stepper(self, dear: float, has_shift: bool):
        """A function of (change, shift) that makes a step.

        Args:
            dear: what a change by one costs, beside the loss of one row, in
                units of the variance of what is wanted.
            has_shift: whether the shift changes.

        Returns:
            A function that returns the loss, the cost of the change included,
            and [change, shift] after a step that lessens it.
        """
        x, count = self._x, self._x.shape[0]
        if self._link == "relu":
            dear *= float(ops.sum(ops.var(self._wanted, axis=0))) / 2
        inverse = _inverse(x, self._bound, 2 * dear)

        def step(change, shift):
            found, slope = self._outcome(change, shift)
            found = float(found + dear * ops.sum(ops.square(change)))
            slopes = ops.matmul(ops.transpose(x), slope) / count
            change = change - ops.matmul(inverse, slopes + 2 * dear * change)
            if has_shift:
                shift = shift - ops.mean(slope, axis=0) / self._bound
            return found, [change, shift]

        return step


def _best_step(step, start, judged):
    """The best of Nesterov's steps for the rows held out, or the start.

    Args:
        step: what `_Problem.stepper` returns.
        start: [change, shift] to start from.
        judged: a function of these: their loss on the rows held out.
    """
    first = judged(*start)
    best, least = start, np.inf
    last = here = start
    momentum, idle, value = 1.0, 0, np.inf
    for _ in range(STEPS):
        found, new = step(*here)
        if found > value:
            # The momentum has gone too far.
            momentum, here, value = 1.0, last, np.inf
            continue
        value = found
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = (momentum - 1) / grown
        here = [a + share * (a - b) for a, b in zip(new, last, strict=True)]
        last, momentum = new, grown
        held = judged(*new)
        if held < least * (1 - 1e-4):
            best, least, idle = new, held, 0
        elif (idle := idle + 1) == PATIENCE:
            break
    return best if least < first else start


def _tensor(array, like):
    return ops.convert_to_tensor(array, like.dtype)


def _inverse(x, bound, more):
    """Of what the second moments times the bound and `more` make together."""
    known = ops.matmul(ops.transpose(x), x) * (bound / x.shape[0])
    known = np.asarray(ops.convert_to_numpy(known), np.float64)
    more += ROUNDING * bound * np.diag(known).mean() + 1e-30
    while True:
        # Where rounding leaves less than nothing, more is added.
        matrix = known + more * np.eye(len(known))
        try:
            return _tensor(linalg.inv(matrix, assume_a="pos"), x)
        except linalg.LinAlgError:
            more *= 10


# --- losses: the mean of all rows, and the slope of each row's own ----------


def _relu(outputs, wanted):
    error = ops.where(wanted > 0, outputs - wanted, ops.relu(outputs))
    return ops.mean(ops.sum(error * error, axis=1)) / 2, error


def _softmax(outputs, wanted):
    wanted = ops.softmax(wanted)
    partition = ops.logsumexp(outputs, axis=1)
    value = ops.mean(partition - ops.sum(wanted * outputs, axis=1))
    return value, ops.softmax(outputs) - wanted


def _sigmoid(outputs, wanted):
    wanted = ops.sigmoid(wanted)
    value = ops.softplus(outputs) - wanted * outputs
    return ops.mean(ops.sum(value, axis=1)), ops.sigmoid(outputs) - wanted


# Each with what its slope changes by at most, for a change of the output.
LOSSES = {
    "relu": (_relu, 1.0),
    "softmax": (_softmax, 0.5),
    "sigmoid": (_sigmoid, 0.25),
}
