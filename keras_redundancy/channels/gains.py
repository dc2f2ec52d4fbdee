"""The gain of each channel, and the numbers in which units differ.

A channel is a gain times a function that does not depend on the scale of the
unit's weights: ReLU(w x + b) = |w| ReLU(w/|w| x + b/|w|). Each carrier on the
way of the channel changes its gain (a BatchNormalization, a depthwise kernel,
a constant factor) or its function (a bias, a depthwise filter's direction, the
slope of a PReLU). One pass over the steps of a trace finds both for every
label. Two units are multiples of one another if all numbers that describe
their functions agree.

Source: the gain is the scale of Kim et al., Neuron Merging (2020); for
duplicate filters it is that of RoyChowdhury et al. (2017), 1.
"""

import dataclasses

import numpy as np
from scipy import linalg

from keras_redundancy.channels import labels
from keras_redundancy.channels.filters import columns_of, norms_along, read

# The ridge of the regression that finds the mean of what a kernel reads, in
# units of the mean square of its filters.
RIDGE = 1e-2
TINY = 1e-30


@dataclasses.dataclass(frozen=True, eq=False)
class Size:
    """The scale of each entry on a variable's axis.

    Units that are multiples of one another have equal entries after these are
    divided by `of`, shape (size,). `added` is added to the entries before:
    the epsilon of a variance.
    """

    of: np.ndarray
    added: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Description:
    """Numbers that describe the functions of the channels `ids`.

    `numbers` has the shape (channels, any). Two channels are multiples of one
    another only if their rows agree. The numbers are divided by the gain of
    the channel, or relative to those of other channels.
    """

    ids: np.ndarray
    numbers: np.ndarray


