"""Write a model in a format for devices."""

import contextlib
import functools
import io
import tempfile
import warnings
from pathlib import Path

import keras

from keras_redundancy._shared.files import replaced
from keras_redundancy.deploy.pairs import is_quantized
from keras_redundancy.deploy.samples import Subject

FORMATS = {".tflite": "litert", ".onnx": "onnx", "": "tf_saved_model"}
# What converts to them, for Keras on PyTorch and on other backends.
PACKAGES_ON_TORCH = {"litert": "litert-torch", "onnx": "onnx onnxscript"}
PACKAGES = {"litert": "tensorflow", "onnx": "onnx tf2onnx"}
ON_TENSORFLOW = (
    " On TensorFlow all formats can be written: save the model as a .keras "
    "file, and load and export it with KERAS_BACKEND=tensorflow."
)


def write(subject: Subject, path: Path, samples: list | None, quantize) -> None:
    """Write a file, or the folder of a SavedModel.

    Args:
        subject: the model.
        path: its suffix is one of `FORMATS`.
        samples: representative samples, an array for each input, or None.
        quantize: None, "dynamic" or "int8".

    Raises:
        ImportError: a package is missing that converts.
        ValueError: the model cannot be converted.
        OSError: the path cannot be written to.
    """
    kind = FORMATS[path.suffix]
    options = {}
    if kind == "litert":
        options = _litert_options(subject, samples, quantize)
    with replaced(path) as fresh, warnings.catch_warnings():
        # The converters use what TensorFlow and NumPy will remove.
        warnings.simplefilter("ignore")
        try:
            if not subject.is_keras_3:
                _write_tf_keras(subject.model, fresh, options)
                return
            subject.model.export(
                fresh,
                format=kind,
                verbose=False,
                input_signature=_signature(subject, samples, kind),
                **options,
            )
        except ImportError as error:
            raise ImportError(
                f"{path.name!r} cannot be written: {error}. Install what "
                f"converts: pip install {_packages(kind)}.{_elsewhere()}"
            ) from error
        # The converters raise errors of classes of their own.
        except Exception as error:
            raise ValueError(
                _failure(subject, kind, quantize, error)
            ) from error


def _packages(kind):
    is_torch = keras.backend.backend() == "torch"
    packages = PACKAGES_ON_TORCH if is_torch else PACKAGES
    return packages.get(kind, "tensorflow")


def _elsewhere():
    return ON_TENSORFLOW if keras.backend.backend() == "torch" else ""


def _failure(subject, kind, quantize, error):
    advice, model = _elsewhere(), subject.model
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


def _signature(subject, samples, kind):
    """Shapes of the inputs: LiteRT has a batch of one and no open sizes."""
    fixed = kind == "litert"
    shapes = [x.shape[1:] for x in subject.inputs]
    if fixed and samples is not None:
        shapes = [x.shape[1:] for x in samples]
    specs = [
        keras.InputSpec(
            shape=(1 if fixed else None, *shape), dtype=x.dtype, name=x.name
        )
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
        converter.optimizations = options.get("optimizations", [])
        if "representative_dataset" in options:
            converter.representative_dataset = options["representative_dataset"]
            kinds = options["target_spec"]["supported_ops"]
            converter.target_spec.supported_ops = kinds
        path.write_bytes(converter.convert())
