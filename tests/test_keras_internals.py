"""The contract with what Keras does not export.

If one of these fails after an upgrade of Keras, the room `_keras` is the one
place to adapt.
"""

import itertools
import time

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
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


OPERATIONS = {
    "numpy": {
        "Absolute": lambda x: abs(x),
        "Add": lambda x: x + x,
        "Amax": lambda x: ops.amax(x, 1),
        "Clip": (lambda x: ops.clip(x, 0, 1), {"x_min": 0, "x_max": 1}),
        "Concatenate": (lambda x: ops.concatenate([x, x], 1), {"axis": 1}),
        "Divide": lambda x: ops.divide(x, x),
        "Einsum": (
            lambda x: ops.einsum("abc,abc->ab", x, x),
            {"subscripts": "abc,abc->ab"},
        ),
        "ExpandDims": (lambda x: ops.expand_dims(x, -1), {"axis": -1}),
        "Flip": (lambda x: ops.flip(x, 1), {"axis": 1}),
        "GetItem": lambda x: x[:, :2],
        "Greater": lambda x: x > 0,
        "Less": lambda x: x < 0,
        "Matmul": lambda x: x @ ops.swapaxes(x, 1, 2),
        "Max": (
            lambda x: ops.max(x, 1, keepdims=True),
            {"axis": [1], "keepdims": True, "initial": None},
        ),
        "Maximum": lambda x: ops.maximum(x, x),
        "Mean": (lambda x: ops.mean(x, 1), {"axis": [1], "keepdims": False}),
        "Minimum": lambda x: ops.minimum(x, x),
        "Moveaxis": (
            lambda x: ops.moveaxis(x, 1, 2),
            {"source": [1], "destination": [2]},
        ),
        "Multiply": lambda x: 2 * x,
        "Negative": lambda x: -x,
        "Pad": (
            lambda x: ops.pad(x, ((0, 0), (1, 0), (2, 3))),
            {"pad_width": ((0, 0), (1, 0), (2, 3)), "mode": "constant"},
        ),
        "Power": lambda x: x**2,
        "Repeat": (
            lambda x: ops.repeat(x, 2, axis=1),
            {"repeats": 2, "axis": 1},
        ),
        "Reshape": (
            lambda x: ops.reshape(x, (-1, 20)),
            {"newshape": (-1, 20)},
        ),
        "Roll": (lambda x: ops.roll(x, 2, axis=1), {"shift": 2, "axis": 1}),
        "Split": (
            lambda x: ops.split(x, [1], axis=1)[0],
            {"indices_or_sections": (1,), "axis": 1},
        ),
        "Squeeze": (lambda x: ops.squeeze(x[:, :1], 1), {"axis": 1}),
        "Stack": (lambda x: ops.stack([x, x], 1), {"axis": 1}),
        "Subtract": lambda x: x - x,
        "Sum": (lambda x: ops.sum(x, 1), {"axis": [1], "keepdims": False}),
        "Swapaxes": (
            lambda x: ops.swapaxes(x, 1, 2),
            {"axis1": 1, "axis2": 2},
        ),
        "Take": (lambda x: ops.take(x, [0, 2], axis=1), {"axis": 1}),
        "Tanh": lambda x: ops.tanh(x),
        "Tile": (lambda x: ops.tile(x, 2), {"repeats": 2}),
        "Transpose": (
            lambda x: ops.transpose(x, (0, 2, 1)),
            {"axes": (0, 2, 1)},
        ),
        "TrueDivide": lambda x: x / 2,
        "Where": lambda x: ops.where(x, x, x),
    },
    "core": {
        "Cast": (lambda x: ops.cast(x, "int32"), {"dtype": "int32"}),
        "StopGradient": lambda x: ops.stop_gradient(x),
        "Unstack": (lambda x: ops.unstack(x, axis=1)[0], {"axis": 1}),
    },
    "math": {
        "Logsumexp": (lambda x: ops.logsumexp(x, 1), {"axis": 1}),
        "Rsqrt": lambda x: ops.rsqrt(x),
    },
    "nn": {
        "Gelu": lambda x: ops.gelu(x),
        "Glu": (lambda x: ops.glu(x, axis=1), {"axis": 1}),
        "LeakyRelu": lambda x: ops.leaky_relu(x),
        "Relu": lambda x: ops.relu(x),
        "Sigmoid": lambda x: ops.sigmoid(x),
        "Softmax": (lambda x: ops.softmax(x, 1), {"axis": 1}),
    },
    "image": {
        "Resize": (
            lambda x: ops.image.resize(x[..., None], (2, 2)),
            {"size": (2, 2), "fill_value": 0.0, "data_format": "channels_last"},
        ),
    },
}


