"""How much goes: by tau, by ratio, or by what is to be left."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.planning import choosing, methods
from keras_redundancy.planning.budgets import Costs
from keras_redundancy.planning.latency import Stopwatch
from tests import models

DATA_FREE = ["clusters", "random", "l1", "fpgm"]
EVERY = [*DATA_FREE, "pivoted", "greedy"]


def wide():
    """Wide enough that one unit is less than one percent."""
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(48, 3, padding="same", activation="relu")(x)
    z = layers.Conv2D(48, 3, padding="same", activation="relu")(y)
    x = layers.Conv2D(40, 3, activation="relu")(layers.Add()([y, z]))
    x = layers.AveragePooling2D(5)(x)
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    return models.randomized(keras.Model(inputs, layers.Dense(5)(x)))


@functools.cache
def calibrated():
    """A wide model, and its calibration: plans change neither of them."""
    model = wide()
    return model, kr.calibrate(model, models.random_inputs(model, batch=100))


def with_options(select):
    """A wide model, and how to plan what is cut of it."""
    model, data = calibrated()
    data = data if select in ("pivoted", "greedy") else None
    return model, {"select": select, "data": data, "rounds": 0, "seed": 0}


# --- ratio ------------------------------------------------------------------


@pytest.mark.parametrize("select", EVERY)
def test_a_ratio_is_the_share_of_units_that_go(select):
    model, options = with_options(select)
    plan = kr.plan(model, ratio=0.25, **options)
    kept = [kept for kept, _ in models.widths(plan).values()]
    assert kept[:4] == [24, 36, 30, 48]
    small = plan.apply()
    assert small.count_params() == plan.parameters[1]
    assert kr.flops(small) == plan.flops[1]


def test_ratios_by_layer_and_the_smallest_counts_on_a_stream():
    model = wide()
    names = [layer.name for layer in model.layers if layer.weights]
    ratios = {names[0]: 0.5, names[1]: 0.5, names[2]: 0.25, names[3]: None}
    plan = kr.plan(model, ratio=ratios, select="l1")
    kept = [kept for kept, _ in models.widths(plan).values()]
    assert kept == [16, 36, 40, 64, 5]
    assert "left out by layers=, skip= or ratio=" in plan.decisions[2].reason


def test_more_units_than_have_any_likeness_can_go():
    """Clusters of orthogonal filters: no tau puts two of them in one."""
    model = models.randomized(models.mlp())
    model.layers[0].kernel.assign(np.eye(12, 16))
    plan = kr.plan(model, ratio=0.5, layers="dense")
    assert models.widths(plan)["dense"] == (8, 8)
    plan.apply()


# --- rankings ---------------------------------------------------------------


def test_l1_keeps_the_largest_sums_of_weights():
    model = models.randomized(models.mlp())
    kernel = models.numpy(model.layers[0].kernel)
    plan = kr.plan(model, ratio=0.5, select="l1", layers="dense")
    order = np.abs(kernel).sum(axis=0).argsort()
    kept = plan.decisions[0].selection.kept
    assert set(kept) == set(order[8:])


@pytest.mark.parametrize("at_a_time", [2**24, 40])
def test_fpgm_keeps_the_farthest_from_all_others(at_a_time, monkeypatch):
    monkeypatch.setattr(methods, "DISTANCES", at_a_time)
    model = models.randomized(models.mlp())
    kernel = models.numpy(model.layers[0].kernel).T
    plan = kr.plan(model, ratio=0.5, select="fpgm", layers="dense")
    distances = np.linalg.norm(kernel[:, None] - kernel, axis=-1).sum(axis=1)
    kept = plan.decisions[0].selection.kept
    assert set(kept) == set(distances.argsort()[8:])


def test_folded_filters_are_what_the_next_layer_sees():
    """Norms that BatchNormalization turns around."""
    model = models.randomized(models.vgg())
    gamma = np.linspace(0.01, 10, 8) / np.linalg.norm(
        models.numpy(model.layers[0].kernel).reshape(-1, 8), axis=0
    )
    model.layers[1].gamma.assign(gamma)
    options = {"ratio": 0.5, "select": "l1", "layers": "conv2d"}
    folded = kr.plan(model, criterion="folded", **options)
    assert set(folded.decisions[0].selection.kept) == {4, 5, 6, 7}
    plain = kr.plan(model, **options)
    assert set(plain.decisions[0].selection.kept) != {4, 5, 6, 7}


def test_folded_filters_tell_biases_apart():
    """Parallel filters, but one unit is always off and one always on."""
    model = models.randomized(models.mlp())
    kernel, bias = (models.numpy(w) for w in model.layers[0].weights)
    kernel[:, 1] = kernel[:, 0]
    bias[:2] = -5, 5
    model.layers[0].kernel.assign(kernel)
    model.layers[0].bias.assign(bias)
    by_filters = kr.plan(model, 0.99, layers="dense")
    folded = kr.plan(model, 0.99, layers="dense", criterion="folded")
    assert models.widths(by_filters)["dense"] == (15, 1)
    assert models.widths(folded)["dense"] == (16, 0)


def test_activations_find_what_filters_do_not_show():
    """Two units with other filters that fire alike on this data."""
    model = models.randomized(models.mlp())
    kernel, bias = (models.numpy(w) for w in model.layers[0].weights)
    kernel[:, 3] = np.roll(kernel[:, 8], 6)
    bias[3] = bias[8]
    model.layers[0].kernel.assign(kernel)
    model.layers[0].bias.assign(bias)
    half = np.random.default_rng(0).normal(size=(300, 6)).astype("float32")
    data = np.concatenate([half, half], axis=1)
    options = {"tau": 0.999, "select": "clusters", "layers": "dense"}
    seen = kr.plan(model, criterion="activations", data=data, **options)
    assert models.widths(seen)["dense"] == (15, 1)
    assert models.widths(kr.plan(model, **options))["dense"] == (16, 0)
    models.assert_same_function(model, seen.apply(), data)


def test_constant_activations_go_together():
    """They have no correlation, and a bias can stand for each of them."""
    model = models.randomized(models.mlp())
    bias = models.numpy(model.layers[0].bias)
    bias[[2, 5, 9]] = -1000
    model.layers[0].bias.assign(bias)
    data = models.random_inputs(model, batch=200)
    for options in (
        {"criterion": "activations", "select": "clusters"},
        {"select": "clusters"},
        {"select": "l1"},
        {"select": "greedy"},
        {"select": "pivoted"},
    ):
        plan = kr.plan(
            model, ratio=2 / 16, data=data, layers="dense", **options
        )
        assert set(plan.decisions[0].selection.removed) < {2, 5, 9}
        models.assert_same_function(model, plan.apply(), data)


# --- the correlation of what consumers compute ------------------------------


@pytest.mark.parametrize("select", ["pivoted", "greedy"])
def test_more_stays_for_a_higher_correlation(select):
    model, options = with_options(select)
    parameters = [
        kr.plan(model, correlation=level, **options).parameters[1]
        for level in (0.3, 0.6, 0.9, 0.99, 1)
    ]
    assert parameters == sorted(parameters)
    assert parameters[0] < 0.3 * model.count_params()


def test_correlation_says_what_is_left_of_what_consumers_compute():
    """One linear layer: 1 - r^2 of its outputs' variance is lost."""
    model = keras.Sequential(
        [keras.Input((20,)), layers.Dense(30), layers.Dense(4)]
    )
    models.randomized(model)
    data = models.random_inputs(model, batch=2000)
    (before,) = models.outputs(model, data)
    for level in (0.7, 0.9):
        small = kr.prune(model, correlation=level, data=data)
        (after,) = models.outputs(small, data)
        lost = (before - after).var(axis=0).sum() / before.var(axis=0).sum()
        assert 0.5 * (1 - level**2) < lost <= 1.01 * (1 - level**2)


