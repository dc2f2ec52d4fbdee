"""Layers for training: what they become in a stock model."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy.building.recipe import LayerRecipe, Recipe
from keras_redundancy.building.stock import stock_form
from tests import models


@keras.saving.register_keras_serializable(__name__)
class Doubled(layers.Dense):
    """A `Dense` layer that computes with `factor` times its kernel."""

    def __init__(self, units, factor=2.0, **options):
        super().__init__(units, **options)
        self.factor = factor

    def call(self, x):
        x = ops.matmul(x, self.factor * ops.convert_to_tensor(self.kernel))
        return self.activation(x + self.bias)

    def stock_kernel(self):
        return self.factor * ops.convert_to_numpy(self.kernel)

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


@kr.register_stock_form(Doubled)
def doubled(layer):
    return kr.LayerForm(
        layer,
        layers.Dense,
        without=("factor",),
        values={"kernel": layer.stock_kernel, "bias": layer.bias},
        advice="Doubled layers stay.",
    )


@keras.saving.register_keras_serializable(__name__)
class Watch(layers.Layer):
    """Hands on what it reads, and keeps how large that was."""

    def build(self, shape):
        self.seen = self.add_weight(shape=(shape[-1],), trainable=False)

    def call(self, x):
        return x

    def compute_output_shape(self, shape):
        return shape


@kr.register_stock_form(Watch)
def watch(layer):
    return None


@kr.register_rule(Watch)
def watch_rule(layer, call):
    x = call.inputs[0]
    call.carried_by(layer.seen, 0, x.ids)
    return x


@keras.saving.register_keras_serializable(__name__)
class Annealed(keras.regularizers.Regularizer):
    """A regularizer that takes the place of another one in training."""

    def __init__(self, of):
        self.of = keras.regularizers.get(of)

    def __call__(self, x):
        return 0.5 * self.of(x)

    def get_config(self):
        return {"of": keras.regularizers.serialize(self.of)}


kr.register_stock_form(Annealed, lambda regularizer: regularizer.of)


def model_with(*hidden):
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3)])
    return models.randomized(model)


def test_a_layer_of_ones_own_becomes_a_stock_layer():
    model = model_with(Doubled(8, activation="tanh", name="one"))
    model.get_layer("one").bias.trainable = False
    stock = kr.strip(model)
    assert [type(x) for x in stock.layers] == [layers.Dense, layers.Dense]
    one = stock.get_layer("one")
    assert one.activation is keras.activations.tanh
    assert one.kernel.trainable
    assert not one.bias.trainable
    models.assert_same_function(model, stock)


def test_a_layer_of_ones_own_is_pruned_as_what_it_becomes():
    model = model_with(Doubled(8, activation="relu", name="one"))
    one = model.get_layer("one")
    kernel, bias = map(models.numpy, (one.kernel, one.bias))
    kernel[:, 5], bias[5] = 2 * kernel[:, 2], 2 * bias[2]
    one.kernel.assign(kernel)
    one.bias.assign(bias)
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("one").kernel.shape == (6, 7)
    models.assert_same_function(model, small)


def test_a_layer_of_ones_own_inside_a_wrapper():
    inputs = keras.Input((4, 6))
    x = layers.TimeDistributed(Doubled(8, name="one"))(inputs)
    x = layers.TimeDistributed(Watch())(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    stock = kr.strip(model)
    kinds = [type(x.layer) for x in stock.layers[1:3]]
    assert kinds == [layers.Dense, layers.Identity]
    models.assert_same_function(model, stock)


def test_a_layer_of_ones_own_is_left_out():
    sequential = model_with(layers.Dense(8), Watch(), layers.ReLU())
    functional = keras.Model(sequential.inputs, sequential.outputs)
    for model in (sequential, functional):
        stock = kr.strip(model)
        assert not any(isinstance(x, Watch) for x in stock.layers)
        assert stock.count_params() == model.count_params() - 8
        models.assert_same_function(model, stock, tolerance=0)


def test_what_is_left_out_stays_while_training_goes_on():
    model = model_with(layers.Dense(8), Watch(name="watch"), layers.ReLU())
    model.compile("adam", "mse", run_eagerly=models.EAGERLY)
    x = models.random_inputs(model)
    model.fit(x, np.zeros((len(x), 3)), verbose=0)
    small = kr.prune(model, ratio=0.5, optimizer=True)
    assert small.get_layer("watch").seen.shape == (4,)


def test_training_cannot_go_on_with_a_layer_that_becomes_another():
    model = model_with(Doubled(8, name="one"))
    model.compile("adam", "mse")
    message = r"'one' \(Doubled\).*makes a Dense.*Doubled layers stay\."
    with pytest.raises(ValueError, match=message):
        kr.prune(model, ratio=0.5, optimizer=True)


def test_an_object_in_configs_is_replaced():
    cell = layers.GRUCell(4, kernel_regularizer=Annealed("l1"))
    cells = [layers.SimpleRNNCell(3), cell]
    model = models.randomized(
        keras.Sequential(
            [
                keras.Input((5, 6)),
                layers.Dense(8, kernel_regularizer=Annealed("l2")),
                layers.Bidirectional(
                    layers.LSTM(4, kernel_regularizer=Annealed(None)),
                    merge_mode="sum",
                ),
                layers.RepeatVector(2),
                layers.RNN(cells),
                layers.Dense(2),
            ]
        )
    )
    stock = kr.strip(model)
    dense, both, _, rnn, _ = stock.layers
    assert isinstance(dense.kernel_regularizer, keras.regularizers.L2)
    assert both.forward_layer.cell.kernel_regularizer is None
    cell = rnn.cell.cells[1]
    assert isinstance(cell.kernel_regularizer, keras.regularizers.L1)
    models.assert_same_function(model, stock, tolerance=0)
    kept = model.layers[0].kernel_regularizer
    assert isinstance(kept, Annealed)


def test_a_form_that_is_none_is_named():
    class Odd(Watch):
        pass

    @kr.register_stock_form(Odd)
    def odd(layer):
        return layers.Dense(3)

    with pytest.raises(TypeError, match=r"odd that is registered for Odd.*Den"):
        kr.strip(model_with(Odd()))


def test_a_layer_that_is_left_out_has_to_hand_on_what_it_reads():
    class Narrow(layers.Dense):
        pass

    kr.register_stock_form(Narrow, lambda layer: None)
    message = r"'narrow' \(Narrow\).*\(None, 4\) of \(None, 6\).*LayerForm"
    model = model_with(Narrow(4, name="narrow"))
    for x in (model, keras.Model(model.inputs, model.outputs)):
        with pytest.raises(ValueError, match=message):
            kr.strip(x)


def test_what_is_registered_is_checked():
    with pytest.raises(TypeError, match=r"expects a class.*Doubled"):
        kr.register_stock_form(Doubled(3))
    with pytest.raises(TypeError, match=r"function of a layer.*7"):
        kr.register_stock_form(Doubled, 7)


def test_recipes_and_forms_are_shown_in_short():
    model = model_with(Doubled(8, name="one"))
    one = model.get_layer("one")
    form = stock_form(one)
    assert repr(form) == "<LayerForm: Dense like 'one'>"
    assert repr(stock_form(Watch())) == "<LayerForm: nothing>"
    change = LayerRecipe(one, form, {("units",): 7}, ((one.bias, None),))
    assert repr(change) == (
        "<LayerRecipe: Doubled 'one', becomes <LayerForm: Dense like 'one'>, "
        "units=7, 1 variables>"
    )
    shown = repr(Recipe.of(model, [change]))
    assert "1 of 4 layers and operations change, 0 calls" in shown


def test_a_change_of_a_layer_that_is_not_in_the_graph():
    model = model_with(layers.Dense(8))
    other = layers.Dense(3, name="other")
    with pytest.raises(ValueError, match="'other' is not in the graph of"):
        Recipe.of(model, [LayerRecipe(other)])