class Gains:
    """The gain of every label, and the numbers in which labels differ.

    A unit's gain is the norm of its filter, times gamma / sqrt(variance +
    epsilon) of each BatchNormalization behind it, the norm of each filter of
    its own and each factor. With filters w and 3 w, and gammas 1 and 2 on
    equal variances, the second channel is 6 times the first behind
    BatchNormalization and ReLU. Behind a function that is not positively
    homogeneous the gain is 1: consumers sum such channels unscaled. A negative
    factor on the way makes the gain negative.

    Attributes:
        of_label: the gain of every label, shape (labels,).
        reach: an upper bound of how much the channel varies, relative to other
            units, shape (labels,): 0 for a channel that is constant.
        sizes: {(id(variable), axis): `Size`} of variables that are sliced.
        descriptions: list of `Description`, if `describe` was set.
        factors: {(id(kernel), axis): array}: the factors of the
            BatchNormalization behind a kernel, if `folded`.
    """

    def __init__(
        self, graph, value=read, touched=None, *, folded=False, describe=False
    ):
        """Args:
        graph: a `ChannelGraph`.
        value: a function that reads a variable.
        touched: whether each group matters, a bool array. Kernels of others
            are not read. Default: all do.
        folded: whether filters are multiplied by the factors of a
            BatchNormalization directly behind the kernel.
        describe: whether to collect `descriptions`, the numbers in which labels
            differ.
        """
        count = len(graph.group)
        self.of_label, self.reach = np.ones(count), np.ones(count)
        self.sizes, self.descriptions, self.factors = {}, [], {}
        self._graph, self._value = graph, value
        self._touched, self._folded, self._describes = touched, folded, describe
        self._written, self._shifted = {}, {}
        self._known, self._alone = set(), set()
        for step in graph.steps:
            self._look_ahead(step)
        handlers = {
            labels.Carried: self._carried,
            labels.Copied: self._copied,
            labels.Filtered: self._filtered,
            labels.Joined: self._joined,
            labels.Mixed: self._mixed,
            labels.Normalized: self._normalized,
            labels.Shifted: self._shift,
        }
        for step in graph.steps:
            # The bias of a `Gated` is a `Carried` as well.
            if not isinstance(step, labels.Gated) and self._matters(step.ids):
                handlers[type(step)](step)

    def _matters(self, ids):
        touched = self._touched
        return touched is None or touched[self._graph.group[ids]].any()

    def _look_ahead(self, step):
        """Which variables another step knows, and what nothing else reads."""
        if isinstance(step, labels.Normalized):
            for variable in (step.gamma, step.beta, step.mean, step.variance):
                self._known.add((id(variable), step.source.tobytes()))
            if step.alone:
                self._alone.add(step.source.tobytes())
        elif isinstance(step, labels.Shifted):
            self._shifted[step.ids.tobytes()] = step

    def _describe(self, ids, numbers):
        if self._describes:
            numbers = np.asarray(numbers, float).reshape(len(ids), -1)
            self.descriptions.append(Description(ids, numbers))

    # --- one step -----------------------------------------------------------

    def _filtered(self, step):
        kernel = self._value(step.kernel)
        norms = norms_along(kernel, step.axis).astype(float)
        place = id(step.kernel), step.axis
        self.sizes.setdefault(place, Size(norms))
        if step.source is None:
            self.of_label[step.ids] = self.reach[step.ids] = norms
            self._written[step.ids.tobytes()] = step
            return
        for numbers in (self.of_label, self.reach):
            numbers[step.ids] = numbers[step.source] * norms
        if self._describes:
            columns = columns_of(kernel, step.axis)
            self._describe(step.ids, (columns / norms.clip(TINY)).T)

    def _shift(self, step):
        """The bias, unless a BatchNormalization alone reads the sum.

        `_normalized` then compares the bias with the moving mean.
        """
        if step.bias is None:
            return
        size, axis = (
            np.abs(self.of_label[step.ids]),
            step.spans.index(step.axis),
        )
        self._size(step.bias, axis, size)
        if not (step.linear and step.ids.tobytes() in self._alone):
            bias = np.moveaxis(self._value(step.bias), axis, 0)
            self._describe(step.ids, _in_units(bias, size))

    def _normalized(self, step):
        gain = self.of_label[step.source]
        spread = np.sqrt(self._value(step.variance) + step.epsilon)
        factor = 1 / spread.astype(float)
        if step.gamma is not None:
            factor = factor * self._value(step.gamma)
        after = factor * gain
        written = self._written_behind(step)
        if self._describes:
            offset = factor * self._rest(step, written)
            offset = offset + self._or_zeros(step.beta, len(gain))
            varies_by = np.abs(after) * _unit(spread, gain)
            self._describe(step.ids, _in_units(offset, varies_by))
        if written is not None and self._folds(step, written, factor):
            after = np.abs(after)
        else:
            self._describe(step.ids, np.sign(after))
        self.of_label[step.ids] = after
        self.reach[step.ids] = self.reach[step.source] * np.abs(factor)
        gain, after = np.abs(gain), np.abs(after)
        self._size(step.mean, 0, gain)
        self._size(step.variance, 0, gain**2, step.epsilon)
        self._size(step.gamma, 0, after)
        self._size(step.beta, 0, after)

    def _copied(self, step):
        for numbers in (self.of_label, self.reach):
            numbers[step.ids] = numbers[step.source]

    def _joined(self, step):
        gains = np.stack([self.of_label[ids] for ids in step.sources])
        self.reach[step.ids] = sum(self.reach[ids] for ids in step.sources)
        if step.how == "product":
            self.of_label[step.ids] = gains.prod(axis=0)
        elif step.how == "sum":
            self._sum(step, gains)
        else:
            self._describe(step.ids, _relative(gains))

    def _mixed(self, step):
        self._describe(step.ids, _relative(self.of_label[step.ids][None]))

    def _sum(self, step, gains):
        """Two sums are multiples if their terms have equal shares."""
        if len(gains) == 1:
            self.of_label[step.ids] = gains[0]
            return
        total = np.linalg.norm(gains, axis=0)
        self.of_label[step.ids] = total
        self._describe(step.ids, (gains / total.clip(TINY)).T)

    def _carried(self, step):
        if (id(step.variable), step.ids.tobytes()) in self._known:
            return
        value = np.moveaxis(self._value(step.variable), step.axis, 0)
        value = value.reshape(len(value), -1).astype(float)
        if step.acts == "adds":
            size = np.abs(self.of_label[step.ids])
            self._size(step.variable, step.axis, size)
            self._describe(step.ids, _in_units(value, size))
        elif step.acts in ("multiplies", "divides"):
            size = np.linalg.norm(value, axis=1)
            self._size(step.variable, step.axis, size)
            factor = size if step.acts == "multiplies" else 1 / size.clip(TINY)
            self.of_label[step.ids] *= factor
            self.reach[step.ids] *= factor
            self._describe(step.ids, value / size.clip(TINY)[:, None])
        else:
            self._describe(step.ids, _in_units(value, 1))

    def _size(self, variable, axis, size, added=0.0):
        if variable is not None:
            place = id(variable), axis % len(variable.shape)
            self.sizes.setdefault(place, Size(size, added))

    # --- a BatchNormalization directly behind a kernel ----------------------

    def _written_behind(self, step):
        """The `Filtered` of which it reads the linear sums, or None."""
        written = self._written.get(step.source.tobytes())
        shift = self._shifted.get(step.source.tobytes())
        if written is None or shift is None or not shift.linear:
            return None
        is_behind = step.made_by is shift.layer
        return written if is_behind and len(shift.spans) == 1 else None

    def _folds(self, step, written, factor):
        """Whether the filters are compared as this makes them.

        Where others read the sums too, they are compared as they are.
        """
        if not self._folded or not step.alone:
            return False
        place = id(written.kernel), written.axis
        if place in self.factors:
            return False  # Another call of a shared layer.
        self.factors[place] = factor.astype(self._value(step.variance).dtype)
        return True

    def _rest(self, step, written):
        """How far what is normalised is from its mean, shape (units,).

        The mean of what a kernel with filters W reads is the same for all its
        units, some mu. So the moving means less the biases are W^T mu, up to
        a rest, which tells units with parallel filters apart. By ridge
        regression; with K = W^T W, it is r (K + r)^-1 (bias - mean).
        """
        n = len(step.source)
        rest = -self._or_zeros(step.mean, n)
        if written is None:
            return rest
        rest += self._or_zeros(self._shifted[step.source.tobytes()].bias, n)
        if not rest.any():
            return rest
        columns = columns_of(self._value(written.kernel), written.axis)
        products = (columns.T @ columns).astype(float)
        ridge = RIDGE * max(np.trace(products) / n, TINY)
        products[np.diag_indices(n)] += ridge
        return ridge * linalg.solve(products, rest, assume_a="pos")

    def _or_zeros(self, variable, n):
        if variable is None:
            return np.zeros(n)
        return self._value(variable).astype(float).reshape(n)


