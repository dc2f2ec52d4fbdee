"""Errors say what was received, why it cannot work and what to do."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models


def message(error, function):
    with pytest.raises(error) as caught:
        function()
    return str(caught.value)


@pytest.mark.parametrize("function", [kr.plan, kr.prune, kr.analyze])
@pytest.mark.parametrize("tau", [0, -0.5, 1.01, float("nan"), float("inf")])
def test_tau_outside_its_range(function, tau):
    text = message(ValueError, lambda: function(models.mlp(), tau))
    assert repr(tau) in text
    assert "(0, 1]" in text


@pytest.mark.parametrize("tau", [True, [0.9], 1j])
def test_tau_that_is_no_number(tau):
    text = message(TypeError, lambda: kr.prune(models.mlp(), tau))
    assert repr(tau) in text


def test_tau_of_a_mapping_names_its_key():
    text = message(ValueError, lambda: kr.plan(models.mlp(), {"dense": 2}))
    assert "tau['dense']" in text


def test_tau_of_a_callable_names_the_layer():
    text = message(ValueError, lambda: kr.plan(models.mlp(), lambda x: 2))
    assert "'dense'" in text


@pytest.mark.parametrize("option", ["tau", "layers", "skip"])
@pytest.mark.parametrize("name", ["conv.*", "dens", "a(b"])
def test_names_that_match_no_layer(option, name):
    model = models.mlp()
    options = {"tau": 0.5} | {option: {name: 0.5} if option == "tau" else name}
    text = message(ValueError, lambda: kr.plan(model, **options))
    assert repr(name) in text
    assert option in text


@pytest.mark.parametrize("several", [False, True])
def test_a_layer_in_place_of_its_name(several):
    model = models.mlp()
    layer = model.layers[0]
    skip = [layer] if several else layer
    text = message(TypeError, lambda: kr.plan(model, 0.5, skip=skip))
    assert text.endswith("Write its name, 'dense'.")


@pytest.mark.parametrize("option", ["layers", "skip"])
def test_layers_of_a_wrong_type(option):
    text = message(TypeError, lambda: kr.plan(models.mlp(), 0.5, **{option: 3}))
    assert "3" in text
    assert option in text


@pytest.mark.parametrize(
    ("option", "valid"),
    [
        ("select", "'clusters', 'random'"),
        ("linkage", "'average', 'complete', 'single'"),
        ("keep", "'random', 'medoid', 'largest', 'mean'"),
        ("absorb", "'merge', 'drop'"),
    ],
)
def test_unknown_options_list_the_valid_ones(option, valid):
    text = message(
        ValueError, lambda: kr.prune(models.mlp(), 0.5, **{option: "best"})
    )
    assert "'best'" in text
    assert valid in text


@pytest.mark.parametrize("function", [kr.plan, kr.prune])
@pytest.mark.parametrize("empty", [[], ()])
def test_layers_that_name_none(function, empty):
    def call():
        return function(models.mlp(), ratio=0.5, layers=empty)

    assert "layers is empty" in message(ValueError, call)
    assert kr.plan(models.mlp(), ratio=0.5, skip=[]).removed.any()


@pytest.mark.parametrize("option", ["round_to", "min_units"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_counts_that_are_none(option, value):
    text = message(
        ValueError, lambda: kr.prune(models.mlp(), 0.5, **{option: value})
    )
    assert option in text
    assert repr(value) in text


@pytest.mark.parametrize("other", [{"absorb": "drop"}, {"select": "random"}])
def test_mean_goes_with_clusters_that_are_merged(other):
    text = message(
        ValueError, lambda: kr.prune(models.mlp(), 0.5, keep="mean", **other)
    )
    assert "keep='mean'" in text
    assert "use " in text.lower()


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(np.asarray(x))

    def compute_output_spec(self, x):
        return keras.KerasTensor((None, 3))


@pytest.mark.parametrize("function", [kr.trace, kr.flops, kr.analyze])
def test_a_subclassed_model_has_no_graph(function):
    model = Subclassed()
    model(np.zeros((1, 2), "float32"))
    text = message(TypeError, lambda: function(model))
    assert "Subclassed" in text
    assert "test_bad_input.py, line" in text
    assert "keras.Model(inputs," in text


def test_a_subclassed_model_with_a_graph_keeps_its_class():
    inputs = keras.Input((4,))
    x = layers.Dense(6)(inputs)
    model = Trained(inputs, layers.Dense(2)(x))
    assert type(kr.prune(model, 0.5)) is Trained


class Trained(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def test_a_model_that_is_not_built():
    model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    text = message(ValueError, lambda: kr.prune(model, 0.5))
    assert "has not been built" in text
    assert "keras.Input" in text


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (None, "NoneType: None."),
        ("model.keras", "keras.models.load_model(path)"),
        (layers.Dense(3), "received Dense: <Dense"),
        (keras.Sequential, "a class: pass a built model"),
        (np.zeros((200, 5)), "ndarray: an array of shape (200, 5)."),
    ],
)
def test_what_is_no_model(thing, words):
    text = message(TypeError, lambda: kr.prune(thing, 0.5))
    assert words in text
    assert len(text) < 200


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tua", "Did you mean tau=?"),
        ("pruning_ratio", "Did you mean ratio=?"),
        ("ignored_layers", "Did you mean skip=?"),
        ("labels", "No labels are needed"),
        ("verbos", "Did you mean verbose=?"),
    ],
)
def test_options_of_another_name(name, words):
    text = message(TypeError, lambda: kr.prune(models.mlp(), **{name: 1}))
    assert words in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"round_to": 100}, "round_to=100 keeps"),
        ({"min_units": 1000, "round_to": 2}, "min_units=1000 keeps"),
        ({"min_units": 1000, "ratio": {"dense": 0.5}}, "min_units=1000 keeps"),
    ],
)
def test_options_that_keep_all_units(options, words):
    model = models.mlp()
    with pytest.warns(UserWarning, match=f"Nothing goes .* {words}"):
        small = kr.prune(model, **{"ratio": 0.5} | options)
    assert small.count_params() == model.count_params()


def test_no_word_of_options_where_few_units_are_asked_for():
    model = models.mlp()
    assert kr.prune(model, ratio=0.001, round_to=100) is not model


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"layers": lambda layer: False},
            "dense left out by layers=, skip= or ratio=",
        ),
        ({"ratio": {"dense_2": 0.5}}, "dense_2 stay, since it is an output"),
    ],
)
def test_options_that_leave_nothing_to_remove(options, words):
    model = models.mlp()
    with pytest.warns(UserWarning, match=f"Nothing can go .*{words}"):
        small = kr.prune(model, **{"ratio": 0.5} | options)
    assert small.count_params() == model.count_params()


def test_a_target_out_of_reach_names_the_least_share():
    model = models.mlp()
    text = message(ValueError, lambda: kr.plan(model, target={"params": 0.01}))
    least = float(text.rpartition("at least ")[2].rstrip("."))
    kr.plan(model, target={"params": least})
    with pytest.raises(ValueError, match="cannot be reached"):
        kr.plan(model, target={"params": least - 0.001})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("allow_inexact", "yes", "received 'yes'"),
        ("inline", 1, "received 1"),
        ("optimizer", "adam", "whether the optimizer of the model goes on"),
    ],
)
def test_options_that_are_true_or_false(name, value, words):
    text = message(
        TypeError, lambda: kr.plan(models.mlp(), 0.5, **{name: value})
    )
    assert f"{name} must be True or False" in text
    assert words in text


FUNCTIONS = {
    "calibrate": lambda data: kr.calibrate(models.mlp(), data),
    "merge_correlated": lambda data: kr.merge_correlated(
        models.mlp(), data, count=1
    ),
    "distill": lambda data: kr.distill(models.mlp(), models.mlp(), data),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_data_that_is_none(name):
    text = message(TypeError, lambda: FUNCTIONS[name](None))
    assert "data is None. Pass some hundred samples" in text


def test_data_in_lists():
    words = {
        "numpy.stack(data)": [np.zeros(12, "float32")] * 100,
        "numpy.asarray(data)": [[0.0] * 12] * 100,
        "data is 'x.npz'": "x.npz",
    }
    for remedy, data in words.items():
        text = message(ValueError, lambda x=data: kr.calibrate(models.mlp(), x))
        assert remedy in text
        assert len(text) < 400


def test_rules_are_of_classes_of_layers():
    text = message(TypeError, lambda: kr.register_rule(int, lambda *_: None))
    assert "expects a layer class, but received <class 'int'>" in text


def test_nan_weights_name_the_layer_and_the_filters():
    model = models.residual()
    layer = model.get_layer("conv1a")
    kernel = models.numpy(layer.kernel)
    kernel[..., 5] = np.nan
    layer.kernel.assign(kernel)
    for function in (kr.plan, kr.analyze):
        text = message(ValueError, lambda f=function: f(model, 0.5))
        assert "'conv1a'" in text
        assert "1 of its 7 filters (5)" in text


def test_nan_in_what_goes_with_the_filters():
    model = models.residual()
    variance = model.get_layer("bn1b").moving_variance
    variance.assign(models.numpy(variance) * [1, 1, np.inf, 1, 1, 1, 1])
    text = message(ValueError, lambda: kr.plan(model, 0.5))
    assert "'bn1b'" in text
    assert "1 of its 7 moving_variance (2)" in text


@pytest.mark.parametrize("seed", [-1, "a", 1.5, True])
def test_seeds_that_are_none(seed):
    text = message(ValueError, lambda: kr.plan(models.mlp(), 0.5, seed=seed))
    assert repr(seed) in text


def test_an_empty_mapping():
    text = message(ValueError, lambda: kr.plan(models.mlp(), {}))
    assert "empty" in text


def test_lora_and_quantized_layers_are_refused():
    model = models.mlp()
    model.layers[1].enable_lora(2)
    text = message(ValueError, lambda: kr.prune(model, 0.5))
    assert "dense_1" in text
    assert "LoRA" in text
    model = models.mlp()
    model.layers[0].quantize("int8")
    text = message(ValueError, lambda: kr.prune(model, 0.5))
    assert "int8" in text
    assert "Prune the model first" in text


class NoConfig(layers.Layer):
    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)


@pytest.mark.parametrize("function", [keras.ops.sign, keras.ops.sort])
def test_a_layer_that_cannot_say_how_it_was_made(function):
    """What it computes takes its place, so that the model can be saved."""
    inputs = keras.Input((4,))
    x = layers.Dense(8)(layers.Dense(8)(inputs))
    x = NoConfig(function, name="mystery")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    models.plant(model)
    small = kr.prune(model, 0.9999)
    assert small.count_params() < model.count_params()
    assert isinstance(small.get_layer("mystery"), keras.Model)
    models.assert_same_function(model, small)


@pytest.mark.parametrize("value", [0, 3, "2"])
def test_flops_of_an_unknown_multiply_add(value):
    text = message(ValueError, lambda: kr.flops(models.mlp(), value))
    assert repr(value) in text


def test_flops_of_an_open_size():
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, x)
    text = message(ValueError, lambda: kr.flops(model))
    assert "(None, None, None, 3)" in text
    assert "input_shape=" in text
    assert kr.analyze(model).multiply_adds is None
    assert "multiply-adds" not in str(kr.plan(model, 0.5)).splitlines()[-1]


def zero_filters(model, everything):
    """Three of the first kernel's filters, two or all with one bias."""
    layer = model.layers[0]
    kernel, bias = models.numpy(layer.kernel), models.numpy(layer.bias)
    kernel[..., [2, 5, 9]] = 0
    bias[[2, 5]] = 0.3
    bias[9] = 0.3 if everything else 0.7
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)


@pytest.mark.parametrize("everything", [False, True])
def test_zero_filters_go_where_a_bias_takes_their_constants(everything):
    model = models.randomized(models.mlp())
    zero_filters(model, everything)
    small = kr.prune(model, tau=0.9999)
    assert small.layers[0].units == 13
    models.assert_same_function(model, small)


@pytest.mark.parametrize("everything", [False, True])
def test_else_zero_filters_go_where_all_about_them_is_equal(everything):
    """At a padded border, a bias would add what is not there."""
    model = models.randomized(
        keras.Sequential(
            [
                keras.Input((5, 5, 3)),
                layers.Conv2D(16, 3, activation="relu"),
                layers.Conv2D(4, 3, padding="same"),
            ]
        )
    )
    zero_filters(model, everything)
    small = kr.prune(model, tau=0.9999)
    assert small.layers[0].filters == (14 if everything else 15)
    models.assert_same_function(model, small)