@pytest.mark.parametrize(
    ("module", "kind"),
    [(module, kind) for module in OPERATIONS for kind in OPERATIONS[module]],
)
def test_operations_have_the_classes_and_attributes_that_rules_read(
    module, kind
):
    case = OPERATIONS[module][kind]
    make, attributes = case if isinstance(case, tuple) else (case, {})
    operation = _keras.origin(make(keras.Input((4, 5))))
    classes = getattr(_keras, f"{module}_operations")
    assert type(operation) is getattr(classes, kind)
    found = {name: getattr(operation, name) for name in attributes}
    assert found == attributes


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda x: ops.reshape(x, (-1, 20)), ("newshape", 1)),
        (lambda x: ops.split(x, 2, axis=1)[0], ("indices_or_sections",)),
        (lambda x: ops.roll(x, 2, axis=1), ("shift",)),
        (lambda x: ops.pad(x, ((0, 0), (1, 0), (2, 3))), ("pad_width", 2)),
        (lambda x: ops.broadcast_to(x, (1, 4, 5)), ("shape", 2)),
    ],
)
def test_operations_are_made_anew_from_their_configs(make, path):
    operation = _keras.origin(make(keras.Input((4, 5), batch_size=1)))
    assert _keras.has_config(operation)
    config = operation.get_config()
    assert type(operation).from_config(config).get_config() == config
    for key in path:
        config = config[key]


def test_operations_given_what_cannot_be_saved_have_no_config():
    x = keras.Input((4, 5))
    operation = _keras.origin(ops.reshape(x, (-1, np.int64(20))))
    assert not _keras.has_config(operation)
    assert _keras.has_config(layers.Reshape((np.int64(20),)))


def test_the_key_of_a_slice_is_an_argument():
    call = _keras.calls(
        _keras.graph_of(keras.Model(x := keras.Input((4, 5)), x[:, 1:, None]))
    )[0]
    args, kwargs = call.arguments
    assert args[1] == (slice(None), slice(1, None), None)
    assert kwargs == {}


def test_a_copied_operation_leaves_the_original_graph_alone():
    x = keras.Input((4,))
    operation = _keras.origin(keras.ops.leaky_relu(x, 0.3))
    before = len(operation._inbound_nodes)
    clone = _keras.copy_operation(operation)
    clone(keras.Input((7,)))
    assert len(operation._inbound_nodes) == before
    assert clone.negative_slope == 0.3


def test_an_operation_that_cannot_be_saved_is_copied():
    x = keras.Input((4, 5))
    operation = _keras.origin(ops.reshape(x, (-1, np.int64(20))))
    clone = _keras.copy_operation(operation)
    assert clone(keras.Input((4, 5))).shape == (None, 20)
    assert clone.name == operation.name


def test_layers_come_outer_first():
    model = models.nested()
    names = [layer.name for layer in _keras.flat_layers(model)]
    assert names[0] == "outer"
    assert names.index("inner") < names.index("innermost")


