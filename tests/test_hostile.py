"""Layers and models that do something else than their class promises."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models
from tests.rule_checks import prune


def head(inputs, x):
    if len(x.shape) > 2:
        x = layers.Flatten()(x)
    return models.randomized(
        keras.Model(inputs, layers.Dense(2, name="top")(x))
    )


def check(model, tau=0.9999):
    """Planted copies do not change the function; return the smaller model."""
    models.plant(model)
    small = prune(model, tau)
    models.assert_same_function(model, small)
    return small


class Standardised(layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        spread = keras.ops.std(kernel, axis=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, kernel / (spread + 1e-3))


class Turned(layers.Add):
    def _merge_function(self, inputs):
        return keras.ops.flip(inputs[0], -1) + inputs[1]


def test_a_subclass_that_overrides_a_part_of_call():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, name="before")(inputs)
    x = Turned(name="turned")([x, Standardised(8, 3, name="own")(inputs)])
    model = head(inputs, x)
    text = str(kr.plan(model, 0.9))
    assert "with a kernel that is no weight itself" in " ".join(text.split())
    check(model)


class Softened(keras.Model):
    def call(self, x, training=None, mask=None):
        return keras.ops.softmax(super().call(x, training=training))


class Waved(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return keras.ops.sin(super().call(x, training=training))


def softened():
    inputs = keras.Input((4,))
    return Softened(inputs, layers.Dense(8)(inputs))


def waved():
    return Waved([keras.Input((4,)), layers.Dense(8), layers.Dense(6)])


@pytest.mark.parametrize("factory", [softened, waved])
def test_a_model_with_a_call_of_its_own(factory):
    """Its call is followed, alone and inside of another model."""
    inputs = keras.Input((4,))
    check(head(inputs, factory()(layers.Dense(4)(inputs))))
    own = models.randomized(factory())
    models.plant(own)
    data = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    models.assert_same_function(own, prune(own, 0.9999), data)


class Trained(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def test_a_sequential_subclass_keeps_its_class():
    model = Trained([keras.Input((4,)), layers.Dense(8), layers.Dense(2)])
    assert type(kr.prune(model, 0.5)) is Trained


class Sized(keras.Model):
    def __init__(self, units=8):
        inputs = keras.Input((4,))
        super().__init__(inputs, layers.Dense(3)(layers.Dense(units)(inputs)))


def test_a_class_that_cannot_be_kept_is_told():
    with pytest.warns(UserWarning, match="Sized has a constructor of its own"):
        small = kr.prune(models.randomized(Sized()), 0.5)
    assert isinstance(small, keras.Model)


def two_inputs():
    a, b = keras.Input((6,), name="zz"), keras.Input((6,), name="aa")
    x = [layers.Dense(7, name="p")(a), layers.Dense(9, name="q")(b)]
    return keras.Model([a, b], layers.Concatenate()(x), name="inner")


def test_inner_inputs_given_by_name_are_not_guessed():
    inputs = keras.Input((4,))
    a = layers.Dense(6, name="first")(inputs)
    b = layers.Dense(6, name="second")(inputs)
    check(head(inputs, two_inputs()({"aa": b, "zz": a})))
    check(head(inputs, two_inputs()([a, b])))


def test_an_inner_model_that_squeezes_what_it_is_given():
    inner_in = keras.Input((8,))
    inner = keras.Model(inner_in, layers.Dense(9, name="inner_9")(inner_in))
    inputs = keras.Input((8, 3))
    model = head(inputs, inner(layers.Conv1D(1, 1)(inputs)))
    plan = kr.plan(model, 0.01)
    assert plan.apply().count_params() == plan.parameters[1]


def test_an_inner_model_called_at_two_widths():
    inner_in = keras.Input((None,))
    inner = keras.Model(inner_in, layers.ReLU()(inner_in))
    inputs = keras.Input((4,))
    wide, thin = layers.Dense(8)(inputs), layers.Dense(6)(inputs)
    model = head(inputs, layers.Concatenate()([inner(wide), inner(thin)]))
    small = check(model)
    assert small.layers[-3].input_shape == (None, None)


def own_initializer(shape, dtype=None):
    return keras.ops.ones(shape, dtype)


def relu(x):
    return keras.ops.minimum(x, 0.0)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Dense(8, activation=relu),
        lambda: layers.Activation(lambda x: x * x),
        lambda: layers.Dense(8, kernel_initializer=own_initializer),
        lambda: layers.TimeDistributed(layers.Dense(8, activation=relu)),
        lambda: layers.TimeDistributed(layers.Lambda(lambda x: 2 * x)),
        lambda: keras.Sequential([layers.Dense(8, activation=relu)]),
    ],
)
def test_functions_of_the_users_own(layer):
    inputs = keras.Input((5, 6))
    x = layers.Dense(8)(inputs)
    check(head(inputs, layers.Dense(8)(layer()(x))))


class Doubled(layers.Lambda):
    def call(self, x, **options):
        return 2 * super().call(x, **options)


def test_a_lambda_subclass_is_not_made_a_lambda():
    inputs = keras.Input((4,))
    x = Doubled(lambda x: x + 1)(layers.Dense(5)(inputs))
    check(head(inputs, x))


def adapted_layers():
    words = np.array([["a"], ["b"], ["c"], ["a"]])
    numbers = np.array([[0.5], [1.5], [7.0], [9.0], [2.0]], "float32")
    return [
        (layers.Discretization(num_bins=4), numbers, "float32"),
        (layers.IntegerLookup(), numbers.astype("int64"), "int64"),
        (layers.StringLookup(), words, "string"),
    ]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="lookup tables in a graph are TensorFlow's",
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_a_preprocessing_layer_was_adapted_to(number):
    layer, data, dtype = adapted_layers()[number]
    layer.adapt(data)
    inputs = keras.Input((1,), dtype=dtype)
    x = layers.Embedding(9, 6)(layer(inputs))
    model = head(inputs, layers.Dense(8)(layers.Flatten()(x)))
    models.plant(model)
    small = kr.prune(model, 0.9999)
    if dtype == "string":
        import tensorflow as tf

        data = tf.constant(data)
    models.assert_same_function(model, small, data)


def test_batch_statistics_scale_by_themselves():
    """Filters w and 3 w are the same channel once the batch normalises it."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, use_bias=False, name="dense")(inputs)
    x = layers.BatchNormalization(epsilon=1e-9)(x, training=True)
    model = head(inputs, x)
    kernel = models.numpy(model.get_layer("dense").kernel)
    kernel[:, 3] = 3 * kernel[:, 5]
    model.get_layer("dense").kernel.assign(kernel)
    for variable in model.layers[2].weights:
        value = models.numpy(variable)
        value[3] = value[5]
        variable.assign(value)
    small = kr.prune(model, 0.9999)
    assert small.get_layer("dense").units == 7
    data = models.random_inputs(model)
    expected = model(data, training=True), small(data, training=True)
    np.testing.assert_allclose(*map(models.numpy, expected), atol=1e-4)


