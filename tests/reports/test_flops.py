"""Multiply-adds, counted as the tables of the literature count them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models


def vgg16_cifar():
    """VGG-16 for 32x32 images as in Li et al. (2017), one dense layer."""
    model = [keras.Input((32, 32, 3))]
    for stage in ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3):
        for width in stage:
            model += [layers.Conv2D(width, 3, padding="same")]
        model += [layers.MaxPooling2D()]
    return keras.Sequential(
        [*model, layers.Flatten(), layers.Dense(512), layers.Dense(10)]
    )


def resnet56():
    """ResNet-56 of He et al. (2016), shortcuts without weights."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same")(inputs)
    for stage, width in enumerate((16, 32, 64)):
        for block in range(9):
            strides = 2 if stage and not block else 1
            y = layers.Conv2D(width, 3, strides, padding="same")(x)
            y = layers.Conv2D(width, 3, padding="same")(y)
            if strides == 2:
                x = keras.ops.pad(
                    x[:, ::2, ::2], [[0, 0]] * 3 + [[width // 4] * 2]
                )
            x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


@pytest.mark.parametrize(
    ("factory", "published"), [(vgg16_cifar, 3.13e8), (resnet56, 1.25e8)]
)
def test_published_networks(factory, published):
    assert kr.flops(factory()) == pytest.approx(published, rel=0.01)


def test_by_hand():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(5),
        ]
    )
    by_hand = 4 * 4 * (3 * 3 * 3 * 4) + (4 * 4 * 4) * 5
    assert kr.flops(model) == by_hand
    assert kr.flops(model, multiply_add=2) == 2 * by_hand


def test_a_dense_layer_on_a_sequence_and_a_shared_layer():
    inputs = keras.Input((7, 3))
    dense = layers.Dense(3)
    model = keras.Model(inputs, dense(dense(inputs)))
    assert kr.flops(model) == 2 * 7 * 3 * 3


def test_channels_first_and_last_agree():
    def model(data_format, shape):
        x = inputs = keras.Input(shape)
        for groups in (1, 2):
            x = layers.Conv2D(4, 3, data_format=data_format, groups=groups)(x)
        return keras.Model(inputs, x)

    first = kr.flops(model("channels_first", (2, 9, 6)))
    last = kr.flops(model("channels_last", (9, 6, 2)))
    assert first == last == 7 * 4 * 9 * 2 * 4 + 5 * 2 * 9 * 2 * 4


def test_nested_models_count():
    assert kr.flops(models.nested()) == (
        6 * 3 * 4 * 8  # stem
        + 2 * 6 * 3 * 8 * 8  # block, called twice
        + 6 * 8 * 8  # inner
        + 4 * 3 * 8 * 9  # innermost
        + 9 * 2
    )


def test_layers_for_training_alone_count_as_what_they_compute():
    model = models.mlp()
    normalized = keras.Sequential(
        [
            keras.Input((12,)),
            kr.FrobeniusNormalization(layers.Dense(16)),
            layers.Dense(10),
            layers.Dense(3),
        ]
    )
    expected = 12 * 16 + 16 * 10 + 10 * 3
    for each in (model, kr.factorize(model), normalized):
        assert kr.flops(each) == expected


# --- open input sizes -------------------------------------------------------


def images(size):
    """With kernels that are read for each channel, and a nested model."""
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.SeparableConv2D(6, 3, padding="same")(x)
    inner = keras.Sequential(
        [keras.Input((None, None, 6)), layers.Conv2D(7, 3, dilation_rate=2)]
    )
    x = layers.Conv2DTranspose(4, 3, strides=2)(inner(x))
    x = layers.UpSampling2D(2)(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1)(x))
    return keras.Model(inputs, layers.Dense(2)(x))


def steps(size):
    inputs = keras.Input((size, 5))
    x = layers.LSTM(6, return_sequences=True)(inputs)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.TimeDistributed(layers.Dense(4))(x)
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 7))(x)
    return keras.Model(inputs, layers.Conv1D(3, 2, strides=2)(x))


def test_an_einsum_with_an_open_size_in_its_config():
    """It does not tell how long a sequence it returns."""
    inputs = keras.Input((12, 5))
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 7))(inputs)
    model = keras.Model(inputs, layers.Dense(4)(x))
    assert kr.flops(model) == 12 * (5 * 7 + 7 * 4)


