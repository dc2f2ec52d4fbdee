"""Thresholds by layer, layers left out, and what a plan shows."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest

import keras_redundancy as kr
from tests import models


def removed(plan):
    return {
        d.space.name: len(d.selection.removed)
        for d in plan.decisions
        if len(d.selection.removed)
    }


@pytest.fixture
def model():
    model = models.randomized(models.residual())
    models.plant(model)
    return model


def has_seven(layer):
    return getattr(layer, "filters", None) == 7


STREAM, FIRST, SECOND = "stem + conv1b + conv2b", "conv1a", "conv2a"


def test_one_tau_for_all(model):
    assert removed(kr.plan(model, 0.9999)) == {STREAM: 2, FIRST: 2, SECOND: 2}


def test_a_mapping_leaves_all_other_layers_alone(model):
    plan = kr.plan(model, {"conv1a": 0.9999})
    assert removed(plan) == {FIRST: 2}
    reasons = {d.space.name: d.reason for d in plan.decisions}
    assert reasons[SECOND] == "conv2a left out by layers=, skip= or tau="


def test_a_mapping_takes_regular_expressions_and_exact_names_first(model):
    plan = kr.plan(model, {"conv.a": 0.9999, "conv2a": None})
    assert removed(plan) == {FIRST: 2}
    taus = {
        d.space.name: d.tau
        for d in kr.plan(model, {"conv.a": 0.5, "conv2a": 0.7}).decisions
    }
    assert (taus[FIRST], taus[SECOND]) == (0.5, 0.7)


def test_a_callable_sees_the_layer(model):
    plan = kr.plan(model, lambda x: 0.9999 if has_seven(x) else None)
    assert removed(plan) == {FIRST: 2, SECOND: 2}


def test_a_stream_goes_only_if_all_its_producers_may(model):
    plan = kr.plan(model, 0.9999, skip="conv1b")
    assert removed(plan) == {FIRST: 2, SECOND: 2}
    reason = next(d.reason for d in plan.decisions if d.space.name == STREAM)
    assert reason == "coupled with conv1b, left out by layers=, skip= or tau="


def test_the_largest_tau_of_a_stream_counts(model):
    taus = {"stem": 0.3, "conv1b": 0.9, "conv2b": 0.5}
    plan = kr.plan(model, taus)
    assert next(d.tau for d in plan.decisions) == 0.9


@pytest.mark.parametrize(
    "choice",
    ["conv.a", ["conv1a", "conv2a"], has_seven],
)
def test_layers_chooses_and_skip_leaves_out(model, choice):
    assert removed(kr.plan(model, 0.9999, layers=choice)) == {
        FIRST: 2,
        SECOND: 2,
    }
    assert removed(kr.plan(model, 0.9999, skip=choice)) == {STREAM: 2}


def test_a_plan_shows_what_goes_and_why_not(model, capsys):
    plan = kr.plan(model, 0.9999, skip="conv2a")
    text = plan.render()
    assert capsys.readouterr().out == text + "\n"
    stream = next(line for line in text.splitlines() if STREAM in line)
    assert stream.split()[-5:] == ["1.000", "9", "7", "7", "2"]
    assert "conv2a left out" in text
    assert "it is an output of the model" in text
    before, after = plan.parameters
    assert f"parameters: {before:,} -> {after:,}" in text


def test_a_plan_says_that_nothing_is_similar_enough(model):
    words = "No unit is removed at this tau"
    assert words in str(kr.plan(models.mlp(), 0.9999))
    assert words not in str(kr.plan(model, 0.9999))
    assert words not in str(kr.plan(model, ratio=0))


def test_prune_lists_the_options_of_plan():
    options = dict(inspect.signature(kr.plan).parameters)
    found = dict(inspect.signature(kr.prune).parameters)
    assert found["verbose"].default is False
    assert found == options


def test_a_plan_can_be_applied_twice(model):
    plan = kr.plan(model, 0.9999)
    first, second = plan.apply(), plan.apply()
    models.assert_same_function(first, second, tolerance=0)
    first.layers[1].kernel.assign(0 * first.layers[1].kernel)
    assert np.abs(models.numpy(second.layers[1].kernel)).max() > 0


def test_a_plan_changes_nothing(model):
    before = [models.numpy(v) for v in model.variables]
    str(kr.plan(model, 0.1))
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, models.numpy(new))


def test_a_model_with_nothing_to_prune_is_copied():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    plan = kr.plan(model, 0.01)
    assert removed(plan) == {}
    models.assert_same_function(model, plan.apply(), tolerance=0)


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("change", [lambda model: model, kr.factorize])
def test_a_plan_of_other_weights_is_refused(change, with_data):
    """Also where what is for training alone is left out of a copy first."""
    model = change(models.randomized(models.mlp()))
    data = models.random_inputs(model) if with_data else None
    plan = kr.plan(model, ratio=0.4, data=data)
    small = plan.apply()
    models.assert_same_function(small, plan.apply())
    model.weights[-1].assign(2.0 + model.weights[-1])
    for each in (plan, plan.keeping(model.layers[0].name, [0])):
        with pytest.raises(ValueError, match="have changed since this plan"):
            each.apply()


def test_a_plan_cannot_be_pickled():
    plan = kr.plan(models.mlp(), ratio=0.4)
    for keep in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"belongs to a model .*to_dict"):
            keep(plan)
    assert copy.copy(plan) is plan


def of_a_body_and_a_head():
    body = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="first"),
            keras.layers.Dense(9, activation="relu", name="second"),
        ],
        name="body",
    )
    inputs = keras.Input((6,))
    x = keras.layers.Dense(10, activation="relu", name="head")(body(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"skip": "body"}, {"head"}),
        ({"layers": "body"}, {"first", "second"}),
        ({"layers": "bo.*"}, {"first", "second"}),
        ({"ratio": {"body": 0.5, "second": None}}, {"first"}),
        ({"ratio": {"body": None, "second": 0.5}}, {"second"}),
    ],
)
def test_the_name_of_a_nested_model_stands_for_what_is_in_it(options, gone):
    plan = kr.plan(of_a_body_and_a_head(), **{"ratio": 0.5} | options)
    assert removed(plan).keys() == gone


def of_two_towers():
    """Two models with layers of the same names, "d" and "e"."""

    def tower(name):
        hidden = keras.layers.Dense(16, activation="relu", name="d")
        last = keras.layers.Dense(8, name="e")
        return keras.Sequential([keras.Input((6,)), hidden, last], name=name)

    inputs = [keras.Input((6,)), keras.Input((6,))]
    x = keras.layers.Add()([tower("a")(inputs[0]), tower("b")(inputs[1])])
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({}, {"a/d", "b/d", "a/e + b/e"}),
        ({"layers": "b/d"}, {"b/d"}),
        ({"layers": "d"}, {"a/d", "b/d"}),
        ({"skip": ["a/d", "e"]}, {"b/d"}),
        ({"ratio": {"d": 0.5, "b/d": None}}, {"a/d"}),
        ({"ratio": {"./d": 0.5}}, {"a/d", "b/d"}),
    ],
)
def test_layers_with_one_name_are_told_apart_by_their_models(options, gone):
    plan = kr.plan(of_two_towers(), **{"ratio": 0.5} | options)
    assert removed(plan).keys() == gone


def test_units_of_layers_with_one_name_are_changed_by_hand():
    plan = kr.plan(of_two_towers(), ratio=0)
    with pytest.raises(ValueError, match="those of 'a/d', 'b/d'"):
        plan.without("d", [0])
    assert removed(plan.without("b/d", [0, 3])) == {"b/d": 2}
    assert removed(plan.without("b/e", [1])) == {"a/e + b/e": 1}