def test_compile_arguments():
    model = models.mlp()
    assert _keras.compile_arguments(model) is None
    model.compile("adam", "mse", metrics=["mae"])
    arguments = _keras.compile_arguments(model)
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
    assert _keras.rebuildable_class(own) is Functional
    assert _keras.rebuildable_class(Other(3)) is keras.Model


def test_what_keras_sets_on_a_model_is_known():
    x = np.ones((8, 4), "float32")
    inputs = keras.Input((4,))
    functional = keras.Model(inputs, layers.Dense(2)(inputs))
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    for model in (functional, sequential):
        model.compile("sgd", "mse", metrics=["mae"], jit_compile=False)
        model.fit(x, x[:, :2], validation_data=(x, x[:, :2]), verbose=0)
        model.evaluate(x, x[:, :2], verbose=0)
        model.predict(x, verbose=0)
        model.get_config()
        assert _keras.own_attributes(model) == {}
        model.own = 3
        assert _keras.own_attributes(model) == {"own": 3}


def test_classes_and_configs_of_models():
    class Own(keras.Model):
        pass

    class Told(keras.Model):
        def get_config(self):
            return {}

    inputs = keras.Input((4,))
    functional = type(keras.Model(inputs, layers.Dense(2)(inputs)))
    for cls in (functional, keras.Sequential, kr.FactorizedDense):
        assert _keras.is_stock_class(cls)
    assert not _keras.is_stock_class(Own)
    own, told = (
        cls(inputs, layers.Dense(2)(inputs), name="own") for cls in (Own, Told)
    )
    assert not _keras.has_own_config(type(own))
    assert _keras.has_own_config(type(told))
    assert _keras.plain_class(own) is keras.Model
    assert _keras.plain_class(keras.Sequential()) is keras.Sequential


def test_the_variables_that_a_layer_reads():
    other, flag, also = (keras.Variable(np.ones(3, "float32")) for _ in "abc")
    random = keras.random.SeedGenerator(1)

    class Reads(layers.Layer):
        def build(self, shape):
            self.own = self.add_weight(shape=(3,), name="own")

        def call(self, x, also=None):
            flag.assign(flag + other)
            noise = keras.random.normal((3,), seed=random)
            return x * self.own * other + noise + also

    layer = Reads()
    x = keras.Input((3,))
    layer(x, also=also)
    read = _keras.variables_read(layer, (x,), {"also": also})
    expected = [other, flag, layer.own, also, random.state]
    assert {id(v) for v in read} == {id(v) for v in expected}
    assert [v for v in read if _keras.is_random_state(v)] == [random.state]
    np.testing.assert_array_equal(models.numpy(flag), np.ones(3))


def test_what_a_layer_read_before_it_failed():
    other = keras.Variable(np.ones(3, "float32"))

    class Fails(layers.Layer):
        def call(self, x):
            raise RuntimeError(str(models.numpy(other)))

    read = _keras.variables_read(Fails(), (keras.Input((3,)),), {})
    assert read == [other]


def test_arguments_of_a_call_are_replaced():
    inputs = keras.Input((4,))
    first, second = (keras.Variable(x * np.ones(4)) for x in (1, 2))
    model = keras.Model(inputs, ops.multiply(inputs, [first][0]))
    (call,) = _keras.calls(_keras.graph_of(model))
    assert _keras.node_of(model.outputs[0]) is call.node
    assert _keras.variables_in(call.arguments) == [first]
    _keras.replace_arguments(call.node, lambda x: second if x is first else x)
    assert _keras.variables_in(call.arguments) == [second]
    np.testing.assert_array_equal(model(np.ones((1, 4))), 2 * np.ones((1, 4)))


def test_layers_right_inside_of_a_layer():
    model = models.nested()
    right = _keras.flat_layers(model, recursive=False)
    assert right[0] is model
    assert "inner" in [layer.name for layer in right]
    assert "innermost" not in [layer.name for layer in right]


