"""Decide what goes: `plan`, and `prune`, which builds it at once."""

import inspect
import warnings
from collections.abc import Mapping
from numbers import Real

from keras_redundancy._shared.arguments import (
    Layers,
    Level,
    check_correlation,
    check_count,
    check_option,
    check_ratio,
    levels_by_layer,
    selected_layers,
)
from keras_redundancy.build.rebuild import require_rebuildable
from keras_redundancy.build.stripping import require_trained, stock
from keras_redundancy.calibration import Calibration
from keras_redundancy.calibration.data import Samples
from keras_redundancy.calibration.reuse import check_steps
from keras_redundancy.channels import trace
from keras_redundancy.channels.filters import require_finite_carriers
from keras_redundancy.channels.sizes import at_shapes, checked_shapes
from keras_redundancy.channels.tracing import MODEL_OUTPUT
from keras_redundancy.mend.repair import Repair
from keras_redundancy.numbers.clustering import check_tau
from keras_redundancy.planning.choosing import COSTS, Chooser, Options
from keras_redundancy.planning.criteria import Compared
from keras_redundancy.planning.decisions import Plan
from keras_redundancy.planning.selection import ALMOST_ONE

# How the levels of each kind are checked.
CHECKS = {
    "tau": check_tau,
    "ratio": check_ratio,
    "correlation": check_correlation,
}
LEFT_OUT = "{names} left out by layers=, skip= or {how}="
COUPLED = "coupled with {names}, left out by layers=, skip= or {how}="


