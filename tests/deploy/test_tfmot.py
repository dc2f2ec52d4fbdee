"""What tensorflow-model-optimization makes of a model comes back."""

import os

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests import models

pytest.importorskip("tf_keras")
# It has the processes that are started from here take tf_keras for tf.keras.
LEGACY = os.environ.get("TF_USE_LEGACY_KERAS")
tfmot = pytest.importorskip("tensorflow_model_optimization")
os.environ.pop("TF_USE_LEGACY_KERAS")
if LEGACY is not None:
    os.environ["TF_USE_LEGACY_KERAS"] = LEGACY


@pytest.fixture
def model():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(32, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, activation="relu")(x + y)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    return models.randomized(model)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 2)).astype("float32")
    return x, rng.normal(size=(32, 3)).astype("float32")


def fitted(old, data, **options):
    old.compile("sgd", "mse")
    old.fit(*data, verbose=0, **options)
    return old


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras writes LiteRT files on TensorFlow",
)
def test_quantization_aware_training(model, data, tmp_path):
    old = kr.deploy.to_tf_keras(model)
    old = fitted(tfmot.quantization.keras.quantize_model(old), data)
    again = kr.deploy.from_tf_keras(old, like=model)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        assert not np.array_equal(a, b)  # They were trained.
    rounded = old(data[0]).numpy()
    plain = models.numpy(again(data[0]))
    scale = abs(plain).max()
    assert 0 < abs(rounded - plain).max() < 0.1 * scale
    exported = kr.deploy.litert(
        old, tmp_path / "x.tflite", data[0], quantize="int8"
    )
    assert exported.file.difference < 0.05
    float32 = kr.deploy.litert(again, tmp_path / "y.tflite")
    assert exported.file.bytes < 0.5 * float32.file.bytes


def test_clustered_weights_come_back_bit_for_bit(model, data):
    clustering = tfmot.clustering.keras
    old = clustering.cluster_weights(
        kr.deploy.to_tf_keras(model),
        number_of_clusters=4,
        cluster_centroids_init=clustering.CentroidInitialization.LINEAR,
    )
    fitted(old, data)
    with pytest.raises(ValueError, match=r"strip_clustering\(model\)"):
        kr.deploy.from_tf_keras(old, like=model)
    stripped = clustering.strip_clustering(old)
    again = kr.deploy.from_tf_keras(stripped, like=model)
    assert len(np.unique(again.layers[-1].kernel)) <= 4
    for a, b in zip(stripped.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_zeros_of_magnitude_pruning_come_back(model, data):
    sparsity = tfmot.sparsity.keras
    old = sparsity.prune_low_magnitude(
        kr.deploy.to_tf_keras(model),
        sparsity.ConstantSparsity(0.5, begin_step=0, frequency=1),
    )
    fitted(old, data, callbacks=[sparsity.UpdatePruningStep()])
    with pytest.raises(ValueError, match=r"strip_pruning\(model\)"):
        kr.deploy.from_tf_keras(old, like=model)
    again = kr.deploy.from_tf_keras(sparsity.strip_pruning(old), like=model)
    kernel = models.numpy(again.layers[-1].kernel)
    assert (kernel == 0).mean() == 0.5
    assert (models.numpy(model.layers[-1].kernel) != 0).all()
