"""Decide what goes: `plan`, and `prune`, which builds it at once."""

from __future__ import annotations  # help() shows the names of types.

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Unpack

import keras

from keras_redundancy._keras.fingerprint import Snapshot
from keras_redundancy._shared.arguments import Layers, Level, check_verbose
from keras_redundancy._shared.progress import showing
from keras_redundancy.building.rebuild import require_rebuildable
from keras_redundancy.building.stock import layers_for_training
from keras_redundancy.building.stripping import require_trained, stock
from keras_redundancy.calibration import Calibration
from keras_redundancy.calibration.data import (
    Samples,
    batches,
    shapes_to_open_on,
)
from keras_redundancy.calibration.reuse import check_steps
from keras_redundancy.channels import trace
from keras_redundancy.channels.filters import require_finite_carriers
from keras_redundancy.channels.functional import with_graph
from keras_redundancy.channels.sizes import at_shapes, checked_shapes
from keras_redundancy.planning.absorbing import Absorb, Mend
from keras_redundancy.planning.choosing import Chooser
from keras_redundancy.planning.decisions import Plan
from keras_redundancy.planning.inlining import needing_inline
from keras_redundancy.planning.levels import LEVELS, levels_of
from keras_redundancy.planning.method import Method
from keras_redundancy.planning.nothing_removed import (
    warn_if_nothing_can_go,
    warn_if_rounded_up,
)
from keras_redundancy.planning.request import Options, requested


