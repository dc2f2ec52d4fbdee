"""Once through both graphs: what the smaller model reads is mended.

A model and the smaller one are walked call by call, with all samples at the
frontier. What a kernel of the smaller model reads is final when the walk
arrives there: the kernel is fitted there and then, a BatchNormalization gets
its statistics, and the walk goes on with what the mended layer returns. No
call is run twice.

A layer that is called several times is mended once, to what all its calls
read: the walk waits with the first call until it knows what the others read.
Where one call reads what another one makes of its output, as in a loop, that
cannot be known: its kernel stays as it is, and its statistics are those of
the first call.

Of a model on several devices, all devices take part: the replicas of a
`tf.distribute` strategy run the batches in turn, and a `keras.distribution`
divides each batch that its devices divide evenly. What kernels are fitted to,
a few rows of each sample, is summed as on one device.

Source: Frantar et al., GPTQ (2022), for layers fitted in the order in which
they run, each to what the layers before it, already changed, return.
"""

from collections.abc import Callable

from keras_redundancy import _keras
from keras_redundancy.mend.calls import most_bytes, paired_calls, steps_of
from keras_redundancy.mend.frontier import (
    Frontier,
    amount_of,
    put_back,
    read_batches,
)


def mended_layers(old, new) -> list:
    """(layer, its counterpart) of all that the graphs of two models call."""
    found = {}
    for call in paired_calls(old, new, [None] * len(old.inputs)):
        found[id(call.layer)] = call.layer, call.new.operation
    return list(found.values())


def walk(
    old, new, menders: dict, data, batch_size: int, memory: int, done: Callable
) -> tuple[int, int]:
    """Mend layers of the smaller model in one walk, in place.

    Args:
        old, new: the model and the smaller one.
        menders: {id(layer of old): an object that mends it}, a `KernelFit`, a
            `RecurrentFit` or a `Norm`. Its `mend(step, frontier)` changes
            variables in place, and returns those that keep what they hold;
            `is_bare` says whether it looks at what the layer of old returns
            and not at what that reads.
        data, batch_size: as for `batches`.
        memory: bytes for the samples at the frontier, and for the rows that
            kernels are fitted to.
        done: a function to call after each layer.

    Returns:
        (samples that were used, samples of the data that were looked at).

    Raises:
        ValueError: `data` is empty or does not fit the model's inputs, or
            there is no memory for one sample.
    """
    found, first, expected = read_batches(old, data, batch_size)
    shapes = [None if x is None else x.shape[1:] for x in first[0]]
    calls = paired_calls(old, new, shapes)
    steps = steps_of(calls, len(shapes), set(menders))
    steps = steps[: _last_mended(steps, menders)]
    inputs = [0 if x is None else x.nbytes // len(x) for x in first[0]]
    each = most_bytes(steps, inputs)
    amount = amount_of(old, each, memory, first, expected)
    states = [*_keras.states_of(old), *_keras.states_of(new)]
    with _keras.without_gradients(), put_back(states) as keep:
        frontier = Frontier(old, found, amount, memory)
        for step in steps:
            mender = menders.pop(id(step.calls[0].layer), None)
            sides = [0, 1]
            if mender is not None and mender.is_bare:
                frontier.advance(step, sides.pop(0))
            if mender is not None:
                for variable in mender.mend(step, frontier):
                    keep(variable)
                done()
            for side in sides:
                frontier.advance(step, side)
    return frontier.samples, frontier.given


def _last_mended(steps, menders):
    """How many steps there are up to the last one that mends something."""
    numbers = [
        number
        for number, step in enumerate(steps, 1)
        if id(step.calls[0].layer) in menders
    ]
    return max(numbers, default=0)
