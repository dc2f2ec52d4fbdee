"""What all results have in common: a short `repr`, a table, `to_dict()`."""

import dataclasses
import html
import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Rendered
from keras_redundancy.evaluation import SearchResult
from keras_redundancy.training.results import Cut, Pruned
from tests import models


@pytest.fixture(scope="module")
def model():
    """Wide, and with more layers on one stream than fit on a line."""
    inputs = keras.Input((30,))
    x = layers.Dense(60, name="stem")(inputs)
    for number in range(8):
        y = layers.Dense(20, "relu", name=f"narrow_{number}")(x)
        x = x + layers.Dense(60, name=f"a_long_name_{number}")(y)
    x = layers.Lambda(lambda x: x, name="unknown")(x)
    return keras.Model(inputs, layers.Dense(3, name="top")(x), name="net")


def objects(model):
    plan = kr.plan(model, ratio=0.5)
    graph = plan.graph
    yield from (plan, graph, *graph.spaces, *graph.axes)
    yield from (axis for space in graph.spaces for axis in space.axes)
    for decision in plan.decisions:
        yield from (decision, decision.selection)
    explanation = plan.explain()
    yield from (explanation, *explanation.frozen)
    report = kr.analyze(model)
    yield from (report, *report.layers, kr.redundancy(model))
    yield kr.difference(model, model)
    yield kr.Channels(np.arange(5000), 1, (None, 5000))


def evaluated(model):
    def count(model):
        return float(model.count_params())

    options = {"ratios": [0.5], "verbose": False}
    sensitivity = kr.sensitivity(model, count, **options)
    yield from (sensitivity, *sensitivity.trials)
    yield kr.search(model, count, max_drop=1e9, **options)
    methods = {"l1": {"select": "l1"}}
    yield kr.compare(model, count, methods=methods, shares=[0.5], verbose=False)
    cuts = tuple(Cut(i, 0.5, 100, 50, 0.1) for i in range(50))
    history = keras.callbacks.History()
    history.history = {"loss": list(range(1000)), "other": [np.float32(1)]}
    for value in (0.5, None):
        yield Pruned(
            model, value, 3, "loss", None, cuts, history, "it was over"
        )


def test_a_repr_fits_on_a_few_lines(model):
    found = list(objects(model))
    assert len({type(x) for x in found}) == 14
    for each in found:
        text = repr(each)
        assert len(text) < 600
        assert "\n" not in text
        assert type(each).__name__ in text


def test_of_what_was_evaluated():
    for each in evaluated(models.mlp()):
        text = repr(each)
        assert len(text) < 200
        assert "\n" not in text
        assert "'mlp'" in text or "dense" in text


def results(model):
    yield from objects(model)
    yield from evaluated(model)
    yield kr.calibrate(model, models.random_inputs(model, batch=16))


def test_results_as_plain_objects():
    found = [x for x in results(models.mlp()) if hasattr(x, "to_dict")]
    names = {type(x).__name__ for x in found}
    assert names >= {
        *("Calibration", "Comparison", "Decision", "Difference"),
        *("Explanation", "LayerReport", "Plan", "Pruned", "Redundancy"),
        *("Report", "SearchResult", "Sensitivity"),
    }
    for each in found:
        data = each.to_dict()
        read = json.loads(json.dumps(data))
        assert read.keys() == data.keys()
        assert json.loads(json.dumps(read)) == read
        assert len(data) > 2
        assert type(each).to_dict.__doc__


def test_every_figure_of_a_result_is_in_its_dict():
    model = models.mlp()
    data = models.random_inputs(model, batch=16)
    known = kr.calibrate(model, data).to_dict()
    assert known["samples"] == 16
    assert known["kernels"] == [
        {"layer": name, "units": units, "rows": 16}
        for name, units in (("dense_1", 16), ("dense_2", 10))
    ]
    explained = kr.plan(model, ratio=0.5).explain().to_dict()
    (last,) = (x for x in explained["frozen"] if x["layers"] == ["dense_2"])
    assert last["reason"] == "it is an output of the model"
    assert last["share"] == last["parameters"] / model.count_params()
    found = {type(x): x for x in evaluated(model)}
    pruned = found[Pruned].to_dict()
    assert (pruned["value"], pruned["epoch"]) == (None, 3)
    assert pruned["cuts"][1] == dataclasses.asdict(Cut(1, 0.5, 100, 50, 0.1))
    assert pruned["history"]["other"] == [1.0]
    result = found[SearchResult]
    searched = result.to_dict()
    assert searched["trial"]["score"] == result.trial.score
    assert searched["plan"]["parameters"] == list(result.plan.parameters)
    assert searched["sensitivity"] == result.sensitivity.to_dict()


def test_tables_of_results_are_html_too():
    shown = [x for x in results(models.mlp()) if isinstance(x, Rendered)]
    assert len({type(x) for x in shown}) == 11
    for each in shown:
        table = each.table()
        page = each._repr_html_()
        assert page.count("<tr>") == 1 + len(table.rows)
        assert html.escape(table.title) in page
        assert str(each).startswith(table.title.split()[0])


def test_what_it_says(model):
    plan = kr.plan(models.mlp(), ratio=0.5)
    assert repr(plan) == (
        "<Plan for 'mlp': 3 spaces, 13 of 29 units go, 411 -> 167 parameters>"
    )
    graph = plan.graph
    assert repr(graph) == "<ChannelGraph of 'mlp': 2 of 4 spaces can be pruned>"
    assert [repr(space) for space in graph.spaces[1:]] == [
        "<Space: 16 units of dense, prunable>",
        "<Space: 10 units of dense_1, prunable>",
        "<Space: 3 units of dense_2, frozen: it is an output of the model>",
    ]
    first = graph.spaces[1].axes[0]
    assert repr(first) == (
        "<SpaceAxis: 16 units on <VariableAxis 1 of 'kernel' (12, 16) of "
        "'dense': producer>>"
    )
    assert repr(plan.decisions[0]) == "<Decision: dense, 8 of 16 units go>"
    assert "of the shape (8, 3)" in repr(kr.Channels(np.arange(3), 1, (8, 3)))


def test_all_that_a_rule_can_say_is_at_the_top_level():
    assert callable(kr.CallTrace.labels_on)
