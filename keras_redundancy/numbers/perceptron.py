"""Fit a perceptron of one or two layers to what another network computed.

Everything here is numbers in, numbers out. Least squares do not know what
becomes of the numbers that they predict: those below 0 are lost in a ReLU,
and a score says little of the classes where these are clear. With that in the
loss, a hundred steps of conjugate gradients do better. Samples that are held
out say when to stop.

Sources: Zhang et al., Accelerating Very Deep Convolutional Networks (2015),
for taking the ReLU into a reconstruction; Hinton, Vinyals and Dean, Distilling
the Knowledge in a Neural Network (2015), for probabilities as targets.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

STEPS = 100
# Every eighth row says when to stop, unless others are named.
HELD_OUT = 8

# A kernel, shape (inputs, units), and its bias or None.
Layer = tuple[NDArray, NDArray | None]


def fit_perceptron(
    layers: list[Layer],
    inputs: NDArray,
    wanted: NDArray,
    link: str,
    is_held_out: NDArray[np.bool_] | None = None,
) -> list[Layer]:
    """Layers, with ReLU between them, that come nearer to what is wanted.

    Args:
        layers: to start from.
        inputs: what the first one reads, shape (rows, inputs).
        wanted: what the last one should return, shape (rows, units).
        link: what becomes of that: "linear"; "relu": all that is not positive
            is the same; "softmax" or "sigmoid": probabilities, compared by
            their cross-entropy.
        is_held_out: which rows say when to stop, shape (rows,). Rows that
            are like one another, such as those of one image, belong together.

    Returns:
        As `layers`, in float32: those of the step that is best on rows that
        were held out.
    """
    start, join = _flat(layers)
    if is_held_out is None:
        is_held_out = np.arange(len(inputs)) % HELD_OUT == HELD_OUT - 1
    held_out = [x[is_held_out] for x in (inputs, wanted)]
    fitted_to = [x[~is_held_out] for x in (inputs, wanted)]
    if not is_held_out.any():
        return join(start)
    error = LOSSES[link]
    proximal = _proximal_weights(layers, inputs) / len(inputs)

    def loss(flat):
        change = flat - start
        value, slope = _value_and_slope(join(flat), *fitted_to, error)
        return value + change @ (
            proximal * change
        ), slope + 2 * proximal * change

    def value(flat):
        outputs = _forward(join(flat), held_out[0])[-1]
        return error(outputs, held_out[1])[0]

    best = [value(start), start]

    def look(flat):
        if (found := value(flat)) < best[0]:
            best[:] = found, flat.copy()

    optimize.minimize(
        loss,
        start,
        jac=True,
        # SciPy's L-BFGS has threads of its own, which get in NumPy's way.
        method="CG",
        callback=look,
        options={"maxiter": STEPS},
    )
    return join(best[1])


def _flat(layers):
    """All numbers of layers, and a function that makes layers of them."""
    given = [array for layer in layers for array in layer if array is not None]
    ends = np.cumsum([array.size for array in given])

    def join(flat):
        parts = iter(np.split(flat.astype(np.float32), ends[:-1]))
        return [
            tuple(
                None if array is None else next(parts).reshape(array.shape)
                for array in layer
            )
            for layer in layers
        ]

    flat = np.concatenate([array.reshape(-1) for array in given])
    return flat.astype(np.float64), join


def _proximal_weights(layers, inputs):
    """The proximal weight of each parameter, shape (parameters,).

    The loss adds weight * (change of the parameter)^2. For a kernel it is the
    mean variance of the inputs of its layer, for a bias 0.
    """
    costs = []
    reads = [inputs, *_forward(layers, inputs)]
    for (kernel, bias), x in zip(layers, reads, strict=False):
        costs.append(np.full(kernel.size, x.var(axis=0).mean()))
        if bias is not None:
            costs.append(np.zeros(bias.size))
    return np.concatenate(costs)


def _forward(layers, x):
    """What each layer returns, the last one without a ReLU."""
    results = []
    for kernel, bias in layers:
        if results:
            x = results[-1] = results[-1].clip(0)
        y = x @ kernel
        results.append(y if bias is None else y + bias)
    return results


def _value_and_slope(layers, x, wanted, error):
    *hidden, outputs = _forward(layers, x)
    value, slope = error(outputs, wanted)
    slopes = []
    for (kernel, bias), read in zip(
        reversed(layers), reversed([x, *hidden]), strict=True
    ):
        own = [(read.T @ slope).reshape(-1)]
        if bias is not None:
            own.append(slope.sum(axis=0))
        slopes[:0] = own
        if read is not x:
            slope = (slope @ kernel.T) * (read > 0)
    return value, np.concatenate(slopes).astype(np.float64)


# --- losses: the mean of all rows, and its slope ----------------------------


def _squares(error, wanted):
    """In units of the variance of what is wanted."""
    scale = len(error) * max(wanted.var(axis=0).sum(), 1e-30)
    return np.square(error, dtype=np.float64).sum() / scale, 2 * error / scale


def _linear(outputs, wanted):
    return _squares(outputs - wanted, wanted)


def _relu(outputs, wanted):
    error = np.where(wanted > 0, outputs - wanted, outputs.clip(0))
    return _squares(error, wanted)


def _softmax(outputs, wanted):
    wanted = special.softmax(wanted, axis=1)
    partition = special.logsumexp(outputs, axis=1)
    value = partition.mean() - (wanted * outputs).sum(axis=1).mean()
    slope = special.softmax(outputs, axis=1) - wanted
    return float(value), slope / len(outputs)


def _sigmoid(outputs, wanted):
    wanted = special.expit(wanted)
    partition = np.logaddexp(0, outputs)
    value = (partition - wanted * outputs).sum(axis=1).mean()
    return float(value), (special.expit(outputs) - wanted) / len(outputs)


LOSSES = {
    "linear": _linear,
    "relu": _relu,
    "softmax": _softmax,
    "sigmoid": _sigmoid,
}
