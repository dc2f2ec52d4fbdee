"""Models are written for devices, run and measured."""

import json
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.deploy import exporting
from keras_redundancy.deploy.samples import difference
from tests import models

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras exports to LiteRT on TensorFlow",
)


def samples(model, count=20):
    return models.random_inputs(model, batch=count)


@pytest.mark.parametrize("name", ["shared", "two_heads", "nested"])
def test_litert(name, tmp_path):
    model = models.randomized(models.FACTORIES[name]())
    exported = kr.deploy.litert(model, tmp_path / "x.tflite")
    file = exported.file
    assert file.bytes == (tmp_path / "x.tflite").stat().st_size
    assert file.bytes > 4 * model.count_params()
    assert file.parameters == model.count_params()
    assert file.multiply_adds == kr.flops(model)
    assert 0 <= file.difference < 1e-5
    assert file.same_class == (None if name == "two_heads" else 1)
    assert 0 < file.milliseconds < 1000
    assert json.loads(json.dumps(exported.to_dict()))["beside"] is None


@pytest.fixture(scope="module")
def wide():
    """A network in which int8 is worth it, and half of it."""
    keras.utils.set_random_seed(0)
    steps = [
        layers.Conv2D(32, 3, activation="relu", name=name)
        for name in ("one", "two")
    ]
    top = [layers.GlobalAveragePooling2D(), layers.Dense(5)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *steps, *top])
    return models.randomized(model)


def test_int8_and_what_is_beside(wide, tmp_path):
    small = kr.prune(wide, ratio=0.4)
    x = samples(wide)
    options = {"beside": wide, "quantize": "int8"}
    exported = kr.deploy.litert(small, tmp_path / "x.tflite", x, **options)
    float32 = kr.deploy.litert(small, tmp_path / "y.tflite", x)
    assert exported.file.bytes < 0.5 * float32.file.bytes
    assert float32.file.difference < 1e-5 < exported.file.difference < 0.1
    assert exported.beside.parameters == wide.count_params()
    assert exported.beside.bytes > exported.file.bytes
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "x.tflite",
        "y.tflite",
    ]
    text = str(exported)
    assert "beside sequential" in text
    assert "(one: 20, two: 20)" in text
    assert "round_to=8" in text
    even = kr.prune(wide, ratio=0.4, round_to=8)
    exported = kr.deploy.litert(even, tmp_path / "z.tflite", beside=wide)
    assert exported.advice == ""


def test_dynamic(wide, tmp_path):
    sizes = [
        kr.deploy.litert(wide, tmp_path / f"{kind}.tflite", None, kind).file
        for kind in (None, "dynamic")
    ]
    assert sizes[1].bytes < 0.5 * sizes[0].bytes
    assert sizes[1].difference < 0.1


def test_a_saved_model(tmp_path):
    model = models.randomized(models.residual())
    file = kr.deploy.export(model, tmp_path / "folder").file
    assert file.difference < 1e-5
    assert file.bytes > 4 * model.count_params()
    with pytest.raises(ValueError, match=r"exists\. Choose another path"):
        kr.deploy.export(model, tmp_path / "folder")
    (tmp_path / "folder/left_over").touch()
    kr.deploy.export(model, tmp_path / "folder", overwrite=True)
    assert not (tmp_path / "folder/left_over").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file, but a folder has to be"):
        kr.deploy.export(model, tmp_path / "file", overwrite=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx(tmp_path, monkeypatch):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    model = models.randomized(models.two_heads())
    file = kr.deploy.export(model, tmp_path / "x.onnx").file
    assert file.difference < 1e-5
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    exported = kr.deploy.export(model, tmp_path / "y.onnx")
    assert exported.file.milliseconds is None
    assert "pip install onnxruntime" in str(exported)


def test_without_a_converter(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'tf2onnx'")

    monkeypatch.setattr(keras.Model, "export", fail)
    with pytest.raises(ImportError, match="pip install onnx tf2onnx"):
        kr.deploy.export(models.mlp(), tmp_path / "x.onnx")


def test_open_sizes_are_those_of_the_data(tmp_path):
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(
        ValueError, match="and a file for LiteRT has fixed sizes"
    ):
        kr.deploy.litert(model, tmp_path / "x.tflite")
    x = np.ones((4, 9, 7, 3), "float32")
    file = kr.deploy.litert(model, tmp_path / "x.tflite", x).file
    assert (file.multiply_adds, file.difference < 1e-5) == (None, True)
    assert kr.deploy.export(model, tmp_path / "folder").file.difference < 1e-5


def test_a_quantized_model_can_be_exported(tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, name="x")])
    model.quantize("int8", filters=lambda layer: layer.name == "x")
    file = kr.deploy.export(model, tmp_path / "folder").file
    assert (file.multiply_adds, file.difference < 0.01) == (None, True)
    with pytest.raises(ValueError, match=r"'x' is quantized by Keras: export"):
        kr.deploy.litert(model, tmp_path / "x.tflite")


