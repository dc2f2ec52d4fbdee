"""Layers of a user's own whose code multiplies, adds and averages itself."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models
from tests.channels.own_layers import names_and_sizes, serializable
from tests.rule_checks import assert_copies_go, between


@serializable
class Swish(layers.Layer):
    def call(self, x):
        return x * ops.sigmoid(1.7 * x)


@serializable
class Affine(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale")
        self.shift = self.add_weight(shape=shape[-1:], name="shift")

    def call(self, x):
        return x * self.scale + self.shift


@serializable
class Product(layers.Layer):
    taps = ()

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(*self.taps, shape[-1], self.units), name="kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), name="bias")

    def times(self, x):
        return ops.matmul(x, self.kernel)

    def call(self, x):
        return ops.relu(self.times(x) + self.bias)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@serializable
class Dotted(Product):
    def times(self, x):
        return ops.dot(x, self.kernel)


@serializable
class CastDotted(Product):
    """Reads its weights as tensors of the dtype that they have."""

    def times(self, x):
        kernel = ops.cast(ops.convert_to_tensor(self.kernel), x.dtype)
        return ops.matmul(x, kernel) - ops.convert_to_tensor(self.bias)


@serializable
class TensorDotted(Product):
    def times(self, x):
        return ops.tensordot(x, self.kernel, axes=1)


@serializable
class Convolved(Product):
    taps = (3,)

    def times(self, x):
        return ops.conv(x, self.kernel, padding="same")


@serializable
class OfOneWidth(Convolved):
    """No argument sets how many units it has."""

    def __init__(self, **options):
        super().__init__(20, **options)

    def get_config(self):
        return layers.Layer.get_config(self)


@serializable
class Centered(Convolved):
    """Its kernel is computed from what it reads of all channels."""

    def times(self, x):
        means = ops.mean(self.kernel, axis=1, keepdims=True)
        return ops.conv(x, self.kernel - means, padding="same")


@serializable
class RootMeanSquare(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale")

    def call(self, x):
        squares = ops.mean(ops.square(x), -1, keepdims=True)
        return x * ops.rsqrt(squares + 1e-3) * self.scale


@serializable
class Doubled(layers.Dense):
    def call(self, x):
        return 2 * super().call(x)


class Late(layers.Layer):
    """What its constructor does not set is in no config."""

    factor = None

    def call(self, x):
        return x * self.factor


@pytest.mark.parametrize(
    "own",
    [
        *(Swish(), Affine(), Doubled(20)),
        *(Product(20), Dotted(20), TensorDotted(20), Convolved(20)),
        CastDotted(20),
    ],
    ids=repr,
)
def test_copies_go_through_them(own, tmp_path):
    model = between(own)
    graph = assert_copies_go(model, tmp_path)
    has_units = isinstance(own, Product | Doubled)
    assert len(graph.prunable) == 1 + has_units
    small = kr.prune(model, ratio=0.5)
    assert type(small.get_layer(own.name)) is type(own)


def test_a_convolution_in_place_of_the_layer(tmp_path):
    model = models.randomized(between(OfOneWidth(name="own")))
    models.plant(model)
    plan = kr.plan(model, tau=0.9999)
    small = plan.apply()
    assert isinstance(small.get_layer("own"), keras.Model)
    assert kr.flops(small) == plan.flops[1] < plan.flops[0]
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(model, loaded)


def test_a_convolution_with_a_kernel_that_is_computed_stays():
    model = models.randomized(between(Centered(20)))
    models.plant(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Nothing can go")
        models.assert_same_function(model, kr.prune(model, tau=0.9999))


@serializable
class BySize(layers.Layer):
    def call(self, x):
        return x * x.shape[-1] ** -0.5


def test_the_size_of_what_they_read_does_more_than_set_sizes(tmp_path):
    model = between(BySize(name="own"))
    assert_copies_go(model, tmp_path)
    assert isinstance(kr.prune(model, ratio=0.5).get_layer("own"), keras.Model)


def test_channels_over_which_they_compute():
    model = models.randomized(between(RootMeanSquare(name="own")))
    [reason] = {x.frozen for x in kr.trace(model).spaces if x.size == 16}
    assert "reduces over the channels" in reason
    plan = kr.plan(model, ratio=0.5, allow_inexact=True, inline=False)
    assert plan.blocks == {"own": "by its arguments"}
    small = plan.apply()
    assert small.get_layer("own").scale.shape == (8,)


def test_an_attribute_that_the_constructor_does_not_set():
    late = Late(name="late")
    late.factor = 3.0
    model = models.randomized(between(late))
    models.plant(model)
    small = kr.prune(model, 0.9999)
    assert small.count_params() < model.count_params()
    models.assert_same_function(model, small)


def test_they_are_chosen_by_their_names():
    model = between(Product(20, name="own"))
    found = names_and_sizes(kr.trace(model))
    assert found == {"before": 16, "own-kernel_weight": 20}

    def removed(**options):
        plan = kr.plan(model, **options)
        return [len(x.selection.removed) for x in plan.decisions][:2]

    assert removed(ratio=0.5, layers="own") == [0, 10]
    assert removed(ratio=0.5, skip="own") == [8, 0]
    assert removed(ratio=0.5, skip="ow.") == [8, 0]
    assert removed(ratio={"own": 0.25}) == [0, 5]
    assert removed(ratio={".*": 0.5, "own": 0.25}) == [8, 5]
    exact = {"own-.*": 0.5, "own": 0.25, "own-kernel_weight": 0.1}
    assert removed(ratio=exact) == [0, 2]


def test_tied_embeddings_go_where_inexact_is_allowed(tmp_path):
    inputs = keras.Input((6,), dtype="int32")
    tied = layers.ReversibleEmbedding(30, 16, name="tied")
    x = tied(inputs)
    y = layers.Dense(12, activation="relu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(16)(y)])
    model = keras.Model(inputs, tied(x, reverse=True))
    models.randomized(model)
    frozen = [x.frozen for x in kr.trace(model).spaces if x.size == 16]
    assert "with allow_inexact=True" in frozen[0]
    plan = kr.plan(model, ratio=0.25, allow_inexact=True)
    small = plan.apply()
    assert small.get_layer("tied").embeddings.shape == (30, 12)
    assert small.count_params() == plan.parameters[1]
    assert kr.flops(small) == plan.flops[1]
    data = np.arange(12).reshape(2, 6)
    assert small(data).shape == (2, 6, 30)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(small, again, data)


SUBSCRIPTS = {
    "a slice": lambda w, x: x + w[: x.shape[1]],
    "a new axis": lambda w, x: x + w[None][:, : x.shape[1]],
    "dots": lambda w, x: x + w[...][:5],
    "an integer of NumPy": lambda w, x: x * w[np.int64(2)],
    "numbers": lambda w, x: x + ops.convert_to_tensor(w)[np.arange(x.shape[1])],
}


@serializable
class Positions(layers.Layer):
    """Learned embeddings of more positions than there are."""

    def __init__(self, way, **options):
        super().__init__(**options)
        self.way = way

    def build(self, shape):
        self.table = self.add_weight(shape=(9, shape[-1]), name="table")

    def call(self, x):
        return SUBSCRIPTS[self.way](self.table, x)

    def get_config(self):
        return {**super().get_config(), "way": self.way}


@pytest.mark.parametrize("way", SUBSCRIPTS)
def test_weights_with_subscripts(way, tmp_path):
    if way == "numbers" and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow takes no arrays there")
    model = between(
        Positions(way, name="own"), (5 if way != "numbers" else 3, 8)
    )
    graph = assert_copies_go(model, tmp_path)
    assert len(graph.prunable) == 1


class ReadTwice(Product):
    """The kernel's rows are positions where something else reads it."""

    def call(self, x):
        return super().call(x) + self.more(x)


