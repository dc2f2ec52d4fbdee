"""How layers made of layers, and nested models beside them, are called."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models, subclassed
from tests.rule_checks import assert_copies_go


@keras.saving.register_keras_serializable(__name__)
class Mixer(layers.Layer):
    """Hides eight units, reads one tensor or two, and scales what it reads."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.wide = layers.Dense(8, "relu")
        self.other = layers.Dense(8, "relu")
        self.narrow = layers.Dense(5)

    def call(self, x, y, scales=1.0):
        return self.narrow(self.wide(x * scales) + self.other(y))


@keras.saving.register_keras_serializable(__name__)
class Cross(layers.Layer):
    """A layer of a deep and cross network, which reads a list."""

    def build(self, shapes):
        width = shapes[0][-1]
        self.w = self.add_weight(shape=(width, width), name="w")
        self.b = self.add_weight(shape=(width,), name="b")

    def call(self, tensors):
        first, x = tensors
        return first * (ops.matmul(x, self.w) + self.b) + x


@keras.saving.register_keras_serializable(__name__)
class Scales(layers.Layer):
    """A factor for each channel."""

    def build(self, shape):
        self.scales = self.add_weight(shape=shape[-1:], name="scales")

    def call(self, x):
        return x * self.scales


def summed(*tensors):
    """A model of one input that all `tensors` depend on."""
    inputs = keras.Input((6,))
    x, y = layers.Dense(9, "relu")(inputs), layers.Dense(9, "tanh")(inputs)
    made = [layers.Dense(3)(make(x, y)) for make in tensors]
    return models.randomized(keras.Model(inputs, layers.Add()(made)))


def two_inputs():
    """A model with inputs of two widths, not in the order of their names."""
    a, b = keras.Input((9,), name="b"), keras.Input((5,), name="a")
    x = layers.Dense(7, "relu")(a) + layers.Dense(7, "relu")(b)
    return keras.Model([a, b], x)


def same_twice():
    a, b = keras.Input((9,)), keras.Input((9,))
    x = layers.Dense(7, "relu")(a) + layers.Dense(7, "relu")(b)
    return keras.Model([a, b], x)


NESTED = {
    "one tensor for two inputs": lambda x, y, z: same_twice()([x, x]),
    "tensors by name": lambda x, y, z: two_inputs()({"a": z, "b": y}),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_nested_model_beside_a_block(name):
    mixer = Mixer()

    def both(x, y):
        z = mixer(x, y)
        return layers.Concatenate()([NESTED[name](x, y, z), z])

    assert_copies_go(summed(both))


def other_scales():
    """Too many for `repr` to show that they differ."""
    scales = np.ones((2, 1, 1200), "float32")
    scales[1, 0, 600] = 5.0
    return scales


SCALES = other_scales()
WAYS = {
    "one tensor, then two": (
        lambda mixer, x, y: mixer(x, x),
        lambda mixer, x, y: mixer(x, y),
    ),
    "two tensors, then one": (
        lambda mixer, x, y: mixer(x, y),
        lambda mixer, x, y: mixer(x, x),
    ),
    "other numbers": tuple(
        lambda mixer, x, y, scales=scales: mixer(
            layers.Dense(1200)(x), y, scales=scales
        )
        for scales in SCALES
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_block_that_is_called_in_several_ways_stays(name):
    mixer = Mixer()
    model = summed(
        *(lambda x, y, way=way: way(mixer, x, y) for way in WAYS[name])
    )
    plan = kr.plan(model, ratio=0.3)
    assert "it is called in several ways" in " ".join(str(plan).split())
    models.assert_same_function(model, kr.plan(model, tau=1.0).apply())


def test_a_list_with_the_same_tensor_twice(tmp_path):
    inputs = keras.Input((6,))
    first = x = layers.Dense(12, activation="relu")(inputs)
    for _ in range(2):
        x = Cross()([first, x])
    x = layers.Dense(8, activation="relu")(x)
    assert_copies_go(keras.Model(inputs, layers.Dense(2)(x)), tmp_path)


def head():
    """Takes images of any size."""
    return keras.Sequential(
        [
            keras.Input((None, None, 8)),
            layers.Conv2D(10, 3, padding="same", activation="relu"),
            Scales(),
            layers.Conv2D(4, 1),
        ]
    )


def pyramid(size=8):
    """One head on features of two sizes."""
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x, shared = Scales()(x), head()
    return keras.Model(inputs, [shared(x), shared(layers.MaxPooling2D()(x))])


def nested_pyramid():
    """The other size is that of a nested model that calls the head."""
    features = keras.Input((8, 8, 8))
    shared = head()
    nested = keras.Model(features, shared(layers.ReLU()(features)))
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = Scales()(x)
    return keras.Model(inputs, [nested(x), shared(layers.MaxPooling2D()(x))])


@pytest.mark.filterwarnings("ignore:Keras saves the new model, but does not")
@pytest.mark.parametrize(
    "make", [pyramid, lambda: pyramid(None), nested_pyramid]
)
def test_a_nested_model_that_is_called_on_several_sizes(make):
    model = models.randomized(make())
    assert kr.trace(model).prunable
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    assert small.count_params() < model.count_params()
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    models.assert_same_function(model, small, images.astype("float32"))


@keras.saving.register_keras_serializable(__name__)
class Around(layers.Layer):
    """Calls a model on several sizes, and a layer that others call too."""

    def __init__(self, shared, **kwargs):
        super().__init__(**kwargs)
        self.shared, self.first = shared, layers.Dense(12, activation="relu")

    def build(self, shape):
        self.first.build(shape)
        self.inner = keras.Sequential(
            [
                keras.Input((None, 12)),
                layers.Dense(10, activation="relu"),
                layers.Dense(8),
            ]
        )

    def call(self, x):
        y = self.first(x)
        some = self.shared(self.inner(y[:, :2]))
        return self.shared(self.inner(y)) + some[:, :1]


def test_a_model_in_layers_that_share_another_one():
    inputs, shared = keras.Input((5, 6)), layers.Dense(8)
    x = layers.Dense(8, activation="relu")(inputs)
    x = Around(shared, name="b")(Around(shared, name="a")(x))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    assert small.count_params() < model.count_params()
    models.assert_same_function(model, small)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_block_that_reads_a_masked_tensor():
    """Keras hands the mask over as one more tensor."""
    words = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, 7, mask_zero=True)(words)
    x = layers.LSTM(6)(subclassed.FeedForward(12, name="block")(x))
    model = models.randomized(keras.Model(words, layers.Dense(2)(x)))
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    assert small.get_layer("block").width < 12
    data = np.array([[1, 5, 3, 8], [7, 2, 0, 0], [4, 0, 6, 1]])
    models.assert_same_function(model, small, data)
