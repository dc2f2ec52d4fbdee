"""Methods are compared at equal cost."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.evaluation.planted import QUIET, Likeness, planted


def test_methods_are_compared_at_matched_cost():
    model = models.randomized(models.vgg())
    data = models.random_inputs(model, batch=64)
    found = kr.compare(
        model,
        lambda m: m.count_params(),
        shares=[0.6],
        data=data,
        rounds=0,
        **QUIET,
    )
    assert "greedy, least squares" in found.trials
    for method, (trial,) in found.trials.items():
        assert 0.5 < trial.flops <= 0.6, method
        count = round(trial.parameters * model.count_params())
        assert trial.score == count, method
    assert "greedy, least squares" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["shares"] == [0.6]


def test_methods_of_others_are_compared():
    model = planted()

    def halved(model, share):
        assert share == 0.5
        return keras.Sequential([keras.Input((6,)), layers.Dense(3)])

    methods = {
        "of others": halved,
        "a plan": lambda model, share: kr.plan(model, ratio=share),
        "options": {"select": "fpgm"},
    }
    found = kr.compare(
        model, lambda m: len(m.layers), methods, shares=[0.5], **QUIET
    )
    assert [t.score for (t,) in found.trials.values()] == [1, 3, 3]
    assert found.trials["of others"][0].flops == 18 / (72 + 96 + 24)


def test_shares_that_are_out_of_reach_have_no_score():
    model, methods = planted(), {"l1": kr.L1(), "own": lambda m, share: m}
    score, options = Likeness(model), {"min_units": 6, **QUIET}
    found = kr.compare(model, score, methods, shares=[0.8, 0.1], **options)
    (first, second), own = found.trials["l1"], found.trials["own"]
    assert np.isfinite(first.score)
    assert first.flops <= 0.8
    assert np.isnan([second.score, second.flops, second.parameters]).all()
    assert [trial.flops for trial in own] == [1, 1]
    known = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert known["trials"]["l1"][1]["score"] is None
    assert "-: the method cannot remove that much" in str(found)
    with pytest.raises(ValueError, match=r"target of 19\.2.* cannot be"):
        kr.compare(model, score, ["l1"], shares=[0.1], **options)


def test_methods_are_named_or_objects():
    model = planted()
    data = models.random_inputs(model, batch=100)
    options = {"shares": [0.6], "data": data, "mend": False, **QUIET}
    listed = kr.compare(
        model,
        Likeness(model),
        ["l1", kr.Greedy(), kr.Random(seed=1)],
        **options,
    )
    assert list(listed.trials) == ["l1", "Greedy()", "Random(seed=1)"]
    named = kr.compare(
        model,
        Likeness(model),
        {
            "a": {"select": "l1", "rounds": 1},
            "b": {"method": kr.Greedy()},
            "c": kr.Random(seed=1),
        },
        **options,
    )
    assert list(named.trials.values()) == list(listed.trials.values())
    with pytest.raises(TypeError, match="a list of selection methods"):
        kr.compare(model, Likeness(model), kr.L1(), **options)


@pytest.mark.parametrize(
    ("methods", "options", "error", "words"),
    [
        (["l2"], {}, ValueError, "methods='l2' is not known"),
        ([kr.L1], {}, TypeError, r"Pass an object of it: L1\(\)"),
        ({"own": kr.L1}, {}, TypeError, "the class L1"),
        (["l1"], {"shares": (50,)}, ValueError, "50, but it is the share"),
        (["l1"], {"shares": ()}, ValueError, "shares is empty"),
        ([], {}, ValueError, "methods is empty"),
        ([lambda units: units.norms], {}, TypeError, "For a function from uni"),
        (["l1"], {"tau": 0.5}, TypeError, "tau= says how many .* Pass shares="),
    ],
)
def test_comparisons_that_make_no_sense(methods, options, error, words):
    def evaluate(model):
        raise AssertionError("nothing is evaluated")

    with pytest.raises(error, match=words):
        kr.compare(planted(), evaluate, methods, **QUIET, **options)


def test_functions_have_to_return_a_smaller_model():
    methods = {"own": lambda model, share: None}
    with pytest.raises(TypeError, match="own in methods returned NoneType"):
        kr.compare(planted(), lambda model: 0.0, methods, **QUIET)