class Own(layers.Layer):
    def call(self, x):
        return keras.ops.convert_to_tensor(np.asarray(x))

    def compute_output_shape(self, shape):
        return shape


def layer_without_a_graph():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2), Own()])


def recurrent():
    return keras.Sequential([keras.Input((5, 3)), layers.LSTM(2, name="loop")])


def no_graph():
    return type("Own", (keras.Model,), {})()


@pytest.mark.parametrize(
    ("factory", "name", "options", "error", "words"),
    [
        (models.mlp, "x.h5", {}, ValueError, "has the suffix .h5"),
        (models.mlp, "no/x.tflite", {}, ValueError, "There is no folder"),
        (models.mlp, "x.onnx", {"quantize": "int8"}, ValueError, "for LiteRT"),
        (models.mlp, "x.tflite", {"quantize": "int4"}, ValueError, "dynamic"),
        (models.mlp, "x.tflite", {"quantize": "int8"}, ValueError, "data="),
        (models.mlp, "x.tflite", {"data": np.ones((2, 3))}, ValueError, "take"),
        (
            recurrent,
            "x.tflite",
            {"quantize": "int8", "data": np.ones((2, 5, 3))},
            ValueError,
            "'loop' .LSTM.*unroll=True",
        ),
        (
            layer_without_a_graph,
            "x.tflite",
            {},
            ValueError,
            r"cannot be converted to litert[^$]*Own\.call\(\).*NumPy",
        ),
        pytest.param(
            *(models.mlp, "/proc/x.tflite", {}),
            *(OSError, "x.tflite' cannot be written"),
            marks=pytest.mark.skipif(
                sys.platform != "linux", reason="needs a read-only folder"
            ),
        ),
        (no_graph, "x.tflite", {}, ValueError, "has not been built"),
    ],
)
def test_what_cannot_be_done(factory, name, options, error, words, tmp_path):
    with pytest.raises(error, match=words):
        kr.deploy.export(factory(), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_litert_has_a_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"has to end in \.tflite"):
        kr.deploy.litert(models.mlp(), tmp_path / "x.onnx")
    with pytest.raises(TypeError, match="path is <Sequential"):
        kr.deploy.litert(tmp_path / "x.tflite", models.mlp())


def test_a_failure_of_the_converter(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no such kernel\nmore")

    monkeypatch.setattr(keras.Model, "export", fail)
    with pytest.raises(ValueError, match="'mlp' cannot be converted to litert"):
        kr.deploy.litert(models.mlp(), tmp_path / "x.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.txt").touch()
    with pytest.raises(ValueError, match="not that of a SavedModel"):
        kr.deploy.export(models.mlp(), tmp_path / "folder", overwrite=True)
    assert (tmp_path / "folder/thesis.txt").exists()


def test_what_cannot_be_run_is_not_written(tmp_path, monkeypatch):
    """LiteRT has no convolution in float16, which the converter lets pass."""

    def fail(*args):
        raise RuntimeError("FlexConv2D failed to prepare")

    monkeypatch.setattr(exporting.runtimes, "runner", fail)
    path = tmp_path / "x.tflite"
    path.write_text("old")
    keras.config.set_dtype_policy("mixed_float16")
    model = models.mlp()
    keras.config.set_dtype_policy("float32")
    words = r"'mlp' was converted, .* in float16: .* policy .float32"
    with pytest.raises(ValueError, match=words):
        kr.deploy.export(model, path, overwrite=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_that_are_no_numbers_differ():
    outputs = [np.ones(2), np.ones(2)]
    assert difference(outputs, outputs) == 0
    assert np.isnan(difference(outputs, [np.ones(2), np.array([1, np.nan])]))
