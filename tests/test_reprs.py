"""What is shown of an object at the prompt: a line, whatever it holds."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
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
    history.history = {"loss": list(range(1000))}
    yield Pruned(model, 0.5, 3, "loss", None, cuts, history, "it was over")


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