def plan(
    model: keras.Model,
    method: Level | Method | Callable | str | None = None,
    *,
    tau: Level | None = None,
    ratio: Level | None = None,
    target: Mapping[str, float] | None = None,
    correlation: Level | None = None,
    data=None,
    absorb: str | Absorb | None = None,
    mend: bool | Mend | None = None,
    layers: Layers = None,
    skip: Layers = None,
    verbose: bool = False,
    **options: Unpack[Options],
) -> Plan:
    """Decide which units of a model are redundant and can be removed.

    Pass one of `tau`, `ratio`, `target` and `correlation` to say how many
    units to remove. An option that would have no effect is refused.

        kr.plan(model, 0.9)  # tau
        kr.plan(model, kr.Clusters(0.9, linkage="single", keep="mean"))
        kr.plan(model, kr.Greedy(), target={"flops": 0.5}, data=images)
        kr.plan(model, lambda units: units.norms, ratio=0.3)

    A unit is a neuron of a `Dense` layer or a filter of a convolution; its
    consumers are the layers that read it; a space is all units that share
    their channels: those of one layer, or of all layers that write to one
    residual stream.

    Args:
        model: a built `keras.Model`: functional, Sequential, or subclassed
            with a `call` that `functional` can record. It is never changed.
            The smaller model of a subclassed one takes inputs of the shapes
            that it was called on; for open sizes, such as lengths of
            sequences, pass functional(model, keras.Input((None,))).
        method: which units stay: a `Clusters`, `Random`, `L1`, `FPGM`,
            `Greedy`, `Pivoted`, `Taylor` or `BatchNormalizationScales`; one
            of the short names "clusters", "random", "l1", "fpgm", "greedy",
            "pivoted", "taylor" and "batch_normalization_scales"; or, with
            `ratio` or `target`, a function of your own from the n units of a
            space to their scores, shape (n,): units with larger scores stay.
            It sees `units.filters`, shape (z, n), `units.norms`, shape (n,),
            and with `data` in `units.readers` what each consumer reads of
            them.
            A number, a mapping or (without `ratio` and `target`) a function of
            a layer is a tau. Default: "clusters" for tau; else "greedy" with
            data, and "l1" without, which loses less than "clusters" there.
        tau: the cosine similarity of filters above which units count as
            redundant, in (0, 1]. At 1, a unit is redundant only if it equals
            another unit, or a positive multiple of it, in everything that
            belongs to it: filter, bias, BatchNormalization and whatever else
            carries its channel. tau is a number for all layers; a mapping from
            layer names or regular expressions to numbers, which leaves all
            other layers alone; or a function that takes a layer and returns a
            number or None. Where several layers write the same channels (a
            residual stream), the largest of their thresholds counts, and if
            one of these layers is left alone, so are the channels. Constant
            units are removed at any tau, if the consumers' biases can take
            over the constant.
        ratio: the share of units that go, in [0, 1), given like tau. Where
            several layers write the same channels, the smallest of their
            ratios counts.
        target: what is to be left: {"flops": 0.5} for half of the
            multiply-adds, {"params": 0.3} of the parameters, {"units": 0.2} of
            all units that can be removed, or {"latency": 0.5} of the time that
            predicting a batch takes. Latency is measured on this machine, for
            several cuts, so the result varies from call to call. To meet the
            target, `Clusters` finds one tau for all layers, and a method that
            scores units finds one ratio; `Greedy`, `Pivoted` and `Taylor`
            remove the units that add the least error for the cost that they
            save.
        correlation: for `Greedy` and `Pivoted`, with `data`: the least
            correlation between what each consumer computes before and after,
            in (0, 1], given like tau. The share 1 - correlation^2 of the
            variance may be lost.
        data: some hundred or thousand samples to calibrate on, prepared as
            for training (scaled alike, for example): what `Model.predict`
            takes; targets are ignored. With a few samples, much is lost, and
            on data of another kind everything. Positions of a
            sequence do not count where it is masked, by Keras or by an input
            whose name ends in "padding_mask". Or what `calibrate` returned,
            to plan several times on one pass over the data.
        absorb: what consumers read in place of removed units: `Merge`, `Drop`
            or, with `data`, `LeastSquares` or `Affine`; or "merge", "drop",
            "least_squares" or "affine". Default: "least_squares" with data,
            "merge" without.
        mend: whether the smaller model is fitted to return what the original
            returns on `data`; or a `Mend` or `Distill`, which say how.
            Default: True with `data`. Fitting takes most of the time.
        layers: prune these layers only: a name, a regular expression, a list
            of them, or a function that takes a layer and returns a bool. The
            name of a nested model, or of a layer made of layers, stands for
            all inside of it; "a/d" is the layer "d" of the nested model "a".
        skip: leave these layers alone, given in the same ways.
        verbose: whether to draw progress bars: of the batches of `data`, and
            of the spaces whose units are ranked.
        **options:
            batch_size: for arrays in `data`, and for measuring latency, unless
                the model fixes the size of a batch; 128.
            steps: how many batches of `data` to use at most. Data without an
                end need it; of data of unknown length, such as a generator,
                the first 10,000 samples are used without it, with a warning
                if there are more.
            input_shape: for a model with open input sizes, that of one sample
                to count multiply-adds and measure latency on, such as
                (224, 224, 3); for several inputs a list of shapes, or a
                mapping from their names. Default: that of the samples in the
                first batch of `data`.
            round_to: round the number of kept units up to a multiple of this.
            min_units: keep at least this many units of each space.
            allow_inexact: also prune channels over which something is
                computed, as by a LayerNormalization or a softmax. To remove
                one of these channels changes what the model computes, even if
                it is an exact copy of another one.
            inline: what becomes of a layer of your own, or made of layers, if
                neither an argument of its constructor nor what it reads sets
                a width inside it. With True, the graph inside takes its place
                in the smaller model, which is then made of Keras's layers;
                with False, that width stays. Default: True,
                unless that would fix an input size that is open, such as the
                length of the sequence that a mask is made for.
            optimizer: whether training goes on: the smaller model then keeps
                the `NoiseOutputs` of `model` and the state of its optimizer:
                iterations, learning rate, and momenta and averages, which are
                cut like the weights. By default the optimizer is a fresh one.
            select: another name of `method`.
            criterion, linkage, keep, seed: options of the method, such as
                `Clusters(linkage="single")`, where it is given by a short
                name or by default.
            repair, rounds: repair=False is mend=False, and rounds=2 is
                mend=Mend(rounds=2).

    Returns:
        A `Plan`, which can be printed, changed by hand and applied.

    Raises:
        TypeError: the model has no graph to follow, an argument is of a wrong
            type or of another kind, or an option is not known.
        ValueError: the model is not built, has quantized or LoRA-enabled
            layers, weights that are NaN, or a layer that cannot be rebuilt;
            `data` is empty, has no end, does not fit, or is a calibration of
            other weights; the target cannot be reached; scores are NaN or not
            one for each unit; there is no optimizer to go on with; or an
            option is out of range, or does not fit another.

    Warns:
        UserWarning: not all of `data` is used, since its length is unknown.
    """
    check_verbose(verbose)
    given = dict(zip(LEVELS, (tau, ratio, target, correlation), strict=True))
    asked = requested(method, given, data is not None, absorb, mend, options)
    check_steps(asked.steps, data)
    shapes = None
    if not isinstance(data, Calibration):
        model = with_graph(model, asked.input_shape)
        shapes = _shapes(model, data, asked)
    graph = graph_to_cut(
        model, data, asked.allow_inexact, asked.optimizer, shapes
    )
    spaces = [space for space in graph.spaces if space.producers]
    levels, reasons = _levels_of(graph, spaces, asked, layers, skip)
    cut = [s for s, reason in zip(spaces, reasons, strict=True) if not reason]
    require_finite_carriers(cut)
    if data is not None:
        seen = cut if asked.needs_statistics else []
        own = asked.steps, asked.batch_size, asked.allow_inexact
        with showing(verbose):
            data = calibration_of(model, graph, seen, data, *own)
    graph = _counted(graph, asked.input_shape, data)
    chooser = Chooser.of(graph, cut, data, asked, levels)
    with showing(verbose):
        decisions, latency = chooser.decide(spaces, levels, reasons)
    repair = None
    if asked.mend is not None:
        repair = asked.mend.repair(data.data, data.batch_size)
    return Plan(
        graph,
        decisions,
        keep="mean" if asked.method.means else "medoid",
        absorber=chooser.absorber,
        repair=repair,
        latency=latency,
        optimizer=asked.optimizer,
        compared=chooser.compared,
        idle=chooser.idle,
        weights=Snapshot(model),
    )


