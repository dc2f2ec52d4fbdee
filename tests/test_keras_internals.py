"""The contract with what Keras does not export.

If one of these fails after an upgrade of Keras, `_keras_internals.py` is the
one place to adapt.
"""

import keras
import pytest
from keras import layers

from keras_redundancy import _keras_internals as internals
from tests import models


def test_calls_come_in_an_order_that_can_be_run():
    graph = internals.graph_of(models.residual())
    seen = {id(x) for x in graph.inputs}
    for call in internals.calls(graph):
        assert all(id(x) in seen for x in call.inputs)
        seen |= {id(x) for x in call.outputs}
    assert all(id(x) in seen for x in graph.outputs)


def test_a_shared_layer_has_a_call_for_each_use():
    graph = internals.graph_of(models.shared())
    names = [call.operation.name for call in internals.calls(graph)]
    assert names.count("tower") == names.count("second") == 2
    assert names.count("add") == 1


def test_a_call_keeps_its_arguments():
    x = keras.Input((4,))
    y = layers.Dense(4)(x)
    model = keras.Model(x, keras.ops.add(keras.ops.add(y, x), 2.0))
    *_, first, second = internals.calls(internals.graph_of(model))
    assert second.arguments[0][1] == 2.0
    filled, _ = first.fill_in({id(t): n for n, t in enumerate(first.inputs)})
    assert filled == (0, 1)


@pytest.mark.parametrize("factory", [models.mlp, models.residual])
def test_graphs_have_inputs_outputs_and_structures(factory):
    model = factory()
    graph = internals.graph_of(model)
    flat = keras.tree.flatten
    assert flat(internals.input_structure(graph)) == graph.inputs
    assert flat(internals.output_structure(graph)) == graph.outputs
    origin = internals.origin(graph.inputs[0])
    assert isinstance(origin, layers.InputLayer)


def test_operations_have_the_classes_that_rules_are_registered_for():
    x = keras.Input((4,))
    made = {
        "ELEMENTWISE_COMBINATIONS": [
            x + x,
            x - x,
            x * x,
            keras.ops.maximum(x, x),
            keras.ops.minimum(x, x),
        ],
        "HOMOGENEOUS_OPERATIONS": [
            keras.ops.relu(x),
            keras.ops.leaky_relu(x),
        ],
        "ELEMENTWISE_OPERATIONS": [
            keras.ops.tanh(x),
            keras.ops.gelu(x),
            keras.ops.sigmoid(x),
        ],
    }
    for table, tensors in made.items():
        for tensor in tensors:
            kind = type(internals.origin(tensor))
            assert kind in getattr(internals, table), (table, kind)
    joined = keras.ops.concatenate([x, x])
    assert type(internals.origin(joined)) is internals.CONCATENATE


def test_a_copied_operation_leaves_the_original_graph_alone():
    x = keras.Input((4,))
    operation = internals.origin(keras.ops.leaky_relu(x, 0.3))
    before = len(operation._inbound_nodes)
    clone = internals.copy_operation(operation)
    clone(keras.Input((7,)))
    assert len(operation._inbound_nodes) == before
    assert clone.negative_slope == 0.3


def test_layers_come_outer_first():
    model = models.nested()
    names = [layer.name for layer in internals.flat_layers(model)]
    assert names[0] == "outer"
    assert names.index("inner") < names.index("innermost")


def test_compile_arguments():
    model = models.mlp()
    assert internals.compile_arguments(model) is None
    model.compile("adam", "mse", metrics=["mae"])
    arguments = internals.compile_arguments(model)
    assert arguments["optimizer"] is model.optimizer
    assert (arguments["loss"], arguments["metrics"]) == ("mse", ["mae"])


def test_the_class_to_rebuild_with():
    class Functional(keras.Model):
        pass

    class Other(keras.Model):
        def __init__(self, width):
            x = keras.Input((width,))
            super().__init__(x, layers.Dense(2)(x))

    x = keras.Input((3,))
    own = Functional(x, layers.Dense(2)(x))
    assert internals.rebuildable_class(own) is Functional
    assert internals.rebuildable_class(Other(3)) is keras.Model