def test_operations_run_as_when_the_model_predicts():
    x = np.ones((4, 3), "float32")
    dropout = layers.Dropout(0.9)
    run = _keras.run_for_inference
    for kwargs in ({}, {"training": True}):
        np.testing.assert_array_equal(run(dropout, (x,), kwargs), x)
    np.testing.assert_array_equal(run(layers.ReLU(), (-x,), {}), 0 * x)


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_a_recurrent_layer_that_returns_every_step(kind):
    layer = kind(4, return_state=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    last, *_ = layer(x)
    every = _keras.returning_sequences(layer)(x)
    assert every.shape == (2, 5, 4)
    np.testing.assert_allclose(models.numpy(every)[:, -1], last, atol=1e-6)
    assert len(layer(x)) > 1  # The layer itself is what it was.


def test_inputs_are_put_in_the_order_of_the_model():
    graph = _keras.graph_of(models.shared())
    first, second = (x.name for x in graph.inputs)
    given = {second: np.ones((2, 10)), first: np.zeros((2, 10))}
    a, b = _keras.standardized_inputs(graph, given)
    assert models.numpy(a).max() == 0
    assert models.numpy(b).min() == 1


@pytest.mark.parametrize("targets", [(), (np.zeros(7),)])
def test_data_comes_in_batches_of_arrays(targets):
    x = np.arange(21.0).reshape(7, 3)
    (whole,), count = _keras.numpy_batches(x, 10)
    np.testing.assert_array_equal(whole, x)
    assert count == 1
    batches, count = _keras.numpy_batches(x, 3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert count == 3
    generator = ((x, *targets) for _ in range(2))
    batches, count = _keras.numpy_batches(generator, None)
    assert [len(batch) for batch in batches] == [1 + len(targets)] * 2
    assert count is None
    with pytest.raises((TypeError, ValueError)):
        _keras.numpy_batches("no data", 3)


@pytest.mark.parametrize("is_excluded", [False, True])
def test_a_variable_of_another_shape_is_trained_on(is_excluded):
    """Where gradients are 0, only weight decay changes it."""
    layer = layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.Input((5,)), layer])
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if is_excluded:
        optimizer.exclude_from_weight_decay([layer.kernel])
    model.compile(optimizer, "mse")
    model.fit(np.zeros((8, 5)), np.zeros((8, 4)), verbose=0)
    slots = [slot for slot, _ in _keras.slots(optimizer, layer.kernel)]
    assert len(slots) == 2
    kernel = models.numpy(layer.kernel)[:, :3]
    for variable in (*slots, layer.kernel):
        value = models.numpy(variable)[:, :3]
        _keras.resize(variable, value, optimizer)
    _keras.forget_functions(model)
    model.fit(np.zeros((8, 5)), np.zeros((8, 3)), verbose=0)
    found = models.numpy(layer.kernel)
    assert (found == kernel).all() == is_excluded
    assert np.abs(found).sum() <= np.abs(kernel).sum()
    assert _keras.replicas(model) == 1


