"""NoiseOut's pruning step: of two correlated units one is removed."""

from __future__ import annotations  # help() shows the names of types.

import dataclasses

import keras
import numpy as np

from keras_redundancy._shared import arguments
from keras_redundancy.building.absorb import DropAbsorber
from keras_redundancy.building.rebuild import require_rebuildable
from keras_redundancy.calibration.reuse import check_steps
from keras_redundancy.channels.shifts import homes_of_shifts
from keras_redundancy.numbers.regression import varies
from keras_redundancy.planning.absorbing import Absorb, absorb_of
from keras_redundancy.planning.decisions import Decision, Plan
from keras_redundancy.planning.idle import Idle
from keras_redundancy.planning.levels import levels_of
from keras_redundancy.planning.plans import calibration_of, graph_to_cut
from keras_redundancy.planning.selection import Selection
from keras_redundancy.planning.space_units import weights_of


def merge_correlated(
    model: keras.Model,
    data,
    count: int | None = None,
    threshold: float | None = None,
    *,
    absorb: str | Absorb = "affine",
    layers: arguments.Layers = None,
    skip: arguments.Layers = None,
    min_units: int = 1,
    batch_size: int = 128,
    steps: int | None = None,
    optimizer: bool = False,
) -> keras.Model:
    """Remove units whose activations are linear functions of another unit's.

    Of all pairs of units in the same layer, over all layers, those with the
    largest |correlation| of activations lose one unit each. The layers that
    read the removed unit read a multiple of the other one in its place, and a
    constant is added to their biases. Constant units are removed first. A unit
    that others were merged into stays.

    Args:
        model: a built `keras.Model`, as for `plan`. It is never
            changed.
        data: some hundred or thousand samples, what `Model.predict` takes, or
            what `calibrate` returned.
        count: how many units to remove at most; 1 in the paper.
        threshold: remove only units with a |correlation| of at least this, in
            [0, 1]. Give `count`, `threshold` or both.
        absorb: what consumers read in place of a removed unit: `Affine` or
            "affine", a multiple of the unit most correlated with it;
            `LeastSquares` or "least_squares", a linear combination of all
            units that stay.
        layers: the layers to remove units from: a name, a regular expression,
            a list of them, or a callable that takes a layer and returns a
            bool. By default all.
        skip: layers to leave alone, given in the same ways.
        min_units: how many units of each layer stay at least.
        batch_size: for arrays in `data`.
        steps: how many batches of `data` to use at most, as for `plan`.
        optimizer: whether the smaller model keeps the state of the model's
            optimizer, and its `NoiseOutputs`, to go on with training, as for
            `plan`.

    Returns:
        A new `keras.Model`, compiled with the same arguments if `model` was.

    Raises:
        TypeError: neither `count` nor `threshold` is given, or an argument is
            of a wrong type.
        ValueError: an argument is out of range, `data` is empty or does not
            fit the model, or the model cannot be rebuilt.

    Example:

        small = kr.merge_correlated(model, images, threshold=0.95)

    Source: Babaeizadeh, Smaragdis and Campbell, A Simple yet Effective Method
    to Prune Dense Layers of Neural Networks (2016), algorithm 1, there with
    one pair at a time.
    """
    _check_amount(count, threshold)
    absorb, said = absorb_of(absorb, fits=True)
    if not absorb.needs_data:
        raise ValueError(
            f"{said} is not fitted to data, as merge_correlated needs it. Pass "
            "kr.Affine() or kr.LeastSquares()."
        )
    arguments.check_count("min_units", min_units)
    arguments.check_count("batch_size", batch_size)
    check_steps(steps, data)
    graph = graph_to_cut(model, data, False, optimizer)
    require_rebuildable(graph.model)
    spaces = [space for space in graph.spaces if space.producers]
    _, reasons = levels_of(graph.model, spaces, "tau", 1.0, layers, skip)
    free = [s for s, why in zip(spaces, reasons, strict=True) if not why]
    data = calibration_of(model, graph, free, data, steps, batch_size, False)
    if data.statistics is None:
        return Plan(
            graph, (), "medoid", DropAbsorber(), optimizer=optimizer
        ).apply()
    statistics, decisions = data.statistics, []
    homes = homes_of_shifts(graph)
    units = [
        _CorrelatedUnits.of(
            space, [] if reason else statistics.of_space(space), homes
        )
        for space, reason in zip(spaces, reasons, strict=True)
    ]
    _merge_most_correlated(units, count, threshold or 0.0, min_units)
    for space, reason, each in zip(spaces, reasons, units, strict=True):
        selection = Selection(each.stands_for)
        decisions.append(Decision(space, None, None, selection, reason))
    absorber = absorb.absorber(statistics, Idle(), folded=False)
    return Plan(
        graph, tuple(decisions), "medoid", absorber, optimizer=optimizer
    ).apply()


