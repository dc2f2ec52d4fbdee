"""Where Keras itself says nothing when a width changes, or breaks deep inside.

Each ends in one of two ways: the smaller model computes the same, or the
channels stay, for a reason that says what to do.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from keras_redundancy import _keras
from tests import models
from tests.rule_checks import assert_copies_go, prune


def image_model(between, width=16):
    inputs = keras.Input((6, 6, 5))
    x = layers.Conv2D(
        width, 3, padding="same", activation="relu", name="before"
    )
    x = layers.Flatten()(between(x(inputs)))
    return keras.Model(inputs, layers.Dense(3, name="top")(x))


def state(model, name="before"):
    """Why the units of a layer stay; None where they can go."""
    (space,) = (s for s in kr.trace(model).spaces if s.name == name)
    return space.frozen


def cut_in_half(model):
    """The first half of each space's units, copied onto the second."""
    models.randomized(model)
    for space in kr.trace(model).prunable:
        half = space.size // 2
        models.copy_units(space, np.arange(half), np.arange(half, 2 * half))
    small = kr.prune(model, tau=0.9999)
    models.assert_same_function(model, small)
    return small


def operation(model, kind):
    (found,) = (
        call
        for call in _keras.calls(_keras.graph_of(model))
        if type(call.operation).__name__ == kind
    )
    return found


# --- silent on a changed width ----------------------------------------------


def test_reshape_to_a_number_of_channels():
    """(-1, 36, 16) of 8 channels would run, on half as many samples."""
    model = image_model(lambda x: ops.reshape(x, (-1, 36, 16)))
    small = cut_in_half(model)
    assert operation(small, "Reshape").operation.newshape == (-1, 36, 8)


def test_reshape_of_units_to_an_image():
    def between(x):
        x = layers.Dense(2 * 3 * 16, name="wide")(layers.Flatten()(x))
        return layers.Conv2D(8, 2)(layers.Reshape((-1, 3, 16))(x))

    small = cut_in_half(image_model(between))
    assert small.get_layer("wide").units == 2 * 3 * 8
    assert operation(small, "Reshape").operation.target_shape == (-1, 3, 8)


def test_a_slice_of_the_first_channels():
    """x[..., :10] of 8 channels would be all of them."""
    small = cut_in_half(image_model(lambda x: x[..., :10]))
    key = operation(small, "GetItem").arguments[0][1]
    assert key == (Ellipsis, slice(None, 5, None))


def test_split_into_equal_parts():
    """split(x, 2) of 16 channels, 5 of which go, would not be equal."""

    def between(x):
        a, b = ops.split(x, 2, axis=-1)
        return ops.concatenate([a, layers.Conv2D(6, 1)(b)], axis=-1)

    model = models.randomized(image_model(between))
    first, second, _ = kr.trace(model).prunable
    models.copy_units(first, np.array([0]), np.array([3]))
    models.copy_units(second, np.arange(4), np.arange(4, 8))
    small = kr.prune(model, 0.9999)
    models.assert_same_function(model, small)
    assert operation(small, "Split").operation.indices_or_sections == (7,)


def test_adding_a_branch_of_one_channel():
    """It is added to all channels, however many there are."""

    def between(x):
        return layers.Add()([x, layers.Conv2D(1, 1, name="thin")(x)])

    small = cut_in_half(image_model(between))
    assert small.get_layer("before").filters == 8
    assert small.get_layer("thin").filters == 1


def test_a_cut_down_to_one_channel_stays_an_axis():
    """Broadcast or squeezed, one channel that is left would do harm."""

    def between(x):
        y = layers.Conv2D(8, 1, name="other")(x)
        x = ops.squeeze(layers.Reshape((36, 1, 16))(x))
        return x * layers.Reshape((36, 16))(layers.Dense(16)(y))

    model = models.randomized(image_model(between))
    assert "give it the axis= to remove" in state(model, "before + dense")
    plan = kr.plan(model, tau=1e-9, linkage="single")
    small = plan.apply()
    assert small.get_layer("other").filters == 1
    models.outputs(small, models.random_inputs(model))


# --- loud, but far from the cause -------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Normalization(mean=[1.0] * 16, variance=[2.0] * 16),
        lambda: layers.Rescaling([0.5] * 16),
        lambda: layers.Rescaling(2.0, offset=np.arange(16.0)),
    ],
)
def test_statistics_of_a_fixed_width(layer):
    model = models.randomized(image_model(layer()))
    assert "statistics of a fixed width" in state(model)
    same = prune(model, 0.1)
    models.assert_same_function(model, same, tolerance=0)


