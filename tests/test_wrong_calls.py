"""Calls that newcomers make: errors say what was meant."""

import sys

import keras
import numpy as np
import pytest

import keras_redundancy as kr
from tests import models


def message(error, function):
    with pytest.raises(error) as caught:
        function()
    return str(caught.value)


def test_verbose_is_a_keyword_and_a_flag():
    model = models.mlp()
    plan = kr.plan(model, ratio=0.5)
    message(TypeError, lambda: plan.apply(model))
    for call in (
        lambda: plan.apply(verbose="no"),
        lambda: kr.prune(model, ratio=0.5, verbose=model),
        lambda: kr.plan(model, ratio=0.5, verbose=None),
    ):
        assert "verbose must be" in message(TypeError, call)
    assert plan.apply(verbose=0).count_params() < model.count_params()


@pytest.mark.parametrize("option", ["layers", "skip"])
@pytest.mark.parametrize("several", [False, True])
def test_a_class_in_place_of_layers(option, several):
    dense = keras.layers.Dense
    options = {option: [dense] if several else dense}
    text = message(
        TypeError, lambda: kr.prune(models.mlp(), ratio=0.5, **options)
    )
    words = "Pass lambda layer: isinstance(layer, keras.layers.Dense)."
    assert text == f"{option} has the class keras.layers.Dense. {words}"


@pytest.mark.parametrize("option", ["tau", "ratio"])
def test_a_class_in_place_of_a_level(option):
    options = {option: keras.layers.Dense}
    text = message(TypeError, lambda: kr.prune(models.mlp(), **options))
    assert "0.5 if isinstance(layer, keras.layers.Dense) else None" in text


@pytest.mark.parametrize("shape", [8, 8.0, "8"])
def test_an_input_shape_that_is_none(shape):
    call = [
        lambda: kr.flops(models.mlp(), input_shape=shape),
        lambda: kr.prune(models.mlp(), ratio=0.5, input_shape=shape),
    ]
    for each in call:
        text = message(ValueError, each)
        assert f"input_shape={shape!r} is not the shape" in text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *[(cost, cost) for cost in ("flops", "params", "units", "latency")],
        ("macs", "flops"),
    ],
)
def test_a_cost_in_place_of_a_target(name, meant):
    text = message(TypeError, lambda: kr.prune(models.mlp(), **{name: 0.25}))
    assert f"Did you mean target={{'{meant}': 0.25}}?" in text


@pytest.mark.parametrize(
    "name", ["macs", "FLOPs", "mult_adds", "multiply-adds"]
)
def test_other_names_of_multiply_adds(name):
    text = message(
        ValueError, lambda: kr.prune(models.mlp(), target={name: 0.5})
    )
    assert "Multiply-adds are called 'flops' here." in text


@pytest.mark.parametrize(
    ("name", "meant"), [("L1", "l1"), ("FPGM", "fpgm"), ("gredy", "greedy")]
)
def test_short_names_of_methods(name, meant):
    model = models.mlp()
    text = message(ValueError, lambda: kr.prune(model, name, ratio=0.5))
    assert f"{name!r} is no selection method. Did you mean {meant!r}?" in text
    again = message(ValueError, lambda: kr.prune(model, ratio=0.5, select=name))
    assert again == text


def test_a_number_in_quotes_is_no_tau():
    text = message(ValueError, lambda: kr.prune(models.mlp(), "0.9"))
    assert "'0.9' is no selection method. Pass one of" in text


def test_options_are_told_by_the_nearest_name():
    text = message(
        ValueError, lambda: kr.prune(models.mlp(), ratio=0.5, absorb="Merge")
    )
    assert "Did you mean 'merge'?" in text


@pytest.mark.parametrize(
    ("function", "options"),
    [("search", {"max_drop": 0.1}), ("sensitivity", {}), ("compare", {})],
)
def test_unknown_options_name_the_function(function, options):
    def call():
        return getattr(kr, function)(
            models.mlp(), lambda model: 1.0, floor=0.9, **options
        )

    text = message(TypeError, call)
    assert text.startswith(f"floor= is no option of {function}. The options")


def test_a_layer_in_place_of_a_model():
    layer = keras.layers.Dense(3)
    for call in (lambda: kr.plan(layer, 0.9), lambda: kr.trace(layer)):
        text = message(TypeError, call)
        assert "functional, Sequential or subclassed" in text
        assert "keras.Sequential([keras.Input(shape), layer])" in text


def test_what_is_factorized_already():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(hidden))
    once = kr.factorize(model)
    text = message(ValueError, lambda: kr.factorize(once))
    assert "are factorized already: hidden, last." in text


def test_the_bridge_looks_at_the_model_first(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    text = message(TypeError, lambda: kr.deploy.to_tf_keras("m.keras"))
    assert "keras.models.load_model(path)" in text


def test_training_without_targets():
    model = models.mlp()
    x = np.ones((8, *model.inputs[0].shape[1:]), "float32")

    def run(model, **options):
        return lambda: kr.fit_and_prune(
            model, x, prune={"ratio": 0.2}, epochs=1, **options
        )

    text = message(ValueError, run(models.mlp()))
    assert "is not compiled" in text
    model.compile("sgd", "mse")
    text = message(ValueError, run(model, monitor="loss"))
    assert "y is None" in text
    assert "'mse'" in text


WAYS = [lambda x: x, lambda x: [x], lambda x: iter([x])]
if keras.backend.backend() == "torch":
    WAYS.pop()  # Keras refuses text in iterators itself.


@pytest.mark.parametrize("dtype", ["<U3", "S3", object, "complex64"])
@pytest.mark.parametrize("way", WAYS)
def test_data_that_are_no_numbers(dtype, way):
    x = np.ones((8, 12)).astype(dtype)
    text = message(
        ValueError, lambda: kr.plan(models.mlp(), ratio=0.3, data=way(x))
    )
    assert text.startswith(f"data has the dtype {x.dtype} for the input")
    assert "which takes float32" in text