def words(size):
    inputs = keras.Input((size,), dtype="int32")
    x = layers.Dense(6)(layers.Embedding(9, 5)(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize(
    ("net", "shape"),
    [(images, (24, 24, 3)), (steps, (12, 5)), (words, (7,))],
)
def test_open_sizes_count_like_fixed_ones(net, shape):
    fixed, opened = net(shape[0]), net(None)
    assert kr.flops(opened, input_shape=shape) == kr.flops(fixed)
    assert kr.flops(opened, input_shape=(None, *shape)) == kr.flops(fixed)
    assert kr.flops(opened, 2, input_shape=shape) == 2 * kr.flops(fixed)
    plans = [
        kr.plan(fixed, ratio=0.5, select="l1"),
        kr.plan(opened, ratio=0.5, select="l1", input_shape=shape),
    ]
    assert plans[0].flops == plans[1].flops
    assert plans[0].flops[1] < plans[0].flops[0]
    assert str(plans[0]).splitlines()[-1] == str(plans[1]).splitlines()[-1]
    small = plans[1].apply()
    assert kr.flops(small, input_shape=shape) == plans[1].flops[1]


def test_shapes_of_several_inputs():
    a, b = keras.Input((None, 3), name="a"), keras.Input((4, 3), name="b")
    outputs = [layers.Dense(2)(a), layers.Dense(5)(b)]
    model = keras.Model({"a": a, "b": b}, outputs)
    expected = 7 * 3 * 2 + 4 * 3 * 5
    for given in ([(7, 3), (4, 3)], {"b": (4, 3), "a": (7, 3)}):
        assert kr.flops(model, input_shape=given) == expected


@pytest.mark.parametrize(
    "shape",
    [
        *((24, 24), (24, 24, 4), (24, 24, 3, 1), (24, None, 3), (24, 0, 3)),
        *((None, None, None, 3), [(24, 24, 3)] * 2, {"x": (24, 24, 3)}, ()),
    ],
)
def test_shapes_that_do_not_fit(shape):
    for call in (
        lambda: kr.flops(images(None), input_shape=shape),
        lambda: kr.plan(images(None), 0.9, input_shape=shape),
    ):
        with pytest.raises(ValueError, match=r"input_shape=.*all sizes but"):
            call()


def test_a_shape_that_the_model_cannot_be_called_on():
    with pytest.raises(ValueError, match=r"cannot be called.*\(3, 3, 3\)"):
        kr.flops(images(None), input_shape=(3, 3, 3))


class Experts(layers.Layer):
    """Two experts, whose kernels its code multiplies by all tokens."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gate = layers.Dense(2, name="gate")

    def build(self, shape):
        self.gate.build((None, 6))
        self.up = self.add_weight(shape=(2, 6, 10), name="up")
        self.down = self.add_weight(shape=(2, 10, 6), name="down")

    def call(self, x):
        tokens = ops.reshape(x, (-1, 6))
        shares = ops.transpose(ops.softmax(self.gate(tokens)))
        wide = ops.relu(ops.einsum("tc,ecm->etm", tokens, self.up))
        found = ops.einsum("etm,emc->etc", wide, self.down)
        found = ops.sum(found * ops.expand_dims(shares, -1), axis=0)
        return ops.reshape(found, (-1, *x.shape[1:]))


def test_weights_that_code_multiplies_by_tokens_of_all_samples():
    inputs = keras.Input((7, 6))
    x = Experts(name="experts")(layers.Dense(6)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    assert kr.flops(model) == 7 * (6 * 6 + 6 * 2 + 2 * 2 * 6 * 10 + 6 * 3)
    plan = kr.plan(model, ratio=0.5, layers="experts-up.*")
    gone = 7 * 2 * 2 * 6 * 5
    assert plan.flops == (kr.flops(model), kr.flops(model) - gone)


class Causal(layers.Layer):
    """Its mask is made for a known length."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(4)

    def build(self, shape):
        self.inner.build(shape)

    def compute_output_shape(self, shape):
        return *shape[:-1], 4

    def call(self, x):
        return self.inner(x * np.arange(x.shape[1])[:, None].astype("float32"))


def test_a_shape_for_a_model_that_is_looked_into_on_another_one():
    inputs = keras.Input((None, 5))
    model = keras.Model(inputs, layers.Dense(3)(Causal()(inputs)))
    assert kr.flops(model, input_shape=(9, 5)) == 9 * (5 * 4 + 4 * 3)


class OwnKernel(layers.Layer):
    """Its code reads a kernel, and a bias of two axes, of its own."""

    def build(self, shape):
        self.dense = layers.Dense(8, activation="relu")
        self.dense.build(shape)
        self.kernel = self.add_weight(shape=(8, 12), name="kernel")
        self.bias = self.add_weight(shape=(1, 12), name="bias")
        self.out = layers.Dense(5)
        self.out.build((None, 12))

    def call(self, x):
        y = keras.ops.relu(self.dense(x) @ self.kernel + self.bias)
        return self.out(y)


def test_weights_that_code_reads_count_as_planned():
    """Layers that multiply them by ones stand for them in the result."""
    inputs = keras.Input((6, 7))
    model = keras.Model(inputs, OwnKernel()(inputs))
    plan = kr.plan(model, ratio=0.5, inline=True)
    assert plan.flops == (6 * (7 * 8 + 8 * 12 + 12 * 5), 6 * (28 + 24 + 30))
    assert kr.flops(plan.apply()) == plan.flops[1]