def test_tau_is_the_similarity_of_filters_with_and_without_data():
    model = models.randomized(models.vgg())
    models.plant(model)
    data = models.random_inputs(model, batch=50)
    for tau in (0.2, 0.5, 0.9999):
        without = models.widths(kr.plan(model, tau))
        assert models.widths(kr.plan(model, tau, data=data)) == without


def test_a_layer_that_never_fires_keeps_one_unit():
    """Nothing to tell is not the same as no answer."""
    model = models.randomized(models.mlp())
    model.layers[0].bias.assign(models.numpy(model.layers[0].bias) - 1000)
    data = models.random_inputs(model, batch=50)
    for options in ({"tau": 0.9}, {"correlation": 0.9}):
        plan = kr.plan(model, data=data, layers="dense", **options)
        assert models.widths(plan)["dense"] == (1, 15)
        models.assert_same_function(model, plan.apply(), data)


# --- targets ----------------------------------------------------------------


def left(plan, what):
    """The share of it that a plan leaves."""
    if what == "units":
        cut = [d for d in plan.decisions if d.reason is None]
        kept = sum(len(d.selection.kept) for d in cut)
        return kept / sum(d.space.size for d in cut)
    before, after = plan.flops if what == "flops" else plan.parameters
    return after / before


@pytest.mark.parametrize("what", ["flops", "params", "units"])
@pytest.mark.parametrize("select", EVERY)
def test_targets_are_met_within_one_percent(select, what):
    model, options = with_options(select)
    for share in (0.7, 0.3):
        plan = kr.plan(model, target={what: share}, **options)
        assert share - 0.01 <= left(plan, what) <= share
    small = plan.apply()
    assert (kr.flops(small), small.count_params()) == (
        plan.flops[1],
        plan.parameters[1],
    )


