"""What stays, by whom it is held, how much it is, and why."""

import pickle
import sys

import keras
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.channels.reasons import Reason, code_of
from tests import models


class Unknown(layers.Layer):
    """A layer that no rule knows, with a layer inside that nobody sees."""

    def build(self, shape):
        self.inner = layers.Dense(5, name="inner")
        self.inner.build(shape)

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("numbers alone")
        return self.inner(x)


@pytest.fixture
def model():
    inputs = keras.Input((7,))
    x = layers.Dense(8, name="first")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Dense(6, activation="relu", name="second")(x)
    x = layers.Dense(4, name="third")(x)
    x = Unknown(name="unknown")(x)
    return keras.Model(inputs, layers.Dense(3, name="top")(x), name="example")


def by_layers(explanation):
    return {entry.layers: entry for entry in explanation.frozen}


def test_every_frozen_space_and_layer_is_explained(model):
    found = by_layers(kr.trace(model).explain())
    assert set(found) == {
        ("first", "norm", "second"),
        ("first",),
        ("third",),
        ("unknown",),
        ("top",),
    }
    coupled = found["first", "norm", "second"]
    assert coupled.units == 8
    assert coupled.parameters == 7 * 8 + 8 + 2 * 8 + 8 * 6
    assert coupled.share == coupled.parameters / model.count_params()
    assert "norm (LayerNormalization) normalises over" in coupled.reason
    assert "allow_inexact=True" in coupled.reason
    assert found["first",].reason == "it is an input of the model"
    assert found["unknown",].units is None
    assert found["unknown",].parameters == 4 * 5 + 5
    assert "no rule for unknown (Unknown)" in found["unknown",].reason
    assert "register_rule" in found["third",].reason
    entries = kr.trace(model).explain().frozen
    assert {(entry.layers[0], entry.code) for entry in entries} == {
        ("first", "normalized_over_channels"),
        ("first", "model_input"),
        ("third", "not_opened"),
        ("unknown", "not_opened"),
        ("top", "not_opened"),
        ("top", "model_output"),
    }


class Own(Unknown):
    """A layer whose rule gives words alone."""


@kr.register_rule(Own)
def _words_alone(layer, call):
    return call.opaque("{name} is one of mine")


def test_spaces_have_codes_for_their_reasons():
    parts = [layers.Dense(6, name="a"), layers.Dense(5, name="b"), Own()]
    model = keras.Sequential([keras.Input((7,)), *parts])
    spaces = {space.name: space for space in kr.trace(model).spaces}
    assert spaces["a"].reason_code is None
    assert spaces["b"].reason_code == "other"
    assert spaces["b"].frozen == "own is one of mine"
    reasons = pickle.loads(pickle.dumps([x.frozen for x in spaces.values()]))
    codes = [space.reason_code for space in spaces.values()]
    assert list(map(code_of, reasons)) == codes


def test_no_two_reasons_have_the_same_code():
    modules = [x for n, x in sys.modules.items() if n.startswith(kr.__name__)]
    reasons = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Reason)
    }
    assert len(reasons) > 50
    assert len({reason.code for reason in reasons}) == len(reasons)


def test_the_largest_share_comes_first(model):
    shares = [entry.share for entry in kr.trace(model).explain().frozen]
    assert shares == sorted(shares, reverse=True)


def test_the_prunable_share_counts_every_parameter_once(model):
    explanation = kr.trace(model).explain()
    prunable = 8 * 6 + 6 + 6 * 4
    assert explanation.prunable == prunable / model.count_params()
    allowed = kr.trace(model, allow_inexact=True).explain()
    assert allowed.prunable > explanation.prunable
    assert ("first", "norm", "second") not in by_layers(allowed)


def test_a_plan_explains_what_its_options_leave_out(model):
    found = by_layers(kr.plan(model, 0.9, skip="second").explain())
    assert "left out by layers=" in found["second", "third"].reason


def test_nothing_but_inputs_and_outputs_stays_of_a_plain_model():
    explanation = kr.trace(models.vgg()).explain()
    reasons = {entry.reason for entry in explanation.frozen}
    assert reasons == {
        "it is an input of the model",
        "it is an output of the model",
    }
    assert explanation.prunable > 0.9


def test_the_table_shows_shares_and_shortens_names(capsys):
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="stem")(inputs)
    for number in range(3):
        y = layers.Conv2D(6, 1, name=f"branch_{number}")(x)
        x = layers.Add()([x, y])
    net = keras.Model(inputs, x, name="net")
    text = kr.trace(net).explain().render()
    assert capsys.readouterr().out == text + "\n"
    assert "What stays of 'net'" in text
    assert "stem + branch_0 + branch_1 + 1 more" in text
    assert "% of the parameters lie in prunable spaces." in text