def _levels_of(graph, spaces, asked, layers, skip):
    """As `levels_of`; spaces inside layers that keep their class stay, too."""
    levels, reasons = levels_of(
        graph.model, spaces, asked.how, asked.level, layers, skip
    )
    require_rebuildable(graph.model)
    inside = needing_inline(graph, spaces, asked.inline)
    reasons = [x or y for x, y in zip(reasons, inside, strict=True)]
    levels = [None if y else x for x, y in zip(levels, reasons, strict=True)]
    return levels, reasons


def prune(
    model: keras.Model,
    method: Level | Method | Callable | str | None = None,
    *,
    tau: Level | None = None,
    ratio: Level | None = None,
    target: Mapping[str, float] | None = None,
    correlation: Level | None = None,
    data=None,
    absorb: str | Absorb | None = None,
    mend: bool | Mend | None = None,
    layers: Layers = None,
    skip: Layers = None,
    verbose: bool = False,
    **options: Unpack[Options],
) -> keras.Model:
    """Remove the redundant units of a model: `plan(...).apply()`.

        small = kr.prune(model, 0.9)
        small.save("small.keras")

        half = kr.prune(model, target={"flops": 0.5}, data=images)

    Args:
        model, method, tau, ratio, target, correlation, data, absorb, mend,
            layers, skip, **options: as for `plan`, which describes them.
        verbose: whether to draw progress bars: those of `plan`, and one of
            the layers that are mended.

    Returns:
        A new, smaller `keras.Model` of stock layers. `save` it, and
        `keras.models.load_model` opens it where this package is absent. If
        `model` was compiled, so is the new one.

    Warns:
        UserWarning: no unit can go, since all are frozen, or those of the
            layers that `layers` or a mapping names; or none goes at a ratio,
            because of `round_to` or `min_units`; or as `plan`.

    Raises:
        TypeError, ValueError: as `plan` and `Plan.apply`.
    """
    found = plan(
        model,
        method,
        tau=tau,
        ratio=ratio,
        target=target,
        correlation=correlation,
        data=data,
        absorb=absorb,
        mend=mend,
        layers=layers,
        skip=skip,
        verbose=verbose,
        **options,
    )
    found = dataclasses.replace(found, weights=None)  # They are the same.
    small = found.apply(verbose=verbose)
    levels = method, tau, ratio, correlation
    names_layers = any(isinstance(x, Mapping) for x in levels)
    warn_if_nothing_can_go(found, names_layers or layers is not None)
    if ratio is not None and not found.removed.any():
        warn_if_rounded_up(found, (ratio, layers, skip), options)
    return small