@pytest.mark.parametrize("axis", [-1, 1])
def test_a_constant_in_a_concatenation(axis):
    inputs = keras.Input((4, 3), batch_size=4)
    x = layers.Conv1D(8, 1, name="before")(inputs)
    shape = (4, 4, 5) if axis == -1 else (4, 2, 8)
    x = keras.ops.concatenate([x, np.ones(shape, "float32")], axis=axis)
    check(head(inputs, x))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_unit_without_weights_in_a_model_of_one_batch_size(batch):
    """That the unit is constant is found on batches of this size."""
    inputs = keras.Input(batch_shape=(batch, 6, 5))
    x = layers.Dense(8, activation="relu")(inputs)
    x = keras.ops.reshape(x, (batch * 6, 8))
    x = layers.Dense(10, activation="relu", name="zeros")(x)
    x = layers.LSTM(6)(keras.ops.reshape(x, (batch, 6, 10)))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    kernel, bias = model.get_layer("zeros").get_weights()
    kernel[:, 1], bias[1] = 0, 0.5
    model.get_layer("zeros").set_weights([kernel, bias])
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("zeros").units == 9
    models.assert_same_function(
        model, small, models.random_inputs(model, batch=batch)
    )


def test_the_latency_of_a_model_of_one_batch_size():
    """It is timed on batches of that size, as it takes no others."""
    inputs = keras.Input(batch_shape=(4, 6, 5))
    x = keras.ops.reshape(layers.Dense(8)(inputs), (24, 8))
    x = keras.ops.reshape(layers.Dense(10)(x), (4, 6, 10))
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert kr.plan(model, target={"latency": 1.0}).latency <= 1


def test_layers_called_by_keyword():
    inputs = keras.Input((4, 3))
    x = layers.Conv1D(8, 1, name="before")(inputs=inputs)
    x = layers.Concatenate()(inputs=[x, layers.Conv1D(6, 1)(inputs=x)])
    model = head(inputs, layers.Dense(7)(inputs=x))
    assert check(model).get_layer("before").filters == 6


