"""Budgets: how deep to cut so that so much of the model is left."""

import math
from collections.abc import Callable

import numpy as np

from keras_redundancy._shared.bisection import bisected
from keras_redundancy.channels.labels import Constant

# How often the depth is halved: widths change no more well before.
STEPS = 40


class OutOfReachError(ValueError):
    """A target that cannot be met."""


class Costs:
    """What a model costs when so many units of each space are left.

    A cost is a sum of products of sizes, and a size is a sum over spaces:
    what a kernel's axis holds of each, and what no space holds.
    """

    def __init__(self, graph, spaces):
        self._number = np.full(graph.group_count, len(spaces))
        for number, space in enumerate(spaces):
            self._number[space.groups] = number
        self._sizes = np.array([space.size for space in spaces] + [1])
        variables, axes = {}, {}
        for axis in graph.axes:
            if not isinstance(axis.variable, Constant):
                key = id(axis.variable)
                variables[key] = axis.variable
                axes.setdefault(key, {})[axis.axis] = self._shares(axis.group)
        self._axes, self._variables, self._shapes = axes, variables, {}
        self._group = graph.group
        self._products = graph.products
        self._others = graph.model.count_params() - sum(
            math.prod(variable.shape) for variable in variables.values()
        )

    def _shares(self, groups):
        """How many of these groups there are per unit of each space."""
        counts = np.bincount(self._number[groups], minlength=len(self._sizes))
        return counts / self._sizes

    def _size(self, variable, left, axes=None):
        """How many numbers are on some axes of a variable, or on all."""
        key = id(variable)
        if key not in self._shapes:
            # To ask TensorFlow again for each cost takes longer than the sums.
            self._shapes[key] = tuple(variable.shape)
        shares, sizes = self._axes.get(key, {}), self._shapes[key]
        return math.prod(
            shares[axis] @ left if axis in shares else sizes[axis]
            for axis in (range(len(sizes)) if axes is None else axes)
        )

    def parameters(self, widths, biases=()) -> float:
        """The number of parameters.

        Args:
            widths: how many units of each space are left, shape (spaces,).
            biases: a `Shifted` for each bias that is made for them.
        """
        left = np.append(widths, 1)
        kept = sum(self._size(v, left) for v in self._variables.values())
        return self._others + kept + self.of_biases(widths, biases)

    def of_biases(self, widths, biases) -> float:
        """The number of parameters of biases that are made."""
        left = np.append(widths, 1)
        return sum(self._size(step.kernel, left, step.spans) for step in biases)

    def of_units(self, cost, widths) -> np.ndarray:
        """What one unit of each space costs, shape (spaces,)."""
        whole, units = cost(widths), []
        for number in range(len(widths)):
            fewer = np.array(widths)
            fewer[number] -= 1
            units.append(whole - cost(fewer))
        return np.array(units)

    def flops(self, widths) -> float | None:
        """Multiply-adds of a sample; None where a spatial size is open."""
        left, total = np.append(widths, 1), 0.0
        for product in self._products:
            if product.positions is None:
                return None
            count = product.positions * self._size(product.kernel, left)
            if product.per is not None:
                count *= self._shares(self._group[product.per]) @ left
            total += count
        return total


def widths_for(
    widths_at: Callable, cost: Callable, target: float, words: str, round_to=1
) -> np.ndarray:
    """How many units of each space to keep so that the cost is on target.

    Args:
        widths_at: a function of a depth from 0, where nothing goes, to 1 that
            returns widths, an integer array of shape (spaces,): none grows
            with the depth.
        cost: a function of widths.
        target: the cost that is wanted.
        words: what the cost is, for messages.
        round_to: widths are multiples of this, or the widest there are.

    Returns:
        Widths at which the cost is at most `target`, and close to it.

    Raises:
        OutOfReachError: not even the greatest depth reaches it.
    """
    everything, least = widths_at(0), cost(widths_at(1))
    total = cost(everything)
    if total <= target:
        return everything
    if least > target:
        raise OutOfReachError(
            f"The target of {_shown(target)} {words} cannot be reached: "
            f"{_shown(least)} are left when everything is removed that can be. "
            "The rest is frozen, left out by layers= or skip=, kept by "
            "min_units= or round_to=, or inside of layers that keep their "
            "class without inline=True; kr.plan(model, ratio=0).explain() "
            "lists what stays, and why. Pass a share of at least "
            f"{math.ceil(1000 * least / total) / 1000:g}."
        )
    deep, shallow = _bisected(widths_at, cost, target)

    # Where widths jump, as where many units are alike, part of the way.
    def on_the_way(part):
        widths = shallow - ((shallow - deep) * part).astype(int)
        return np.minimum(-(-widths // round_to) * round_to, shallow)

    widths, _ = _bisected(on_the_way, cost, target)
    for wider in (shallow, everything):
        widths = _filled_up(widths, wider, cost, target, round_to)
    return widths


def _shown(cost):
    """A cost in words: a target may be a small part of one multiply-add."""
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"


def _bisected(widths_at, cost, target):
    """The widths on both sides of the target: those at most, those above."""
    depths = bisected(lambda x: cost(widths_at(x)) <= target, 1.0, 0.0, STEPS)
    return map(widths_at, depths)


def _filled_up(widths, wider, cost, target, round_to):
    """What still fits of `wider`, one space after the other."""
    widths = widths.copy()
    for number in np.flatnonzero(wider > widths):
        start = widths[number]
        fits, too_many = 0, -(-(wider[number] - start) // round_to) + 1
        while too_many - fits > 1:
            more = (fits + too_many) // 2
            widths[number] = min(start + more * round_to, wider[number])
            if cost(widths) <= target:
                fits = more
            else:
                too_many = more
        widths[number] = min(start + fits * round_to, wider[number])
    return widths
