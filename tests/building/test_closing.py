"""Smaller layers made of layers: of their own class, or opened."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models, subclassed
from tests.rule_checks import between

INSIDE = "block-.*"


def cut(layer, **options):
    model = models.randomized(between(layer))
    plan = kr.plan(model, **({"ratio": 0.5, "layers": INSIDE} | options))
    return model, plan.apply()


def test_an_argument_that_sets_the_width():
    _, small = cut(subclassed.FeedForward(12, name="block"))
    block = small.get_layer("block")
    assert type(block) is subclassed.FeedForward
    assert block.width == 6
    assert block.get_config()["width"] == 6


def test_an_argument_that_sets_more_than_the_width():
    _, small = cut(subclassed.Scaled(12, name="block"))
    inside = small.get_layer("block")
    assert isinstance(inside, keras.Model)
    assert inside.get_layer("block-expand").units == 6


def test_no_argument_sets_the_widths(tmp_path):
    block = subclassed.TwoWidths()
    block.name = "block"
    _, small = cut(block)
    inner = [x for x in small.get_layer("block").layers if x.weights]
    assert [x.units for x in inner] == [4, 4]
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)


def test_what_does_not_change_keeps_its_class():
    model, small = cut(subclassed.FeedForward(12, name="block"), ratio=0)
    block = small.get_layer("block")
    assert type(block) is subclassed.FeedForward
    assert block is not model.get_layer("block")
    models.assert_same_function(model, small)


def test_a_layer_without_a_config_that_does_not_change():
    model = models.randomized(between(subclassed.TwoWidths()))
    small = kr.plan(model, ratio={"top": 0.5}).apply()
    models.assert_same_function(model, small)


class Unbuilt(layers.Layer):
    """Its first call builds the layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(8)

    def call(self, x):
        return self.inner(x)

    def compute_output_shape(self, shape):
        return *shape[:-1], 8


class BuiltOnTuples(Unbuilt):
    def build(self, shape):
        self.inner.build(shape[:-1] + (16,))  # noqa: RUF005


@pytest.mark.parametrize("cls", [Unbuilt, BuiltOnTuples])
def test_layers_that_keras_cannot_build_as_it_loads_them(cls, tmp_path):
    model = models.randomized(between(cls()))
    small = kr.plan(model, ratio={"top": 0.5}).apply()
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(
        tmp_path / "small.keras", custom_objects={cls.__name__: cls}
    )
    models.assert_same_function(small, again)


def test_the_smaller_block_computes_what_the_graph_does():
    model, small = cut(subclassed.FeedForward(12, name="block"))
    plan = kr.plan(model, ratio=0.5, layers=INSIDE)
    kept = plan["block-expand"].selection.kept
    old, new = (x.get_layer("block") for x in (model, small))
    np.testing.assert_array_equal(
        old.expand.kernel.numpy()[:, kept], new.expand.kernel.numpy()
    )


def test_mending_reaches_inside():
    model, _ = cut(subclassed.FeedForward(12, name="block"))
    x = models.random_inputs(model, batch=64)
    errors = []
    for options in ({"data": x}, {"absorb": "drop"}):
        small = kr.prune(model, ratio=0.5, layers=INSIDE, **options)
        assert type(small.get_layer("block")) is subclassed.FeedForward
        both = (models.outputs(y, x)[0] for y in (model, small))
        errors.append(float(np.square(np.subtract(*both)).mean()))
    assert errors[0] < errors[1]


@pytest.mark.parametrize("width", [16, 20])
def test_two_arguments_of_the_same_value(width):
    class Twice(subclassed.FeedForward):
        def __init__(self, width, other=16, **kwargs):
            super().__init__(width, **kwargs)
            self.other = other

        def build(self, shape):
            super().build(shape)
            self.second = layers.Dense(self.other, name="second")
            self.second.build(shape)

        def call(self, x):
            return self.second(super().call(x))

        def get_config(self):
            return {**super().get_config(), "other": self.other}

    _, small = cut(Twice(width, name="block"), layers="block-expand")
    block = small.get_layer("block")
    assert (type(block), block.width, block.other) == (Twice, width // 2, 16)