def test_initializers_that_hold_arrays(tmp_path):
    table = np.arange(48, dtype="float32").reshape(6, 8)
    inputs = keras.Input((6,))
    constant = keras.initializers.Constant(table)
    x = layers.Dense(8, kernel_initializer=constant, name="array")(inputs)
    small = check(head(inputs, x))
    assert small.get_layer("array").units == 6
    initializer = small.get_layer("array").kernel_initializer
    assert isinstance(initializer, keras.initializers.Zeros)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)


def test_random_numbers_of_the_caller_are_not_used_up():
    model = models.mlp()
    keras.utils.set_random_seed(3)
    expected = models.numpy(keras.random.normal((4,)))
    keras.utils.set_random_seed(3)
    kr.prune(model, 0.5)
    assert np.array_equal(models.numpy(keras.random.normal((4,))), expected)


class NoConfigMetric(keras.metrics.Mean):
    def __init__(self, table):
        super().__init__()
        self.size = len(table)


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return self.start / (1 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {"start": self.start}


def test_a_schedule_and_a_metric_of_the_users_own():
    def error(y, p):
        return keras.ops.mean(keras.ops.abs(y - p), axis=-1)

    model = models.mlp()
    model.compile(
        keras.optimizers.Adam(Falling(0.1)),
        "mse",
        metrics=[keras.metrics.MeanMetricWrapper(error, name="distance")],
    )
    small = kr.prune(model, 0.2)
    small.fit(np.zeros((4, 12)), np.zeros((4, 3)), verbose=0)
    assert small.optimizer.get_config() == model.optimizer.get_config()


def test_what_cannot_be_compiled_again_is_told():
    model = models.mlp()
    model.compile("sgd", "mse", metrics=[NoConfigMetric(np.eye(2))])
    with pytest.warns(UserWarning, match=r"not compiled.*Call compile\(\)"):
        small = kr.prune(model, 0.2)
    assert not small.compiled


def test_layers_that_share_weights_inside_a_wrapper_are_refused():
    inputs = keras.Input((4, 8))
    tower = layers.Dense(8, name="tower")
    x = [layers.TimeDistributed(tower)(inputs), tower(inputs)]
    model = head(inputs, layers.Concatenate()(x))
    with pytest.raises(ValueError, match="share the variable"):
        kr.plan(model, 0.5)


@pytest.mark.filterwarnings(models.NOT_OPENED)
def test_a_layer_shared_by_a_frozen_and_a_live_model():
    layer = layers.Dense(6, name="both")
    a, b = keras.Input((6,)), keras.Input((6,))
    live, frozen = keras.Model(a, layer(a)), keras.Model(b, layer(b))
    frozen.trainable = False
    layer.trainable = True
    inputs = keras.Input((6,))
    model = head(inputs, frozen(live(inputs)))
    small = prune(model, 0.2)
    assert small.layers[1].layers[1].trainable
    assert not small.layers[2].trainable


def test_single_variables_stay_frozen():
    model = models.mlp()
    model.layers[0].bias.trainable = False
    small = kr.prune(model, 0.2)
    assert [v.trainable for v in small.variables] == [
        v.trainable for v in model.variables
    ]


def test_an_object_without_a_config_is_named():
    inputs = keras.Input((4,))
    bounded = functools.partial(keras.ops.clip, x_min=-1, x_max=1)
    own = layers.Dense(5, kernel_constraint=bounded, name="own")
    with pytest.raises(ValueError, match=r"'own' \(Dense\)"):
        kr.prune(head(inputs, own(inputs)), 0.5)


def test_dropout_that_drops_all_channels_alike():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 3, padding="same", name="before")(inputs)
    x = layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(x)
    assert check(head(inputs, x)).get_layer("before").filters == 6


def test_scaled_copies_on_a_stream_are_copies_only_by_one_factor():
    """4 x in one producer and a quarter in the other is not redundant."""
    inputs = keras.Input((8,))
    x = [layers.Dense(6, name=name)(inputs) for name in ("a", "b")]
    model = head(inputs, layers.Add()(x))
    for layer, factor in zip(model.layers[1:3], (4, 0.25), strict=True):
        kernel = models.numpy(layer.kernel)
        kernel[:, 1] = factor * kernel[:, 0]
        layer.kernel.assign(kernel)
    assert kr.prune(model, 0.9999).get_layer("a").units == 6