def _check_amount(count, threshold):
    if count is None and threshold is None:
        raise TypeError(
            "merge_correlated received neither count= nor threshold=, so it "
            "does not know how many units to remove. Pass count= (units), "
            "threshold= (a correlation), or both."
        )
    if count is not None:
        arguments.check_count("count", count)
    if threshold is not None:
        meaning = "a |correlation| of two units, which is in [0, 1]"
        arguments.check_fraction(
            "threshold", threshold, meaning, zero=True, one=True, example=0.9
        )


@dataclasses.dataclass(eq=False)
class _CorrelatedUnits:
    """The n units of a space, of which some are merged into others.

    Attributes:
        correlation: |correlation| of each two units, shape (n, n); infinite
            with a unit that is constant. For a consumer without a bias, which
            could take the constant part, it is |cosine|. Of several consumers,
            the least one. None if the activations are not known.
        energy: the variance of each unit times the squared weights that read
            it, summed over consumers, shape (n,).
        stands_for: for each unit the one whose output is read in its place,
            shape (n,); itself if it stays.
    """

    correlation: np.ndarray | None
    energy: np.ndarray
    stands_for: np.ndarray

    @classmethod
    def of(cls, space, views, homes):
        """From what consumers read: the views, and homes of their biases."""
        correlation, energy = None, np.zeros(space.size)
        for view, own in views:
            if view.each > 1:  # Vectors have no correlation.
                return cls(None, energy, np.arange(space.size))
            moments = view.moments.part(own)
            covariance = moments.covariance
            if id(view.on.variable) not in homes:
                covariance = covariance + np.outer(moments.mean, moments.mean)
            variance = np.diag(covariance)
            strength = np.square(weights_of(view, own)).sum(axis=1)
            energy = energy + variance * strength
            found = _correlation(covariance)
            if correlation is not None:
                found = np.minimum(found, correlation)
            correlation = found
        return cls(correlation, energy, np.arange(space.size))

    def pairs(self, threshold):
        """|correlation|, shape (pairs,), and the two units, (2, pairs)."""
        if self.correlation is None:
            return np.zeros(0), np.zeros((2, 0), int)
        above = np.triu(self.correlation >= threshold, 1)
        pairs = np.stack(np.nonzero(above))
        return self.correlation[tuple(pairs)], pairs

    def merge(self, pair, least):
        """Merge one of two units into the other, if both are still there.

        A constant unit goes before one that is not, with all that was merged
        into it, which is constant too. Otherwise a unit that others were
        merged into stays, and the one of less energy goes. `least` units stay
        at least.

        Returns:
            Whether a unit was removed.
        """
        stays = self.stands_for == np.arange(len(self.stands_for))
        if not stays[pair].all() or stays.sum() <= least:
            return False
        constant = np.isinf(np.diag(self.correlation))[pair]
        needed = np.array([(self.stands_for == x).sum() > 1 for x in pair])
        if needed.all() and not constant.any():
            return False
        gone = int(np.lexsort((self.energy[pair], needed, ~constant))[0])
        self.stands_for[self.stands_for == pair[gone]] = pair[1 - gone]
        return True


def _correlation(covariance):
    """|correlation| of each two units; infinite with one that is constant."""
    variance = np.diag(covariance)
    alive = varies(variance)
    scale = 1 / np.sqrt(np.where(alive, variance, 1))
    found = np.abs(covariance * scale * scale[:, None])
    found[~alive] = found[:, ~alive] = np.inf
    return found


def _merge_most_correlated(spaces, count, threshold, least):
    """Remove up to `count` units, those of the most correlated pairs first."""
    found = [units.pairs(threshold) for units in spaces]
    correlation = np.concatenate([values for values, _ in found])
    owner = np.repeat(np.arange(len(found)), [len(x) for x, _ in found])
    pairs = np.concatenate([pairs for _, pairs in found], axis=1)
    left = len(correlation) if count is None else count
    for number in np.argsort(-correlation, kind="stable"):
        if not left:
            break
        left -= spaces[owner[number]].merge(pairs[:, number], least)