@pytest.mark.parametrize("saved", [False, True])
def test_the_function_of_a_loss_and_whether_it_takes_logits(saved, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    if saved:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    loss = _keras.compile_arguments(model)["loss"]
    found = _keras.loss_function(loss)
    assert found == ("sparse_categorical_crossentropy", True)
    assert _keras.loss_function(keras.losses.MeanSquaredError())[1] is False
    assert _keras.loss_function("mse") == (None, False)
    assert _keras.loss_function(None) == (None, False)


@pytest.mark.parametrize(
    ("optimizer", "kinds", "counters"),
    [
        (keras.optimizers.SGD(0.1), [], 2),
        (keras.optimizers.SGD(0.1, momentum=0.9), ["linear"], 2),
        (keras.optimizers.Adam(0.1), ["linear", "square"], 2),
        (keras.optimizers.Adamax(0.1), ["linear", "size"], 2),
        (keras.optimizers.Nadam(0.1), ["linear", "square"], 3),
        (
            keras.optimizers.RMSprop(0.1, use_ema=True),
            ["square", "weights"],
            2,
        ),
        (
            keras.optimizers.ScheduleFreeAdamW(0.1),
            ["square", "weights"],
            None,
        ),
        (
            keras.optimizers.LossScaleOptimizer(keras.optimizers.Adagrad(0.1)),
            ["square"],
            None,
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_an_optimizer_keeps(optimizer, kinds, counters):
    variable = keras.Variable(np.ones((3, 2), "float32"))
    other = keras.Variable(np.ones((3, 2), "float32"))
    assert _keras.slots(optimizer, variable) == []
    optimizer.build([other, variable])
    found = _keras.slots(optimizer, variable)
    assert sorted(kind for _, kind in found) == kinds
    assert all(slot.shape == (3, 2) for slot, _ in found)
    of_all = _keras.counters(optimizer)
    assert all(v.shape == () for v in of_all)
    assert len(of_all) + 2 * len(found) == len(optimizer.variables)
    assert counters is None or len(of_all) == counters
    averages = "weights" in kinds
    assert _keras.averages_weights(optimizer) == averages


def test_what_weight_decay_leaves_alone_is_copied():
    variables = [keras.Variable(np.ones(2), name=x) for x in ("a", "b", "c")]
    copies = [keras.Variable(np.ones(2), name=x) for x in ("a", "b", "c")]
    old, new = (keras.optimizers.AdamW(0.1) for _ in range(2))
    old.exclude_from_weight_decay([variables[0]], ["b"])
    _keras.copy_weight_decay(
        old, new, list(zip(variables, copies, strict=True))
    )
    assert [new._use_weight_decay(x) for x in copies] == [False, False, True]
    plain = keras.optimizers.AdamW(0.1)
    _keras.copy_weight_decay(plain, plain, [])
    assert plain._use_weight_decay(copies[0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 4),
        ({"batch_size": 25}, 4),
        ({"batch_size": 30}, 4),
        ({"batch_size": 30, "validation_split": 0.5}, 2),
        ({"steps_per_epoch": 7}, 7),
    ],
)
def test_number_of_batches(options, expected):
    x, y = np.zeros((100, 3)), np.zeros(100)
    assert _keras.number_of_batches(x, y, options) == expected
    told = []
    tell = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: told.append(batch)
    )
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    data = (x, y)
    if "steps_per_epoch" in options:
        data = (((x, y) for _ in itertools.count()), None)
        assert _keras.number_of_batches(*data, {}) is None
    options = {"shuffle": False, "verbose": 0} | options
    model.fit(*data, callbacks=[tell], **options)
    assert len(told) == expected


def test_the_batches_of_a_generator_are_not_read_to_count_them():
    batches = ((np.zeros((2, 3)), np.zeros(2)) for _ in range(4))
    assert _keras.number_of_batches(batches, None, {}) is None
    assert len(list(batches)) == 4


def test_what_callbacks_do_meanwhile_is_waited_for():
    done = []

    class Slow(keras.callbacks.Callback):
        async_safe = True

        def on_train_batch_end(self, batch, logs=None):
            time.sleep(0.2)
            done.append(batch)

    callbacks = keras.callbacks.CallbackList([Slow()])
    callbacks.on_train_begin()
    callbacks.on_train_batch_end(3)
    _keras.flush(callbacks)
    assert done == [3]
    callbacks.on_train_end()


def test_what_has_no_strategy_has_no_scope():
    """`tests/test_distribution.py` has models with one."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with _keras.scope_of(model), _keras.scope_of(model.optimizer):
        assert _keras.replicas(keras.Model(model.inputs, model.outputs)) == 1
    x = np.ones((4, 3), "float32")
    np.testing.assert_allclose(
        _keras.predict_on_one_replica(model, x), model.predict_on_batch(x)
    )
