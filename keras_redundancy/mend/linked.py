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
    loss, bound = LOSSES[link]
    x, x_held = (ops.take(read, side, axis=0) for side in sides)
    y, y_held = (ops.take(wanted, side, axis=0) for side in sides)
    center = ops.mean(x, axis=0)
    if not has_shift:
        center, shift = ops.zeros_like(center), np.zeros_like(shift)
    x, x_held = x - center, x_held - center
    middle = np.asarray(ops.convert_to_numpy(center), np.float64)
    # What a change of the matrix by one costs, beside the loss of one row.
    dear = float(ops.mean(ops.square(x))) / x.shape[0]
    if link == "relu":
        dear *= float(ops.sum(ops.var(y, axis=0))) / 2
    inverse = _inverse(x, bound, 2 * dear)
    here = [_tensor(matrix, x), _tensor(shift + middle @ matrix, x)]
    first = _value(loss, x_held, y_held, here)
    best = [np.inf, here]
    start = last = here
    momentum, idle, value = 1.0, 0, np.inf
    for _ in range(STEPS):
        found, slope = loss(ops.matmul(x, here[0]) + here[1], y)
        change = here[0] - start[0]
        found = float(found + dear * ops.sum(ops.square(change)))
        if found > value:
            # The momentum has gone too far.
            momentum, here, value = 1.0, last, np.inf
            continue
        value = found
        slopes = ops.matmul(ops.transpose(x), slope) / x.shape[0]
        step = ops.matmul(inverse, slopes + 2 * dear * change)
        shifted = ops.mean(slope, axis=0) / bound
        new = [here[0] - step, here[1] - shifted if has_shift else here[1]]
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = (momentum - 1) / grown
        here = [a + share * (a - b) for a, b in zip(new, last, strict=True)]
        last, momentum = new, grown
        held = _value(loss, x_held, y_held, new)
        if held < best[0] * (1 - 1e-4):
            best, idle = [held, new], 0
        elif (idle := idle + 1) == PATIENCE:
            break
    if best[0] >= first:
        return matrix, shift
    matrix, shift = (
        np.asarray(ops.convert_to_numpy(x), np.float64) for x in best[1]
    )
    return matrix, shift - middle @ matrix


def _tensor(array, like):
    return ops.cast(ops.convert_to_tensor(array.astype("float32")), like.dtype)


def _value(loss, x, wanted, layer):
    return float(loss(ops.matmul(x, layer[0]) + layer[1], wanted)[0])


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
