"""Plans changed by hand, and told to programs and notebooks."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


def kept(plan):
    return [d.selection.kept.tolist() for d in plan.decisions]


@pytest.fixture
def model():
    model = models.randomized(models.mlp())
    models.plant(model)
    return model


@pytest.fixture
def data(model):
    return models.random_inputs(model, batch=100)


def test_units_without_which_a_model_is_left(model):
    plan = kr.plan(model, ratio=0.25)
    before = plan["dense"].selection
    free = [u for u in before.kept if u not in (3, 7)]
    by_hand = plan.without("dense", [3, 7])
    assert by_hand["dense"].selection.kept.tolist() == free
    assert kept(by_hand)[1:] == kept(plan)[1:]
    assert plan["dense"].selection is before
    small = by_hand.apply()
    assert small.layers[0].units == len(free)
    kernel = models.numpy(model.layers[0].kernel)
    np.testing.assert_array_equal(
        models.numpy(small.layers[0].kernel), kernel[:, free]
    )
    assert small.count_params() == by_hand.parameters[1]
    again = by_hand.keeping("dense", [3]).keeping("dense", 7)
    assert set(again["dense"].selection.kept) == {*free, 3, 7}


def test_what_is_gone_reads_what_is_left(model):
    """Of three equal units the one that stood for the others goes."""
    model = keras.models.clone_model(model)
    models.randomized(model)
    (first, *_) = kr.trace(model).prunable
    models.copy_units(first, [2, 2], [5, 9])
    plan = kr.plan(model, tau=0.9999, layers="dense")
    (stands,) = {int(plan["dense"].selection.stands_for[u]) for u in (2, 5, 9)}
    others = [u for u in (2, 5, 9) if u != stands]
    by_hand = plan.keeping("dense", others[:1]).without("dense", stands)
    selection = by_hand["dense"].selection
    assert selection.stands_for[[2, 5, 9]].tolist() == [others[0]] * 3
    models.assert_same_function(model, by_hand.apply())


def test_constant_units_go_by_hand_without_a_loss(model):
    model = keras.models.clone_model(model)
    models.randomized(model)
    kernel = models.numpy(model.layers[0].kernel)
    kernel[:, 4] = 0
    model.layers[0].kernel.assign(kernel)
    plan = kr.plan(model, ratio=0.0)
    assert 4 in plan["dense"].selection.kept
    small = plan.without("dense", 4).apply()
    assert small.layers[0].units == 15
    models.assert_same_function(model, small)


def test_filters_of_groups_go_together():
    model = models.randomized(
        keras.Sequential(
            [
                keras.Input((6, 6, 4)),
                layers.Conv2D(8, 3, groups=2, name="grouped"),
                layers.Conv2D(3, 3),
            ]
        )
    )
    plan = kr.plan(model, ratio=0.0)
    by_hand = plan.without("grouped", [6])
    space, selection = plan["grouped"].space, by_hand["grouped"].selection
    (gone,) = selection.removed
    place = next(a for a in space.axes if a.on.layer.name == "grouped")
    assert 6 in place.positions[gone]
    assert by_hand.apply().get_layer("grouped").filters == 6


def test_with_data_what_goes_by_hand_is_fitted(model, data):
    plan = kr.plan(model, ratio=0.0, data=data, mend=False)
    others = {"absorb": "drop", "mend": False, "data": data}
    dropped = kr.plan(model, ratio=0.0, **others)
    (true,) = models.outputs(model, data)
    errors = [
        np.abs(
            models.outputs(each.without("dense_1", [0, 1]).apply(), data)[0]
            - true
        ).mean()
        for each in (plan, dropped)
    ]
    assert errors[0] < 0.9 * errors[1]


# --- bad input --------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "units", "error", "words"),
    [
        ("dense", [16], ValueError, r"no units \[16\].*from 0 to 15"),
        ("dense", [-1], ValueError, r"no units \[-1\]"),
        ("dense", [0.5], TypeError, "numbers of units"),
        ("dense", "all", TypeError, "numbers of units"),
        ("dense", range(16), ValueError, "one has to stay"),
        ("dense_1", [0], ValueError, "left out by .*ratio=0"),
        ("dense_2", [0], ValueError, "it is an output of the model"),
        ("conv", [0], KeyError, "'conv' is no layer with units"),
    ],
)
def test_units_that_cannot_go_by_hand(layer, units, error, words):
    plan = kr.plan(models.mlp(), ratio=0.25, skip="dense_1")
    with pytest.raises(error, match=words):
        plan.without(layer, units)


def test_a_plan_is_no_list_of_decisions():
    plan = kr.plan(models.mlp(), ratio=0.25)
    with pytest.raises(TypeError, match="not iterable"):
        list(plan)
    with pytest.raises(TypeError, match="not a container"):
        assert "dense" in plan


def test_a_layer_that_writes_units_of_several_kinds():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(4, 2, name="att")(inputs, inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    plan = kr.plan(model, ratio=0.0)
    heads = "att (query, key, value)"
    for function in (plan.__getitem__, lambda name: plan.without(name, [0])):
        with pytest.raises(ValueError, match="decided about apart") as caught:
            function("att")
        assert repr(heads) in str(caught.value)
    by_hand = plan.without(heads, [3])
    assert by_hand[heads].selection.removed.tolist() == [3]
    with pytest.raises(ValueError, match="no units"):
        plan.without(heads, [4])


def test_a_layer_whose_units_go_two_ways():
    """Numbers are those of the layer, not those of its parts."""
    inputs = keras.Input((6,))
    x = layers.Dense(10, name="wide")(inputs)
    y = layers.Dense(3)(x[..., :4]) + layers.Dense(3)(x[..., 4:])
    model = models.randomized(keras.Model(inputs, y))
    plan = kr.plan(model, ratio=0.0)
    names = [d.space.producers[0].name for d in plan.decisions]
    assert names.count("wide") == 2
    small = plan.without("wide", [1, 4, 9]).apply()
    kernel = models.numpy(model.get_layer("wide").kernel)
    np.testing.assert_array_equal(
        models.numpy(small.get_layer("wide").kernel),
        np.delete(kernel, [1, 4, 9], axis=1),
    )


def test_units_of_recurrent_layers():
    """A unit of an LSTM is four columns of its kernels."""
    inputs = keras.Input((6, 3))
    x = layers.LSTM(4, name="lstm")(inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    plan = kr.plan(model, ratio=0.0)
    assert plan.without("lstm", 3)["lstm"].selection.removed.tolist() == [3]
    with pytest.raises(ValueError, match="from 0 to 3"):
        plan.without("lstm", 4)


# --- told -------------------------------------------------------------------


def test_a_plan_is_told(model, data):
    plan = kr.plan(model, 0.9999, skip="dense_1")
    told = json.loads(json.dumps(plan.to_dict()))
    first, second, last = told["decisions"]
    assert first["removed"] == plan["dense"].selection.removed.tolist()
    assert first["layers"] == ["dense"]
    assert (first["reason"], first["reason_code"]) == (None, None)
    assert second["reason_code"] == "left_out"
    assert second["reason"] == plan["dense_1"].reason
    assert last["reason_code"]
    assert told["parameters"] == list(plan.parameters)
    assert told["multiply_adds"] == list(plan.flops)
    assert told["method"] == "Clusters()"


def test_a_notebook_shows_a_table():
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="a_b")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x), name="net")
    plan = kr.plan(model, 0.9)
    text = plan._repr_html_()
    assert text.startswith("<table>")
    assert "<th>remark</th>" in text
    assert ">a_b</td>" in text
    assert "parameters: " in text.split("</table>")[1]
    assert kr.plan(model, 0.9).table().to_html() == text
    told = json.loads(json.dumps(plan.explain().to_dict()))
    assert "it is an output of the model" in [
        x["reason"] for x in told["frozen"]
    ]
    for other in (kr.analyze(model), plan.explain(), plan.graph):
        assert other._repr_html_().startswith("<table>")
    assert plan.__str__().splitlines()[0] == "Plan for 'net'"
