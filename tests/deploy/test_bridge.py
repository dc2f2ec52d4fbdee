"""Models go to tf_keras and back: `to_tf_keras`, `from_tf_keras`."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_redundancy as kr
from tests import models, subclassed

tf_keras = pytest.importorskip("tf_keras")


def recurrent():
    """A mask from the Embedding, both directions, cells."""
    words = keras.Input((5,), name="words")
    x = layers.Embedding(20, 4, mask_zero=True)(words)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    cells = [layers.LSTMCell(4), layers.SimpleRNNCell(3)]
    x = layers.RNN(cells)(x)
    return keras.Model(words, layers.Dense(2)(x))


def attention():
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.LayerNormalization()(x + inputs)
    step = [keras.Input((8,)), layers.Dense(6), layers.BatchNormalization()]
    x = layers.TimeDistributed(keras.Sequential(step))(x)
    x = layers.TimeDistributed(layers.Dense(4, activation="gelu"))(x)
    return keras.Model(inputs, layers.GlobalMaxPooling1D()(x))


def operations():
    inputs = keras.Input((4, 6))
    x = layers.Dense(6, name="with space")(inputs) * 0.5
    x = ops.concatenate([ops.relu(x), ops.tanh(x), x / 2], axis=-1)
    x = ops.reshape(x[:, :2], (-1, 36)) * np.linspace(1, 2, 36) - 1
    x = ops.softmax(ops.expand_dims(x, 1))
    return keras.Model(inputs, ops.mean(ops.square(x), axis=1))


FACTORIES = models.FACTORIES | {
    factory.__name__: factory for factory in (recurrent, attention, operations)
}


def outputs_of(model, inputs):
    found = model(inputs, training=False)
    return [models.numpy(x) for x in keras.tree.flatten(found)]


@pytest.mark.filterwarnings(models.NOT_OPENED)
@pytest.mark.parametrize("name", FACTORIES)
def test_there_and_back(name):
    model = models.randomized(FACTORIES[name]())
    before = model.get_weights()
    old = kr.deploy.to_tf_keras(model, tolerance=1e-5)
    assert isinstance(old, tf_keras.Model)
    rng = np.random.default_rng(1)
    old.set_weights([abs(rng.normal(size=w.shape)) for w in old.weights])
    again = kr.deploy.from_tf_keras(old, like=model)
    inputs = [
        rng.integers(1, 20, (3, 5))
        if name == "recurrent"
        else rng.normal(size=(3, *x.shape[1:])).astype("float32")
        for x in model.inputs
    ]
    if len(inputs) == 1:
        (inputs,) = inputs
        inputs = {"a": inputs} if name == "two_heads" else inputs
    pairs = zip(outputs_of(old, inputs), outputs_of(again, inputs), strict=True)
    for old_output, output in pairs:
        scale = abs(old_output).max()
        np.testing.assert_allclose(output, old_output, atol=2e-5 * scale)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


LAYERS = {
    (6,): [
        lambda: layers.Dense(3, activation="hard_sigmoid"),
        lambda: layers.Dense(3, activation="hard_silu"),
        lambda: layers.Dense(3, activation="log_softmax"),
        lambda: layers.LeakyReLU(negative_slope=0.1),
        lambda: layers.ReLU(6.0, 0.1, 0.2),
        lambda: layers.PReLU(),
        lambda: layers.Normalization(mean=0.3, variance=2.0),
    ],
    (8, 4): [
        lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
        lambda: layers.SeparableConv1D(5, 3),
        lambda: layers.LSTM(4, recurrent_activation="hard_sigmoid"),
        lambda: layers.GRU(4, reset_after=False, go_backwards=True),
        lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="ave"),
    ],
    (8, 8, 4): [
        lambda: layers.Conv2D(4, 3, strides=2, padding="same", groups=2),
        lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.GroupNormalization(2),
        lambda: layers.UpSampling2D(2, interpolation="bilinear"),
        lambda: layers.EinsumDense("abcd,de->abce", (8, 8, 5), bias_axes="e"),
    ],
}


@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_layers(shape):
    inputs = keras.Input(shape)
    outputs = [layer()(inputs) for layer in LAYERS[shape]]
    model = models.randomized(keras.Model(inputs, outputs))
    old = kr.deploy.to_tf_keras(model)
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    for a, b in zip(outputs_of(model, x), outputs_of(old, x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * abs(a).max())


def test_a_subclassed_model():
    shape = 3, 8, 8, 2
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    model = subclassed.Discriminator()
    wanted = models.numpy(model(x))
    old = kr.deploy.to_tf_keras(model)
    again = kr.deploy.from_tf_keras(old, like=model)
    for given in (old(x), again(x)):
        np.testing.assert_allclose(wanted, given, atol=1e-5 * abs(wanted).max())


def test_what_trains_is_kept():
    inputs = keras.Input((4,))
    regularizer = keras.regularizers.L1L2(0.1, 0.2)
    x = layers.Dense(5, kernel_regularizer=regularizer)(inputs)
    x = layers.BatchNormalization(trainable=False)(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    old = kr.deploy.to_tf_keras(model)
    assert [tuple(w.shape) for w in old.trainable_weights] == [
        w.shape for w in model.trainable_weights
    ]
    assert len(old.trainable_weights) == 4
    assert float(old.losses[0]) == pytest.approx(float(model.losses[0]))


def test_back_it_is_compiled_as_before():
    model = models.mlp()
    model.compile("sgd", "mse", metrics=["mae"])
    again = kr.deploy.from_tf_keras(kr.deploy.to_tf_keras(model), like=model)
    assert again.compiled
    assert again.optimizer is not model.optimizer
    assert type(again.optimizer) is type(model.optimizer)


class Own(layers.Dense):
    pass


REFUSED = {
    "'own' (Own) cannot be translated to tf_keras: it is no layer of Keras.": (
        lambda: Own(3, name="own")
    ),
    "'f' (Lambda) cannot be translated to tf_keras: its function": (
        lambda: layers.Lambda(lambda x: x, name="f")
    ),
    "kr.strip(model)": lambda: kr.FactorizedDense(3),
    "tf_keras has no layer of this name": lambda: layers.RMSNormalization(),
    "tf_keras has no activation 'celu'": (
        lambda: layers.Dense(3, activation="celu")
    ),
    "tf_keras has no kernel_regularizer RaReRegularizer": (
        lambda: layers.Dense(
            3, kernel_regularizer=kr.RaReRegularizer(strength=1.0)
        )
    ),
    "'roll' (Roll) cannot be translated": lambda: lambda x: ops.roll(x, 1, 1),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_counterpart(words):
    inputs = keras.Input((4,))
    x = REFUSED[words]()(layers.Dense(4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match=re.escape(words)):
        kr.deploy.to_tf_keras(model)


def test_a_quantized_model():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="x")])
    model.quantize("int8", filters=lambda layer: layer.name == "x")
    with pytest.raises(ValueError, match=r"'x' \(Dense\).*it is quantized"):
        kr.deploy.to_tf_keras(model)


def test_a_translation_that_computes_something_else(monkeypatch):
    from keras_redundancy.deploy import tables

    wrong = tables.np3.Multiply, lambda a, b: a + b
    monkeypatch.setitem(tables.OPERATIONS, *wrong)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs) * 3)
    with pytest.raises(ValueError, match="returns something else in tf_keras"):
        kr.deploy.to_tf_keras(model)


def test_models_that_do_not_fit():
    model, other = models.mlp(), models.vgg()
    old = kr.deploy.to_tf_keras(model)
    with pytest.raises(ValueError, match="is not in the tf_keras model"):
        kr.deploy.from_tf_keras(old, like=other)
    with pytest.raises(ValueError, match="the model that was translated, "):
        kr.deploy.from_tf_keras(old, like=kr.prune(model, ratio=0.5))
    with pytest.raises(TypeError, match="cluster_weights returns None"):
        kr.deploy.from_tf_keras(None, like=model)
    with pytest.raises(TypeError, match="but is Sequential"):
        kr.deploy.from_tf_keras(model, like=model)


def test_without_tf_keras(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(ImportError, match=r"pip install .*tf_keras"):
        kr.deploy.to_tf_keras(models.mlp())


TFMOT_FIRST = """
import tensorflow_model_optimization
import keras, keras_redundancy as kr
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
old = kr.deploy.to_tf_keras(model)
print(type(old).__module__.split(".")[0], keras.__version__[0])
"""


def test_tfmot_can_be_imported_first():
    pytest.importorskip("tensorflow_model_optimization")
    done = subprocess.run(
        [sys.executable, "-c", TFMOT_FIRST], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["tf_keras", "3"]