def test_a_number_for_all_channels():
    assert state(image_model(layers.Rescaling(0.5, offset=1.0))) is None
    assert_copies_go(image_model(layers.Rescaling(0.5, offset=1.0)))


def test_arrays_in_the_graph():
    means = np.linspace(-1, 1, 16, dtype="float32")
    small = cut_in_half(image_model(lambda x: x - means))
    assert operation(small, "Subtract").arguments[0][1].shape == (8,)


def test_groups():
    """A number of groups divides the channels that are left."""

    def between(x):
        x = layers.Conv2D(16, 3, groups=4, padding="same", name="grouped")(x)
        return layers.GroupNormalization(groups=-1, name="norm")(x)

    small = cut_in_half(image_model(between))
    grouped = small.get_layer("grouped")
    assert (grouped.groups, grouped.filters) == (4, 8)
    assert grouped.kernel.shape == (3, 3, 2, 8)


# --- layouts ----------------------------------------------------------------


def test_transposed_convolutions_write_their_third_axis():
    def between(x):
        return layers.Conv2DTranspose(6, 3, activation="relu", name="up")(x)

    model = image_model(between)
    assert model.get_layer("up").kernel.shape == (3, 3, 6, 16)
    small = cut_in_half(model)
    assert small.get_layer("up").kernel.shape == (3, 3, 3, 8)


def test_depthwise_filters_of_a_channel_lie_side_by_side():
    def between(x):
        return layers.DepthwiseConv2D(3, depth_multiplier=3, name="wise")(x)

    model = models.randomized(image_model(between))
    (space,) = kr.trace(model).prunable
    models.copy_units(space, np.array([2]), np.array([9]))
    before = models.numpy(model.get_layer("wise").bias)
    small = kr.prune(model, 0.9999)
    models.assert_same_function(model, small)
    np.testing.assert_array_equal(
        models.numpy(small.get_layer("wise").bias),
        np.delete(before, [27, 28, 29]),
    )


# --- arguments of calls -----------------------------------------------------


def with_dropout(training=None):
    def between(x):
        x = layers.Dropout(0.5, name="drop")(x, training=training)
        return layers.SpatialDropout2D(0.4)(x)

    return image_model(between)


def test_dropout_is_active_in_training_alone(tmp_path):
    small = cut_in_half(with_dropout())
    small.save(tmp_path / "small.keras")
    data = models.random_inputs(small)
    for model in (small, keras.models.load_model(tmp_path / "small.keras")):
        calm = [models.numpy(model(data, training=False)) for _ in "ab"]
        wild = [models.numpy(model(data, training=True)) for _ in "ab"]
        np.testing.assert_array_equal(*calm)
        assert (wild[0] != wild[1]).any()
        model.compile("sgd", "mse")
        trained = [model.train_on_batch(data, calm[0]) for _ in "abc"]
        assert len(set(trained)) == 3


def test_dropout_with_training_set_in_the_call(tmp_path):
    """Active wherever the model's own call does not say otherwise."""
    small = kr.prune(models.randomized(with_dropout(training=True)), 0.3)
    small.save(tmp_path / "small.keras")
    data = models.random_inputs(small)
    for model in (small, keras.models.load_model(tmp_path / "small.keras")):
        assert operation(model, "Dropout").arguments[1]["training"] is True
        wild = [models.numpy(model(data)) for _ in "ab"]
        assert (wild[0] != wild[1]).any()


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalization_with_training_set_in_the_call(training):
    def between(x):
        return layers.BatchNormalization(name="norm")(x, training=training)

    model = image_model(between)
    small = cut_in_half(model)
    arguments = operation(small, "BatchNormalization").arguments
    assert arguments[1]["training"] is training
    data = models.random_inputs(small)
    answers = [models.numpy(m(data)) for m in (model, small)]
    np.testing.assert_allclose(*answers, atol=1e-4)


def test_masks_are_arguments_and_no_channels(tmp_path):
    inputs, mask = keras.Input((9, 5)), keras.Input((9,), dtype="bool")
    x = layers.Conv1D(16, 3, padding="same", name="before")(inputs)
    x = layers.GlobalAveragePooling1D()(x, mask=mask)
    model = keras.Model([inputs, mask], layers.Dense(3)(x))
    rng = np.random.default_rng(0)
    data = [
        rng.normal(size=(4, 9, 5)).astype("float32"),
        rng.random((4, 9)) > 0.4,
    ]
    data[1][:, 0] = True
    graph = assert_copies_go(model, tmp_path, data=data)
    assert [s.size for s in graph.prunable] == [16]