def plan(
    model,
    tau: Level | None = None,
    *,
    ratio: Level | None = None,
    target: Mapping[str, float] | None = None,
    correlation: Level | None = None,
    data=None,
    batch_size: int = 128,
    steps: int | None = None,
    input_shape=None,
    criterion: str | None = None,
    select: str | None = None,
    linkage: str | None = None,
    keep: str | None = None,
    absorb: str | None = None,
    repair: bool | None = None,
    rounds: int | None = None,
    layers: Layers = None,
    skip: Layers = None,
    round_to: int = 1,
    min_units: int = 1,
    seed: int | None = None,
    allow_inexact: bool = False,
    optimizer: bool = False,
) -> Plan:
    """Decide which units of a model are redundant and can go.

    How much goes is said by `tau`, `ratio`, `target` or `correlation`, one of
    the four. An option that would have no effect is refused.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        tau: the cosine similarity of filters above which units count as
            redundant, in (0, 1]. At 1 only units go that are the same, or
            positive multiples of one another, in all that belongs to them:
            filters, biases, BatchNormalization and all else that carries
            their channels. A number for all layers; a mapping from layer
            names or regular expressions to numbers, which leaves all other
            layers alone; or a callable that takes a layer and returns a
            number or None. Where several layers write the same channels (a
            residual stream), the largest of their thresholds counts, and one
            layer left out leaves the channels alone. Units that are constant
            go at any tau, where the consumers' biases can take the constant.
        ratio: the share of units that go, in [0, 1), given in the same ways;
            the smallest counts.
        target: what is to be left: {"flops": 0.5} for half of the
            multiply-adds, {"params": 0.3} of the parameters, {"units": 0.2}
            of all units that can go, or {"latency": 0.5} of the time that
            predicting a batch takes. That is measured on this machine, cut by
            cut, so that it is not the same each time. For
            "clusters", one tau for all layers that leads there is found; for
            "l1", "fpgm" and "random" one ratio; for "greedy" and "pivoted"
            one price: units stay that save more error for what they cost.
        correlation: with `data`, the least correlation between what each
            consumer computes before and after, in (0, 1], given like tau; so
            1 - correlation^2 of its variance may be lost. For "greedy" and
            "pivoted".
        data: some hundred or thousand samples to calibrate on: what
            `Model.predict` takes; targets are ignored. What is taken from
            them does not grow with their number. Or what `calibrate`
            returned, to plan several times on one pass over them.
        batch_size: for arrays in `data`, and for measuring latency.
        steps: how many batches of `data` to use at most. Data without an end
            need it; of data of unknown length, such as a generator, the first
            10,000 samples are used without it, with a warning if there are
            more.
        input_shape: for a model with open input sizes, that of one sample to
            count multiply-adds and measure latency on, such as (224, 224, 3);
            for several inputs a list of shapes, or a mapping from their
            names. Default: that of the samples in the first batch of `data`.
        criterion: what "clusters", "random", "l1" and "fpgm" compare:
            "filters" (the default); "folded": filters as a BatchNormalization
            behind makes them, and units of a cluster are alike in all else
            that carries their channels too, such as biases, means and slopes;
            "activations": those of `data`, by correlation.
        select: "clusters" keeps one representative of each cluster of
            similar units. "random" keeps as many units, chosen at random.
            "l1" keeps those with the largest sums of absolute weights, "fpgm"
            those farthest from all others. With `data`: "greedy" keeps the
            units that tell most of what consumers compute, "pivoted" those
            that span the others. Default: for tau "clusters"; else "greedy"
            with data, and without "l1", which loses less than clusters.
        linkage: "average" (the default), "complete" or "single" (connected
            components).
        keep: the representative of a cluster: "medoid" (the default: most
            similar to the others), "largest" (norm), "random", or "mean" (a
            new unit).
        absorb: "merge": what reads a removed unit reads its representative
            instead, scaled by the ratio of the two units' strengths where
            the path between allows it. "drop": it loses those inputs. With
            `data`, "least_squares": it reads what the removed unit is
            predicted to be from all units that stay, and its bias what is
            constant; "affine": from the one most correlated. Default:
            "least_squares" with data, "merge" without.
        rounds: with `data` and `repair`, how often one kernel after the other
            is fitted to return what it did in the original model, by default
            once: by least squares, and where a ReLU or a classifier's
            probabilities are made of that, step by step with these in mind.
            Of two `Dense` layers with nothing but a ReLU between, both are
            fitted at once. It takes a pass over `data` for each kernel: most
            of the time that pruning takes. 0 leaves it out, and loses more
            where much is cut.
        repair: with `data`, whether to estimate the statistics of every
            BatchNormalization in the smaller model anew (the default).
        layers: prune these layers only: a name, a regular expression, a list
            of them, or a callable that takes a layer and returns a bool.
        skip: leave these layers alone, given in the same ways.
        round_to: round the number of kept units up to a multiple of this.
        min_units: keep at least this many units of each space.
        seed: for the random choices of `select` and `keep`.
        allow_inexact: prune channels too that pass through something computed
            over all of them, such as a LayerNormalization or a softmax. Even
            an exact copy cannot go from there without a change of what the
            model computes.
        optimizer: for training that goes on: the smaller model is compiled
            with what the optimizer of `model` keeps, momenta and averages cut
            like the weights, its iterations and learning rate, and keeps its
            `NoiseOutputs`. By default the optimizer is a fresh one.

    Returns:
        A `Plan`, which can be printed and applied.

    Raises:
        TypeError: the model has no graph to follow, or `tau`, `ratio`,
            `target`, `layers` or `skip` is of a wrong type.
        ValueError: the model is not built, has quantized or LoRA-enabled
            layers, weights that are NaN, or a layer that cannot be rebuilt;
            `data` is empty, has no end, does not fit, or is a calibration of
            other weights; the target cannot be reached; there is no optimizer
            to go on with; or an option is out of range, unknown or does not
            fit another.

    Warns:
        UserWarning: of data of unknown length not everything is used.

    Source: similarity, clusters and selection: Ayinde, Inanc and Zurada,
    Redundant Feature Pruning for Accelerated Inference in Deep Neural
    Networks (2018). Merging: RoyChowdhury, Sharma and Learned-Miller,
    Reducing Duplicate Filters in Deep Neural Networks (2017). Affine:
    Babaeizadeh, Smaragdis and Campbell, NoiseOut (2016).
    """
    how, level = _one_of(
        tau=tau, ratio=ratio, target=target, correlation=correlation
    )
    options = Options(
        criterion,
        select,
        linkage,
        keep,
        absorb,
        round_to,
        min_units,
        seed,
        repair,
        rounds,
    ).resolved(how, has_data=data is not None)
    check_count("batch_size", batch_size)
    check_steps(steps, data)
    graph = graph_to_cut(model, data, allow_inexact, optimizer)
    spaces = [space for space in graph.spaces if space.producers]
    if how == "target":
        level = _checked_target(level)
    levels, reasons = levels_of(spaces, how, level, layers, skip)
    require_rebuildable(graph.model)
    cut = [s for s, reason in zip(spaces, reasons, strict=True) if not reason]
    require_finite_carriers(cut)
    if data is not None and not isinstance(data, Calibration):
        seen = cut if options.from_data else []
        samples = Samples(data, steps)
        data = Calibration.of(
            model, graph, seen, samples, batch_size, allow_inexact
        )
    statistics = data and data.statistics
    exact = how == "tau" and any(x and x > ALMOST_ONE for x in levels)
    compared = Compared(
        graph, cut, options.criterion, options.select, statistics, exact
    )
    idle = options.idle_units(graph, cut, statistics, how)
    graph = _counted(graph, input_shape, data)
    chooser = Chooser(graph, statistics, options, compared, idle)
    if how == "target":
        decisions, latency = chooser.for_target(
            spaces, reasons, level, batch_size
        )
    else:
        decisions = chooser.for_levels(spaces, reasons, how, levels)
        latency = None
    changes = any(len(d.selection.removed) for d in decisions)
    mend = None
    if options.repair and changes:
        mend = Repair(data.data, data.batch_size, options.rounds)
    absorber = options.absorber(statistics, idle)
    return Plan(
        graph,
        tuple(decisions),
        options.keep,
        absorber,
        mend,
        latency,
        optimizer,
    )


