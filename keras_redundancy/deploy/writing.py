"""Write a model in a format for devices."""

import contextlib
import functools
import io
import tempfile
import warnings
from pathlib import Path

import keras

from keras_redundancy.deploy.pairs import is_quantized
from keras_redundancy.deploy.samples import Subject

FORMATS = {".tflite": "litert", ".onnx": "onnx", "": "tf_saved_model"}
# What converts to them; where Keras runs on PyTorch, the second of two.
PACKAGES = {
    "litert": ("tensorflow", "litert-torch"),
    "onnx": ("onnx tf2onnx", "onnx onnxscript"),
    "tf_saved_model": ("tensorflow", "tensorflow"),
}
ELSEWHERE = (
    "",
    " On TensorFlow all formats can be written: save the model as a .keras "
    "file, and load and export it with KERAS_BACKEND=tensorflow.",
)


def write(subject: Subject, path: Path, samples: list | None, quantize) -> None:
    """Write a file, or the folder of a SavedModel.

    Args:
        subject: the model.
        path: where there is nothing yet; its suffix is one of `FORMATS`.
        samples: representative samples, an array for each input, or None.
        quantize: None, "dynamic" or "int8".

    Raises:
        ImportError: a package is missing that converts.
        ValueError: the model cannot be converted.
        OSError: the path cannot be written to.
    """
    kind = FORMATS[path.suffix]
    on_torch = keras.backend.backend() == "torch"
    with warnings.catch_warnings():
        # The converters use what TensorFlow and NumPy will remove.
        warnings.simplefilter("ignore")
        try:
            options, batch = {}, None
            if kind == "litert":
                options, batch = _litert_options(subject, samples, quantize), 1
            if not subject.is_keras_3:
                _write_tf_keras(subject.model, path, options)
                return
            options["input_signature"] = _signature(subject, samples, batch)
            subject.model.export(path, kind, verbose=False, **options)
        except ImportError as error:
            raise ImportError(
                f"{path.name!r} cannot be written: {error}. Install what "
                f"converts: pip install {PACKAGES[kind][on_torch]}."
                f"{ELSEWHERE[on_torch]}"
            ) from error
        # The converters raise errors of classes of their own.
        except Exception as error:
            words = _failure(
                subject, kind, quantize, error, ELSEWHERE[on_torch]
            )
            raise ValueError(words) from error


def _failure(subject, kind, quantize, error, advice):
    model = subject.model
    quantized = [x.name for x in subject.layers if is_quantized(x)]
    if quantized:
        advice += (
            f" {quantized[0]!r} is quantized by Keras: export the model that "
            'it was before quantize(), with quantize="int8" or "dynamic".'
        )
    elif quantize == "int8":
        advice += ' Does quantize="dynamic" or None work?'
    words = " ".join(str(error).split())[:300]
    return f"{model.name!r} cannot be converted to {kind}.{advice}\n{words}"


def _signature(subject, samples, batch):
    """What the file takes: of LiteRT, samples without open sizes."""
    shapes = [x.shape[1:] for x in samples or subject.inputs]
    specs = [
        keras.InputSpec(shape=(batch, *shape), dtype=x.dtype, name=x.name)
        for x, shape in zip(subject.inputs, shapes, strict=True)
    ]
    return [keras.tree.pack_sequence_as(subject.structure, specs)]


def _litert_options(subject, samples, quantize):
    import tensorflow as tf

    if quantize is None:
        return {}
    options = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if quantize == "int8" and samples is not None:
        options["representative_dataset"] = functools.partial(
            subject.one_by_one, samples
        )
        kinds = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        options["target_spec"] = {"supported_ops": kinds}
    return options


def _write_tf_keras(model, path, options):
    """As `Model.export` of Keras 3, for a model of tf_keras."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            model.export(folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        target_spec = options.pop("target_spec", {})
        vars(converter).update(options)
        vars(converter.target_spec).update(target_spec)
        path.write_bytes(converter.convert())