def _unit(spread, gain):
    """What the function of a usual unit varies by: spread over gain."""
    alive = gain != 0
    if not alive.any():
        return 1.0
    return float(np.median(spread[alive] / np.abs(gain[alive]))) or 1.0


def _relative(gains):
    """Gains of several values, (values, channels), beside usual ones."""
    usual = np.sqrt(np.mean(gains**2, axis=1, keepdims=True))
    return (gains / usual.clip(TINY)).T


def _in_units(value, size):
    """`value` over `size`, on a scale that is relative for large ones."""
    value = np.asarray(value, float).reshape(len(value), -1)
    size = np.broadcast_to(size, len(value)).clip(TINY)
    return np.arcsinh(value / size[:, None])


def numbers_of(gains: Gains, graph, spaces) -> dict:
    """All numbers in which the units of some spaces differ.

    Args:
        gains: made with `describe`.
        graph: the `ChannelGraph` that they were made from.
        spaces: some of its spaces.

    Returns:
        {space: array of shape (units, numbers)}.
    """
    number = np.full(graph.group_count, -1)
    row = np.zeros(len(number), int)
    for index, space in enumerate(spaces):
        number[space.groups], row[space.groups] = index, np.arange(space.size)
    parts = {index: [] for index in range(len(spaces))}
    for description in gains.descriptions:
        group = graph.group[description.ids]
        for index in np.unique(number[group]):
            if index >= 0:
                here = number[group] == index
                parts[index].append(
                    _side_by_side(
                        row[group[here]],
                        graph.color[description.ids[here]],
                        description.numbers[here],
                        spaces[index].size,
                    )
                )
    return {
        space: np.concatenate(
            [np.zeros((space.size, 1)), *parts[index]], axis=1
        )
        for index, space in enumerate(spaces)
    }


def _side_by_side(row, color, numbers, size):
    """The numbers of each unit in a row, in the order of the colors.

    The last number for each color says whether the unit has such a channel.
    """
    _, column = np.unique(color, return_inverse=True)
    columns = column.max() + 1
    table = np.zeros((size, columns, numbers.shape[1] + 1))
    table[row, column, :-1] = numbers
    table[row, column, -1] = 1
    return table.reshape(size, -1)
