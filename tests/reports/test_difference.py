"""`difference`: the sizes of two models, layer by layer."""

import json

import keras
from keras import layers

import keras_redundancy as kr
from tests import models


def test_sizes_are_those_of_the_models():
    before = models.randomized(models.residual())
    after = kr.prune(before, ratio=0.5)
    found = kr.difference(before, after)
    for number, model in enumerate((before, after)):
        assert found.total[number].parameters == model.count_params()
        assert found.total[number].multiply_adds == kr.flops(model)
        for name, sizes in found.layers.items():
            layer = model.get_layer(name)
            assert sizes[number].units == layer.kernel.shape[-1]
            assert sizes[number].parameters == layer.count_params()
    assert found.layers["conv1a"][0].units == 7
    assert found.layers["conv1a"][1].units == 4


def test_layers_that_one_model_lacks():
    def network(name):
        inputs = keras.Input((5,), name="in")
        x = layers.Dense(4, name=name)(inputs)
        return keras.Model(inputs, layers.Dense(2, name="out")(x), name=name)

    found = kr.difference(network("a"), network("b"))
    assert list(found.layers) == ["a", "out", "b"]
    assert found.layers["a"][1] is None
    assert found.layers["b"][0] is None
    assert json.loads(json.dumps(found.to_dict()))["names"] == ["a", "b"]
    row = next(x for x in str(found).splitlines() if x.split()[:1] == ["b"])
    assert row.split() == ["b", "-", "4", "-", "24", "-", "20"]


def test_factorized_layers_count_as_what_they_compute():
    dense = layers.Dense(4, name="a"), layers.Dense(2, name="b")
    model = keras.Sequential([keras.Input((6,)), *dense])
    found = kr.difference(model, kr.factorize(model))
    assert list(found.layers) == ["a", "b"]
    assert all(before == after for before, after in found.layers.values())


def test_layers_of_one_name_are_all_there():
    def part(name, units):
        dense = layers.Dense(units, name="same")
        return keras.Sequential([keras.Input((5,)), dense], name=name)

    inputs = keras.Input((5,))
    outputs = layers.Concatenate()([part("a", 3)(inputs), part("b", 4)(inputs)])
    model = keras.Model(inputs, layers.Dense(2, name="last")(outputs))
    found = kr.difference(model, model).layers
    assert [x[0].units for x in found.values()] == [3, 4, 2]
    assert list(found) == ["a/same", "b/same", "last"]
    assert list(kr.analyze(model).by_title) == list(found)