def test_masks_that_come_with_an_embedding():
    """They are made anew, and the padding does not count."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(20, 16, mask_zero=True, name="words")(inputs)
    x = layers.Dense(8, activation="relu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    data = np.random.default_rng(0).integers(1, 20, (4, 9))
    data[:, 5:] = 0
    assert_copies_go(model, data=data)
    small = kr.prune(model, 0.9999)
    short = models.numpy(small(data[:, :5]))
    np.testing.assert_allclose(models.numpy(small(data)), short, atol=1e-5)


@pytest.mark.parametrize("layer", ["before", "top"])
def test_an_activation_that_is_taken_away(layer):
    """As in examples of Grad-CAM, which look at what a softmax reads."""
    model = image_model(lambda x: x)
    model.get_layer(layer).activation = None
    small = cut_in_half(model)
    assert small.get_layer(layer).activation is keras.activations.linear


# --- code of the user's own -------------------------------------------------


class NoConfig(layers.Layer):
    def __init__(self, values):
        super().__init__()
        self.values = ops.convert_to_tensor(values)

    def call(self, x):
        return x * self.values


def test_a_lambda_with_a_python_function():
    """What it does with the channels cannot be known: it stays as it is."""
    model = image_model(layers.Lambda(lambda x: x * ops.arange(16.0)))
    models.randomized(model)
    reason = state(model)
    assert "lambda (Lambda) runs a Python function" in reason
    assert "keras.ops" in reason
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)


class Weighted(layers.Layer):
    """Its width is an argument, and an array that it computes with."""

    def __init__(self, width, **options):
        super().__init__(**options)
        self.width = width

    def call(self, x):
        return x * ops.linspace(1, 2, self.width, dtype="float32")

    def get_config(self):
        return super().get_config() | {"width": self.width}


@pytest.mark.parametrize(
    "own", [NoConfig(np.arange(1.0, 17.0, dtype="float32")), Weighted(16)]
)
def test_layers_with_a_width_of_their_own(own, tmp_path):
    """They cannot be made with a smaller one: what they compute stays."""
    model = models.randomized(image_model(own))
    plan = kr.plan(model, ratio={"before": 0.25}, absorb="drop")
    small = plan.apply()
    assert isinstance(small.get_layer(own.name), keras.Model)
    kernel, bias = model.layers[1].get_weights()
    removed = plan.decisions[0].selection.removed
    assert len(removed) == 4
    kernel[..., removed], bias[removed] = 0, 0
    model.layers[1].set_weights([kernel, bias])
    models.assert_same_function(model, small)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again)


@pytest.fixture
def own_rule():
    """A rule that is wrong about `Weighted`: it forgets the width."""

    class Mistaken(Weighted):
        pass

    @kr.register_rule(Mistaken)
    def mistaken(layer, call):
        return call.inputs[0]

    return Mistaken


def test_a_rule_that_forgets_a_width_is_named(own_rule):
    model = models.randomized(image_model(own_rule(16, name="mine")))
    message = r"(?s)The layer 'mine' .*could not be call.*mistaken\) does"
    with pytest.raises(ValueError, match=message):
        kr.prune(model, 0.1)


# --- names ------------------------------------------------------------------


def test_names_are_not_believed():
    """An activation called conv2d, a convolution called max_pooling2d."""

    def between(x):
        x = layers.Activation("tanh", name="conv2d_batch_normalization")(x)
        x = layers.Conv2D(12, 3, name="max_pooling2d")(x)
        x = layers.BatchNormalization(name="dropout")(x)
        return layers.Permute((3, 1, 2), name="add")(x)

    model = image_model(between)
    graph = assert_copies_go(model)
    assert [(s.name, s.size) for s in graph.prunable] == [
        ("before", 16),
        ("max_pooling2d", 12),
    ]


def test_a_layer_called_like_a_keras_layer():
    class Dense(layers.Layer):
        """A mean over channels, whatever it is called."""

        def call(self, x):
            return x - ops.mean(x, -1, keepdims=True)

    model = models.randomized(image_model(Dense(name="dense")))
    assert "mean (Mean) reduces over the channels" in state(model)
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)


def test_two_layers_of_one_name_in_nested_models():
    inner_in = keras.Input((6, 6, 16))
    inner = keras.Model(
        inner_in, layers.Conv2D(8, 3, name="before")(inner_in), name="inner"
    )
    model = image_model(inner)
    graph = assert_copies_go(model)
    assert [(s.name, s.size) for s in graph.prunable] == [
        ("before", 16),
        ("inner/before", 8),
    ]
