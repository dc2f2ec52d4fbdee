"""Reconstruct: what kernels read changed, so they are fitted to it anew.

`refit` makes up for what goes from the inputs of each consumer, as if all else
stayed. But behind a layer that was cut, inputs are not quite what they were.
Here the smaller model and the one that it was made from run side by side, and
one kernel of the smaller one after the other is fitted, by least squares over
its whole window, to give what the original one gave. Each takes a pass over
the data: fitted all at once, to inputs that change by it, they get worse.

Where ReLUs or probabilities stand behind a kernel, it is then fitted step by
step, with that in mind; of two `Dense` layers with a ReLU between, which
nothing else reads, both are fitted at once. Samples that are held out say how
far to go from what there was, and that no fit is kept that is worse on them.

Source: He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural
Networks (2017), with the inputs of the pruned network.
"""

from collections.abc import Iterator

import numpy as np

from keras_redundancy.mend.kernels import look_at
from keras_redundancy.numbers import regression
from keras_redundancy.numbers.perceptron import fit_perceptron

# The share of a variance that rounding to these may be: ten squared steps.
ROUNDING = {"bfloat16": 10 * 2.0**-14, "float16": 10 * 2.0**-20}


def reconstruct(
    old, new, pairs, kept_channels, centered, data, batch_size
) -> Iterator[None]:
    """Fit the kernels of `new` to what those of `old` return, in place.

    Args:
        old: the original model.
        new: the smaller one, which is changed.
        pairs: the layers to fit, those of `pairs_of`.
        kept_channels: {id(moving mean of old): channels that stay}.
        centered: ids of layers of `old` whose outputs have their mean taken
            away by a BatchNormalization.
        data: what `Model.predict` takes.
        batch_size: for arrays.

    Yields:
        After each layer, nothing.
    """
    for pair in pairs:
        seen = look_at(old, new, kept_channels, pair, data, batch_size)
        moments, rows = seen
        if moments:
            _fit(pair, moments, id(pair.old) in centered)
        if rows:
            _fit_chain(pair, *rows)
        yield


def _fit(pair, moments, is_centered):
    """New kernel and bias from the moments of (inputs, wanted outputs)."""
    layer = pair.new
    kernel = np.asarray(layer.kernel, np.float64)
    start = kernel.reshape(-1, kernel.shape[-1])
    whole = moments.whole
    inputs, wanted = np.split(np.arange(len(whole.mean)), [len(start)])
    # Without a shift the mean has to be predicted like the rest.
    has_shift = layer.bias is not None or is_centered
    center = moments.fitted.mean if has_shift else np.zeros_like(whole.mean)
    rounding = ROUNDING.get(layer.compute_dtype, regression.ROUNDING)
    fitted = regression.ridge_from_moments(
        whole.about(whole.mean if has_shift else center),
        *(m.about(center) for m in (moments.fitted, moments.held_out)),
        inputs,
        wanted,
        start,
        rounding,
    )
    layer.kernel.assign(fitted.reshape(kernel.shape))
    if layer.bias is not None:
        rest = whole.mean[wanted] - whole.mean[inputs] @ fitted
        layer.bias.assign(rest)


def _fit_chain(pair, inputs, wanted, is_held_out):
    """Go on from there, by rows of inputs and of wanted outputs."""
    start = []
    for each in pair.chain:
        kernel = np.asarray(each.new.kernel, np.float32)
        bias = each.new.bias
        if bias is not None:
            bias = np.asarray(bias, np.float32)
        start.append((kernel.reshape(-1, kernel.shape[-1]), bias))
    fitted = fit_perceptron(start, inputs, wanted, pair.link, is_held_out)
    for each, (kernel, bias) in zip(pair.chain, fitted, strict=True):
        each.new.kernel.assign(kernel.reshape(each.new.kernel.shape))
        if bias is not None:
            each.new.bias.assign(bias)