def test_targets_are_monotone_and_deterministic():
    model, options = with_options("greedy")
    shares = np.linspace(0.1, 1, 10)
    sizes = [
        kr.plan(model, target={"params": s}, **options).parameters[1]
        for s in shares
    ]
    assert sizes == sorted(sizes)
    assert sizes[-1] == model.count_params()
    again = kr.plan(model, target={"params": 0.5}, **options)
    plan = kr.plan(model, target={"params": 0.5}, **options)
    assert models.widths(plan) == models.widths(again)


def test_parameters_of_biases_that_are_made_count():
    inputs = keras.Input((8,))
    x = layers.Dense(40, activation="relu", name="hidden")(inputs)
    x = layers.Dense(64, use_bias=False, name="wide")(x)
    x = layers.Dense(2)(layers.ReLU()(x))
    model = models.randomized(keras.Model(inputs, x))
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel[:, ::2], bias[::2] = 0, 1.0
    model.get_layer("hidden").set_weights([kernel, bias])
    for share in (0.9, 0.7, 0.5):
        plan = kr.plan(model, "l1", target={"params": share}, skip="wide")
        assert plan.apply().count_params() == plan.parameters[1]
        assert share - 0.03 <= plan.parameters[1] / plan.parameters[0] <= share


@pytest.mark.filterwarnings("error")
def test_units_of_a_model_without_any_that_can_go():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert kr.plan(model, target={"units": 1.0}).parameters == (8, 8)


def test_targets_with_other_options():
    model = wide()
    plan = kr.plan(
        model, target={"flops": 0.5}, select="l1", round_to=8, min_units=16
    )
    kept = [kept for kept, _ in models.widths(plan).values()][:4]
    assert all(n % 8 == 0 and n >= 16 for n in kept)
    assert plan.flops[1] <= 0.5 * plan.flops[0]
    last = [layer.name for layer in model.layers if layer.weights][-2]
    plan = kr.plan(model, target={"params": 0.6}, select="l1", skip=last)
    assert models.widths(plan)[last][1] == 0
    assert 0.59 <= plan.parameters[1] / plan.parameters[0] <= 0.6


@pytest.mark.filterwarnings(models.NOT_OPENED)
@pytest.mark.parametrize("name", models.FACTORIES)
def test_costs_are_those_of_the_plan(name):
    """Of any widths, without building or even choosing anything."""
    model = models.randomized(models.FACTORIES[name]())
    plan = kr.plan(model, ratio=0.4, select="random", seed=0)
    small = plan.apply()
    spaces = [d.space for d in plan.decisions]
    costs = Costs(plan.graph, spaces)
    sizes = [space.size for space in spaces]
    kept = [len(d.selection.kept) for d in plan.decisions]
    assert costs.parameters(sizes) == plan.parameters[0]
    assert costs.parameters(sizes) == model.count_params()
    assert costs.parameters(kept) == plan.parameters[1] == small.count_params()
    assert costs.flops(sizes) == plan.flops[0]
    assert costs.flops(kept) == plan.flops[1]
    if plan.flops[0] is not None:
        assert plan.flops == (kr.flops(model), kr.flops(small))