def require_possible(model, options: Mapping) -> None:
    """Check options of `prune` before a long training, without a cut.

    Args:
        model: as for `plan`.
        options: arguments of `prune` other than the model, by name. Of data=
            the first batch is looked at; of a generator none.

    Raises:
        TypeError, ValueError: as `plan`; or data= is a `Calibration`, which
            would be one of other weights after training.
    """
    data = options.get("data")
    if isinstance(data, Calibration):
        raise ValueError(
            f"data is a calibration of {model.name!r} with the weights that it "
            "has before training. Pass the samples themselves."
        )
    given = inspect.signature(prune).bind(model, **options).arguments
    levels = {how: given.get(how) for how in LEVELS}
    method, absorb, mend = map(given.get, ("method", "absorb", "mend"))
    others = given.get("options", {})
    asked = requested(method, levels, data is not None, absorb, mend, others)
    if data is not None and not isinstance(data, Iterator):
        next(batches(model, Samples(data, asked.steps), asked.batch_size))
    graph = trace(model, allow_inexact=asked.allow_inexact)
    spaces = [space for space in graph.spaces if space.producers]
    chosen = given.get("layers"), given.get("skip")
    levels_of(graph.model, spaces, asked.how, asked.level, *chosen)


def calibration_of(
    model, graph, spaces, data, steps, batch_size, allow_inexact
) -> Calibration:
    """The calibration of a model on samples, if it is not given as one.

    Args:
        model: the model.
        graph: the traced model, without layers that are for training alone.
        spaces: the spaces whose units have to be observed; without any, the
            model is not run.
        data: samples, or a `Calibration`, which is returned as it is.
        steps, batch_size, allow_inexact: as for `plan`.
    """
    if isinstance(data, Calibration):
        return data
    samples = Samples(data, steps)
    return Calibration.of(
        model, graph, spaces, samples, batch_size, allow_inexact
    )


def graph_to_cut(
    model, data, allow_inexact: bool, optimizer: bool, shapes=None
):
    """The traced model: as it is if its training goes on, else stripped.

    Raises:
        TypeError, ValueError: it has no graph to follow, training cannot go
            on, or `data` is a `Calibration` of another model.
    """
    if optimizer:
        require_trained(model)
    if isinstance(data, Calibration):
        data.check(model, allow_inexact)
        if optimizer and layers_for_training(model):
            raise ValueError(
                f"data is a calibration of {model.name!r} without its layers "
                "for training alone, such as NoiseOutputs, which stay with "
                "optimizer=True. Pass the samples themselves as data=."
            )
        return data.graph
    if not optimizer:
        model = stock(model)
    return trace(model, allow_inexact=allow_inexact, shapes=shapes)


def _shapes(model, data, asked):
    """The shape of a sample of each input, where sizes have to be known."""
    if asked.input_shape is not None:
        return checked_shapes(model, asked.input_shape)
    return shapes_to_open_on(model, data, asked.steps, asked.batch_size)


def _counted(graph, input_shape, data):
    """The graph, its FLOPs counted on what is given where sizes are open."""
    if input_shape is not None:
        return at_shapes(graph, checked_shapes(graph.model, input_shape))
    if data is not None and data.input_shape is not None:
        return at_shapes(graph, data.input_shape)
    return graph