class TimesConstant(ReadTwice):
    def more(self, x):
        ones = np.ones((2, x.shape[-1]), "float32")
        return ops.matmul(ones, self.kernel)[0]


class TimesItself(ReadTwice):
    def more(self, x):
        return ops.matmul(ops.transpose(self.kernel), self.kernel)[0]


class FirstState(Product):
    """A recurrent layer whose first state is an array of zeros."""

    def build(self, shape):
        super().build(shape)
        self.recurrent = self.add_weight(
            shape=(self.units, self.units), name="recurrent"
        )

    def call(self, x):
        state = ops.zeros((ops.shape(x)[0], self.units))
        for step in range(x.shape[1]):
            new = self.times(x[:, step]) + self.bias
            state = ops.tanh(new + ops.matmul(state, self.recurrent))
        return state


@pytest.mark.parametrize("cls", [TimesConstant, TimesItself, FirstState])
def test_kernels_that_are_read_in_other_ways(cls):
    """What cannot be cut in all of these ways is not cut in one of them."""
    model = models.randomized(between(cls(20)))
    models.plant(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Nothing can go")
        small = kr.prune(model, tau=0.9999)
        models.assert_same_function(model, small)
        half = kr.prune(model, ratio=0.5)
    for answer in models.outputs(half, models.random_inputs(model)):
        assert np.isfinite(answer).all()
