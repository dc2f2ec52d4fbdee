"""The graph of one model: its calls, and the tensors between them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_redundancy import _keras
from tests import models


def test_calls_come_in_an_order_that_can_be_run():
    graph = _keras.graph_of(models.residual())
    seen = {id(x) for x in graph.inputs}
    for call in _keras.calls(graph):
        assert all(id(x) in seen for x in call.inputs)
        seen |= {id(x) for x in call.outputs}
    assert all(id(x) in seen for x in graph.outputs)


def test_a_shared_layer_has_a_call_for_each_use():
    graph = _keras.graph_of(models.shared())
    names = [call.operation.name for call in _keras.calls(graph)]
    assert names.count("tower") == names.count("second") == 2
    assert names.count("add") == 1


def test_a_call_keeps_its_arguments():
    x = keras.Input((4,))
    y = layers.Dense(4)(x)
    model = keras.Model(x, keras.ops.add(keras.ops.add(y, x), 2.0))
    *_, first, second = _keras.calls(_keras.graph_of(model))
    assert second.arguments[0][1] == 2.0
    filled, _ = first.fill_in({id(t): n for n, t in enumerate(first.inputs)})
    assert filled == (0, 1)


@pytest.mark.parametrize("factory", [models.mlp, models.residual])
def test_graphs_have_inputs_outputs_and_structures(factory):
    model = factory()
    graph = _keras.graph_of(model)
    flat = keras.tree.flatten
    assert flat(_keras.input_structure(graph)) == graph.inputs
    assert flat(_keras.output_structure(graph)) == graph.outputs
    origin = _keras.origin(graph.inputs[0])
    assert isinstance(origin, layers.InputLayer)


def test_the_key_of_a_slice_is_an_argument():
    call = _keras.calls(
        _keras.graph_of(keras.Model(x := keras.Input((4, 5)), x[:, 1:, None]))
    )[0]
    args, kwargs = call.arguments
    assert args[1] == (slice(None), slice(1, None), None)
    assert kwargs == {}


def test_arguments_of_a_call_are_replaced():
    inputs = keras.Input((4,))
    first, second = (keras.Variable(x * np.ones(4)) for x in (1, 2))
    model = keras.Model(inputs, ops.multiply(inputs, [first][0]))
    (call,) = _keras.calls(_keras.graph_of(model))
    assert _keras.node_of(model.outputs[0]) is call.node
    assert _keras.variables_in(call.arguments) == [first]
    _keras.replace_arguments(call.node, lambda x: second if x is first else x)
    assert _keras.variables_in(call.arguments) == [second]
    found = models.numpy(model(np.ones((1, 4))))
    np.testing.assert_array_equal(found, 2 * np.ones((1, 4)))


def test_operations_run_as_when_the_model_predicts():
    x = np.ones((4, 3), "float32")
    dropout = layers.Dropout(0.9)
    run = _keras.run_for_inference
    for kwargs in ({}, {"training": True}):
        np.testing.assert_array_equal(run(dropout, (x,), kwargs), x)
    np.testing.assert_array_equal(run(layers.ReLU(), (-x,), {}), 0 * x)


def test_inputs_are_put_in_the_order_of_the_model():
    graph = _keras.graph_of(models.shared())
    first, second = (x.name for x in graph.inputs)
    given = {second: np.ones((2, 10)), first: np.zeros((2, 10))}
    a, b = _keras.standardized_inputs(graph, given)
    assert models.numpy(a).max() == 0
    assert models.numpy(b).min() == 1