def prune(model, tau: Level | None = None, *, verbose: bool = False, **options):
    """Remove the redundant units of a model: `plan(...).apply()`.

    Args:
        model: a built functional or Sequential `keras.Model`. It is never
            changed.
        tau: the similarity above which units count as redundant.
        verbose: whether to draw a progress bar where `data` is given.
        **options: those of `plan`: `ratio` or `target` in place of `tau`,
            and `data` to lose less.

    Returns:
        A new, smaller `keras.Model` of stock layers. `save` it, and
        `keras.models.load_model` opens it where this package is absent. If
        `model` was compiled, so is the new one. A warning says so where no
        unit of the model can go, whatever the options.

    Raises:
        TypeError, ValueError: as `plan` and `Plan.apply`.

    Example:

        small = keras_redundancy.prune(model, tau=0.9)
        small.save("small.keras")

        half = keras_redundancy.prune(
            model, target={"flops": 0.5}, data=images
        )
    """
    found = plan(model, tau, **options)
    small = found.apply(verbose)
    _warn_if_nothing_can_go(found)
    return small


# So that help(prune) and editors list the options.
prune.__signature__ = inspect.Signature(
    [
        *inspect.signature(plan).parameters.values(),
        inspect.signature(prune).parameters["verbose"],
    ]
)


def _warn_if_nothing_can_go(found):
    spaces = [decision.space for decision in found.decisions]
    if not all(space.frozen for space in spaces):
        return
    # That of the outputs is so in all models.
    hidden = [space for space in spaces if space.frozen != MODEL_OUTPUT]
    first = next(iter(hidden or spaces), None)
    because = "no layer of it has units"
    if first is not None:
        because = f"the units of {first.name} stay, since {first.frozen}"
    warnings.warn(
        f"Nothing can go from {found.graph.model.name!r}: {because}. "
        "keras_redundancy.plan(model, tau=0.9).explain() lists all reasons.",
        stacklevel=3,
    )


def graph_to_cut(model, data, allow_inexact: bool, optimizer: bool):
    """The traced model: as it is if its training goes on, else stripped.

    Raises:
        TypeError, ValueError: it has no graph to follow, training cannot go
            on, or `data` is a `Calibration` of another model.
    """
    if optimizer:
        require_trained(model)
    if isinstance(data, Calibration):
        data.check(model, allow_inexact)
        if optimizer and data.graph.model is not model:
            raise ValueError(
                f"data is a calibration of {model.name!r} without its layers "
                "for training alone, such as NoiseOutputs, which stay with "
                "optimizer=True. Pass the samples themselves as data=."
            )
        return data.graph
    if not optimizer:
        model = stock(model)
    return trace(model, allow_inexact=allow_inexact)


def _counted(graph, input_shape, data):
    """The graph, its FLOPs counted on what is given where sizes are open."""
    if input_shape is not None:
        return at_shapes(graph, checked_shapes(graph.model, input_shape))
    if data is not None and data.input_shape is not None:
        return at_shapes(graph, data.input_shape)
    return graph


def _one_of(**levels):
    """The name and value of the one level that is given."""
    given = {how: level for how, level in levels.items() if level is not None}
    if len(given) != 1:
        named = " and ".join(f"{how}=" for how in given) or "none of them"
        raise TypeError(
            "How much goes is said by one of tau=, ratio=, target= and "
            f"correlation=, but received {named}."
        )
    return next(iter(given.items()))


def _checked_target(target):
    """(what is counted, the share of it that is to be left)."""
    if not isinstance(target, Mapping) or len(target) != 1:
        raise TypeError(
            "target must be a mapping with one entry, such as {'flops': 0.5} "
            f"for half of the multiply-adds, but received {target!r}."
        )
    what, share = next(iter(target.items()))
    check_option("target", what, COSTS)
    if not isinstance(share, Real) or not 0 < share <= 1:
        raise ValueError(
            f"target[{what!r}] is the share that is to be left, in (0, 1], "
            f"but received {share!r}."
        )
    return what, share


def levels_of(spaces, how, level, layers, skip):
    """Level and reason of every space: one of the two is None."""
    producers = {id(p): p for space in spaces for p in space.producers}
    producers = list(producers.values())
    if how == "target":
        by_layer = dict.fromkeys(map(id, producers), 0)
    else:
        by_layer = levels_by_layer(level, producers, how, CHECKS[how])
    gentlest = min if how == "ratio" else max
    chosen = set(by_layer)
    if layers is not None:
        chosen = selected_layers(layers, producers, "layers")
    chosen -= selected_layers(skip, producers, "skip")
    levels, reasons = [], []
    for space in spaces:
        out = [
            layer.name
            for layer in space.producers
            if id(layer) not in chosen or by_layer[id(layer)] is None
        ]
        reason = space.frozen
        if out and reason is None:
            everything = len(out) == len(space.producers)
            words = LEFT_OUT if everything else COUPLED
            reason = words.format(names=", ".join(out[:3]), how=how)
        reasons.append(reason)
        values = [by_layer[id(layer)] for layer in space.producers]
        levels.append(None if reason else gentlest(values))
    return levels, reasons