# --- what cannot be ---------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, TypeError, "received none of them"),
        ({"tau": 0.9, "ratio": 0.5}, TypeError, "received tau= and ratio="),
        ({"ratio": 1}, ValueError, "share of units to remove"),
        ({"ratio": -0.1}, ValueError, "share of units to remove"),
        ({"ratio": "half"}, TypeError, "'half'"),
        ({"ratio": {"dense": 2}}, ValueError, r"ratio\['dense'\]"),
        ({"target": 0.5}, TypeError, "a mapping with one entry"),
        ({"target": {"flops": 1, "params": 1}}, TypeError, "one entry"),
        ({"target": {"time": 0.5}}, ValueError, "flops, params"),
        ({"target": {"flops": 0}}, ValueError, "the share that is to be left"),
        ({"target": {"flops": True}}, TypeError, "e.g. 0.5"),
        ({"target": {"flop": 0.5}}, ValueError, "Ask for a share of one of"),
        ({"target": {"flops": 0.001}}, ValueError, "cannot be reached"),
        ({"target": {"units": 1e-3}}, ValueError, r"target of 0\.0\d+ units"),
        ({"tau": 0.9, "select": "l1"}, ValueError, "Pass ratio="),
        ({"tau": 0.9, "select": "greedy"}, ValueError, "pass data="),
        ({"tau": 0.9, "absorb": "affine"}, ValueError, "pass data="),
        ({"tau": 0.9, "criterion": "activations"}, ValueError, "pass data="),
        ({"tau": 0.9, "criterion": "best"}, ValueError, "'folded'"),
        ({"tau": 0.9, "rounds": -1}, ValueError, "rounds"),
        ({"tau": 0.9, "batch_size": 0}, ValueError, "batch_size"),
        ({"correlation": 0.9}, ValueError, "pass data="),
        ({"correlation": 1.5}, ValueError, "pass data="),
        ({"ratio": 0.5, "linkage": "single"}, ValueError, "Leave linkage="),
        ({"ratio": 0.5, "keep": "random"}, ValueError, "Leave keep= out"),
        (
            {"ratio": 0.5, "rounds": 5},
            ValueError,
            "no effect: it says",
        ),
        ({"tau": 0.5, "repair": True}, ValueError, "nothing to mend with"),
    ],
)
def test_options_that_make_no_sense(options, error, words):
    with pytest.raises(error, match=words):
        kr.plan(models.randomized(models.mlp()), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": 0.9, "select": "greedy"}, "Pass correlation="),
        ({"correlation": 0.9, "select": "l1"}, "correlation does not go with"),
        ({"correlation": 1.5}, "between what consumers compute"),
        ({"ratio": 0.5, "criterion": "folded"}, "Leave criterion= out"),
        ({"ratio": 0.5, "repair": False, "rounds": 2}, "leave rounds= out"),
        (
            {"tau": 0.9, "keep": "mean", "absorb": "affine"},
            "keep='mean' does not go with",
        ),
        ({"ratio": 0.5, "select": "greedy", "keep": "mean"}, "'greedy'"),
    ],
)
def test_options_that_make_no_sense_with_data(options, words):
    model = models.randomized(models.mlp())
    data = models.random_inputs(model, batch=50)
    with pytest.raises(ValueError, match=words):
        kr.plan(model, data=data, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.5, "rounds": 0, "repair": False, "seed": 3},
        {"tau": 0.5, "select": "random", "linkage": "single"},
    ],
)
def test_what_asks_for_nothing_may_be_said(options):
    model = models.randomized(models.mlp())
    assert kr.plan(model, **options).parameters[0] == model.count_params()


# --- latency ----------------------------------------------------------------


class Clock:
    """A stopwatch that counts multiply-adds: time without noise."""

    def __init__(self, model, batch_size, shapes=None):
        self.whole = kr.flops(model)

    def race_with(self, small):
        return lambda: 0.2 + 0.8 * kr.flops(small) / self.whole


@pytest.mark.parametrize("select", ["l1", "greedy"])
def test_a_latency_is_met(monkeypatch, select):
    monkeypatch.setattr(choosing, "Stopwatch", Clock)
    model, options = with_options(select)
    plan = kr.plan(model, target={"latency": 0.6}, **options)
    assert 0.57 < plan.latency <= 0.6
    assert 0.46 < plan.flops[1] / plan.flops[0] <= 0.5
    assert "latency, as measured:" in str(plan)
    assert kr.flops(plan.apply()) == plan.flops[1]


def test_a_latency_that_cannot_be_met(monkeypatch):
    monkeypatch.setattr(choosing, "Stopwatch", Clock)
    with pytest.raises(ValueError, match="the fastest of the"):
        kr.plan(wide(), target={"latency": 0.1})


def test_a_stopwatch_measures_and_changes_nothing():
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(2048, activation="relu"),
            layers.Dense(2048, activation="relu"),
            layers.Dense(2),
        ]
    )
    before = model.get_weights()
    plan = kr.plan(model, ratio=0.9)
    share = Stopwatch(model, 256).race_with(plan.apply())()
    assert 0 < share < 1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_stopwatch_takes_integers_and_no_open_sizes():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 16)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    assert Stopwatch(model, 2).race_with(model)() > 0
    open_ = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4)])
    with pytest.raises(ValueError, match="an open size"):
        Stopwatch(open_, 2)
