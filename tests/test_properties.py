"""Any graph that the generator can draw keeps the invariants of pruning."""

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings, strategies as st

import keras_redundancy as kr
from tests import models, strategies


def examples(count):
    """So many graphs, the same ones in every run.

    A tenth of them on JAX, which takes seconds for each model that it runs
    op by op.
    """
    slow = keras.backend.backend() == "jax"
    return settings(
        max_examples=count // 10 if slow else count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def random_model(build, drawn, head, seed):
    keras.backend.clear_session(free_memory=False)
    return models.randomized(build(drawn, head), seed)


def check_planted_copies_go(model, seed):
    spaces = kr.trace(model).prunable
    before = [models.numpy(v) for v in model.variables]
    models.plant(model, seed, spaces=spaces)
    copied = [models.numpy(v) for v in model.variables]
    plan = kr.plan(model, tau=0.9999)
    removed = [len(d.selection.removed) for d in plan.decisions if not d.reason]
    assert removed == [int(0.3 * space.size) for space in spaces]
    small = plan.apply()
    models.assert_same_function(model, small, tolerance=3e-5)
    for value, variable in zip(copied, model.variables, strict=True):
        np.testing.assert_array_equal(value, models.numpy(variable))
    if sum(removed):
        assert any((a != b).any() for a, b in zip(before, copied, strict=True))
        assert small.count_params() < model.count_params()


def check_any_cut_builds(model, seed, **options):
    options = {"keep": "random", "seed": seed, **options}
    plan = kr.plan(model, tau=0.1, **options)
    small = plan.apply()
    assert small.count_params() == plan.parameters[1]
    assert kr.flops(small) == plan.flops[1]
    (answer,) = models.outputs(small, models.random_inputs(model))
    assert np.isfinite(answer).all()
    return plan, small


def check_spaces_are_those_that_stayed(plan, small):
    """A second trace agrees, unless an axis of 1 leaves it a choice."""
    kept = [len(d.selection.kept) for d in plan.decisions]
    again = [s.size for s in kr.trace(small).spaces if s.producers]
    assert sorted(again) == sorted(kept)


@examples(30)
@given(
    strategies.steps_of(strategies.EXACT), strategies.heads, strategies.seeds
)
def test_exactly_the_planted_copies_go(drawn, head, seed):
    model = random_model(strategies.build, drawn, head, seed)
    check_planted_copies_go(model, seed)


@examples(30)
@given(
    strategies.steps_of(strategies.EXACT),
    strategies.heads,
    strategies.seeds,
    st.sampled_from([1, 3]),
)
def test_any_cut_builds_what_the_plan_says(drawn, head, seed, least):
    model = random_model(strategies.build, drawn, head, seed)
    plan, small = check_any_cut_builds(model, seed, min_units=least)
    if least > 1:
        check_spaces_are_those_that_stayed(plan, small)


@examples(15)
@given(
    strategies.steps_of(strategies.EXACT, strategies.INEXACT),
    strategies.heads,
    strategies.seeds,
)
def test_any_inexact_cut_builds(drawn, head, seed):
    model = random_model(strategies.build, drawn, head, seed)
    check_any_cut_builds(model, seed, allow_inexact=True)


@examples(15)
@given(
    strategies.steps_of(strategies.SEQUENCES),
    strategies.heads,
    strategies.seeds,
)
def test_exactly_the_planted_copies_go_from_sequences(drawn, head, seed):
    model = random_model(strategies.build_sequences, drawn, head, seed)
    check_planted_copies_go(model, seed)


@examples(15)
@given(
    strategies.steps_of(strategies.SEQUENCES, strategies.INEXACT),
    strategies.heads,
    strategies.seeds,
)
def test_any_cut_of_sequences_builds(drawn, head, seed):
    model = random_model(strategies.build_sequences, drawn, head, seed)
    check_any_cut_builds(model, seed, allow_inexact=True)


def check_function_is_kept(model, plan, tolerance=1e-4):
    small = plan.apply()
    assert small.count_params() == plan.parameters[1]
    models.assert_same_function(model, small, tolerance=tolerance)


@examples(30)
@given(
    strategies.steps_of(strategies.HOMOGENEOUS),
    strategies.heads,
    strategies.seeds,
)
def test_scaled_copies_go(drawn, head, seed):
    """w and 3 w, with all that follows them, where nothing bends them."""
    model = random_model(strategies.build, drawn, head, seed)
    rng, graph = np.random.default_rng(seed), kr.trace(model)
    expected = []
    for space in graph.prunable:
        source, *targets = rng.permutation(space.size)[:2]
        scale = rng.choice([0.3, 3.0])
        same = models.scale_units(graph, space, [source], targets, scale)
        expected.append(same * len(targets))
    plan = kr.plan(model, tau=1.0, criterion="folded")
    gone = [len(d.selection.removed) for d in plan.decisions if not d.reason]
    assert np.all(np.array(gone) >= expected)
    check_function_is_kept(model, plan)


@examples(30)
@given(
    strategies.steps_of(strategies.EXACT),
    strategies.heads,
    strategies.seeds,
    st.sampled_from(["filters", "folded"]),
    st.sampled_from(["medoid", "mean"]),
)
def test_units_that_differ_stay(drawn, head, seed, criterion, keep):
    """In scale where something bends them, or in one thing behind them."""
    model = random_model(strategies.build, drawn, head, seed)
    rng, graph = np.random.default_rng(seed), kr.trace(model)
    for number, space in enumerate(graph.prunable):
        source, *targets = rng.permutation(space.size)[:2]
        if number % 2:
            models.scale_units(graph, space, [source], targets, 3.0)
        else:
            models.copy_units(space, [source], targets)
            models.change_one_carrier(space, targets, rng)
    plan = kr.plan(model, tau=1.0, criterion=criterion, keep=keep)
    check_function_is_kept(model, plan)


@examples(30)
@given(
    strategies.steps_of(strategies.EXACT),
    strategies.heads,
    strategies.seeds,
    st.sampled_from([{"tau": 0.9999}, {"tau": 0.9999, "criterion": "folded"}]),
)
def test_constant_units_go_where_that_is_exact(drawn, head, seed, options):
    """Without data, of all kinds of consumers."""
    model = random_model(strategies.build, drawn, head, seed)
    rng = np.random.default_rng(seed)
    spaces = kr.trace(model).prunable
    still = [rng.permutation(space.size)[:2] for space in spaces]
    for space, units in zip(spaces, still, strict=True):
        models.still_units(space, units)
    plan = kr.plan(model, **options)
    for decision in plan.decisions:
        own = [
            units
            for space, units in zip(spaces, still, strict=True)
            if np.array_equal(space.groups, decision.space.groups)
        ]
        assert set(decision.selection.removed) <= set(*own)
    check_function_is_kept(model, plan)


@examples(20)
@given(
    strategies.steps_of(strategies.HOMOGENEOUS, strategies.POINTWISE),
    strategies.heads,
    strategies.seeds,
)
def test_with_data_what_is_told_by_others_goes(drawn, head, seed):
    """Constant units, copies and scaled ones: nothing changes anywhere."""
    with strategies.padding_apart():
        model = random_model(strategies.build, drawn, head, seed)
    rng, graph = np.random.default_rng(seed), kr.trace(model)
    for space in graph.prunable:
        units = rng.permutation(space.size)[:4]
        models.scale_units(graph, space, units[:1], units[1:2], 3.0)
        models.copy_units(space, units[:1], units[2:3])
        models.still_units(space, units[3:])
    data = models.random_inputs(model, batch=512)
    options = {"rounds": 0, "batch_size": len(data)}
    plan = kr.plan(model, correlation=1.0, data=data, **options)
    for decision in plan.decisions:
        if not decision.reason and decision.space.size >= 3:
            assert len(decision.selection.removed)
    check_function_is_kept(model, plan, tolerance=1e-3)
