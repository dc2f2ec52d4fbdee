"""Write a model for a device and measure it there: `export`, `litert`."""

from __future__ import annotations  # help() shows the names of types.

import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_redundancy._shared.arguments import check_option
from keras_redundancy._shared.files import (
    is_saved_model,
    replaced,
    require_folder,
)
from keras_redundancy._shared.tables import Rendered, Table, listed, shown
from keras_redundancy.building.stripping import stock
from keras_redundancy.channels import trace
from keras_redundancy.deploy import runtimes
from keras_redundancy.deploy.pairs import wrapper_of_tfmot
from keras_redundancy.deploy.samples import Subject, difference
from keras_redundancy.deploy.writing import FORMATS, write
from keras_redundancy.reports.difference import difference as sizes_of

# Samples that show the converter the ranges of values, and that are compared.
REPRESENTATIVE, COMPARED = 200, 64
MULTIPLE = 8  # Channels that many devices compute at a time.


@dataclasses.dataclass(frozen=True)
class ExportedFile:
    """A file that a model was exported to, and how it runs on this machine.

    Attributes:
        model: the name of the model.
        path: the file, or the folder of a SavedModel.
        parameters: the number of weights of the model.
        multiply_adds: on one sample; None where the input size is open, or
            for a tf_keras model.
        bytes: the size of the file or folder.
        milliseconds: the median time for one sample in the runtime; None
            where that is not installed.
        difference: the largest difference from what Keras returns, as a share
            of the largest output; None where the runtime is not installed.
        same_class: the share of samples with the same largest output; None
            for a model that returns something else than scores of classes.
    """

    model: str
    path: str
    parameters: int
    multiply_adds: int | None
    bytes: int
    milliseconds: float | None = None
    difference: float | None = None
    same_class: float | None = None


@dataclasses.dataclass(frozen=True)
class Exported(Rendered):
    """What `export` wrote; `render()` shows a table.

    Attributes:
        file: the `ExportedFile` of the model.
        beside: the `ExportedFile` of the model to compare with, or None. That
            file was deleted after it was measured.
        advice: what could be better, in words, or "".
    """

    file: ExportedFile
    beside: ExportedFile | None = None
    advice: str = ""

    def to_dict(self) -> dict:
        """All figures as plain Python numbers, strings and dicts."""
        return dataclasses.asdict(self)

    def table(self) -> Table:
        header = ("model", "params", "multiply-adds", "kB", "1 sample, ms")
        header += ("difference", "same class, %")
        rows = [
            (
                *(words + x.model, x.parameters, x.multiply_adds),
                *(x.bytes / 1000, x.milliseconds),
                None if x.difference is None else f"{x.difference:.2g}",
                None if x.same_class is None else 100 * x.same_class,
            )
            for words, x in (("beside ", self.beside), ("", self.file))
            if x is not None
        ]
        title = f"{Path(self.file.path).name}, compared with Keras"
        return Table(title, header, rows, self.advice)


def litert(
    model,
    path,
    data=None,
    quantize: str | None = None,
    *,
    beside=None,
    overwrite: bool = False,
) -> Exported:
    """Write a model for LiteRT (TensorFlow Lite), and measure the file.

    The file takes one sample at a time, as float32. See `export` for all
    arguments; `path` has to end in .tflite.
    """
    if _as_path(path).suffix != ".tflite":
        raise ValueError(
            f"{str(path)!r} has to end in .tflite, the suffix of LiteRT's "
            "files. kr.deploy.export(model, path) writes other formats."
        )
    options = {"beside": beside, "overwrite": overwrite}
    return export(model, path, data, quantize, **options)


def export(
    model,
    path,
    data=None,
    quantize: str | None = None,
    *,
    beside=None,
    overwrite: bool = False,
) -> Exported:
    """Write a model for a device, and measure what was written.

    The suffix of the path says the format: .tflite for LiteRT, .onnx for
    ONNX, none for the folder of a SavedModel. The file is run on this machine,
    on LiteRT (ai-edge-litert where installed, else TensorFlow's), onnxruntime
    or TensorFlow: its time for one sample is measured, and what it returns is
    compared with what Keras returns.

    Args:
        model: a built `keras.Model`; for LiteRT also a model of tf_keras, such
            as one that was trained quantization-aware by tfmot. It is never
            changed.
        path: where to write.
        data: inputs, as `Model.predict` takes them; for a tf_keras model,
            arrays. The first 200 show the converter the ranges of values for
            quantize="int8"; on the first 64 the outputs of the file and of
            Keras are compared. Default: random inputs.
        quantize: for LiteRT only. None computes in float32; "dynamic" stores
            large kernels as integers; "int8" computes with integers
            throughout, and needs `data`, unless the model was trained
            quantization-aware.
        beside: a model to compare with, such as the unpruned one. It is
            exported in the same way, and its file is deleted.
        overwrite: whether to write where there is a file or folder already.

    Returns:
        An `Exported`, which can be printed.

    Raises:
        ImportError: a package is missing that converts to ONNX.
        TypeError: a model has no graph to follow.
        ValueError: the path has another suffix, or exists; `quantize` is given
            for another format than LiteRT, or needs data; LiteRT needs an
            input size that is open; or the model cannot be converted.
        OSError: the path cannot be written to.
    """
    path = _as_path(path)
    _check_path(path, overwrite)
    subjects = [Subject.of(x) for x in (beside, model) if x is not None]
    for subject in subjects:
        _check(subject, path, data, quantize)
    needs_data = path.suffix == ".tflite" and data is not None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / path.name
        places = [Path(folder) / f"beside {path.name}", place][-len(subjects) :]
        samples = [x.samples(data, REPRESENTATIVE) for x in subjects]
        written = list(zip(subjects, places, samples, strict=True))
        for subject, place, own in written:
            write(subject, place, own if needs_data else None, quantize)
        try:
            files = _measured(written)
        except RuntimeError as error:
            raise ValueError(_cannot_run(subjects, path, error)) from error
        with replaced(path, of_model=not path.suffix) as fresh:
            shutil.move(place, fresh)
    files[-1] = dataclasses.replace(files[-1], path=str(path))
    advice = _advice_on_widths(model, beside)
    if files[-1].milliseconds is None:
        advice += "Not run: install the runtime by pip install onnxruntime."
    return Exported(files[-1], files[0] if files[1:] else None, advice)


# --- what cannot be done ----------------------------------------------------


def _as_path(path) -> Path:
    try:
        return Path(path)
    except TypeError as error:
        raise TypeError(
            f"path is {shown(path)}, but has to be a path to write to, as in "
            "kr.deploy.litert(model, 'model.tflite')."
        ) from error


def _check_path(path, overwrite):
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{str(path)!r} has the suffix {path.suffix}. End the path in "
            ".tflite for LiteRT, in .onnx for ONNX, or in a name without a "
            "suffix for the folder of a SavedModel."
        )
    if path.exists():
        kinds = ("file", "folder")[:: 1 if path.suffix else -1]
        if path.is_dir() == bool(path.suffix):
            raise ValueError(
                f"{str(path)!r} exists and is a {kinds[1]}, but a {kinds[0]} "
                "has to be written. Choose another path."
            )
        if not overwrite:
            raise ValueError(
                f"{str(path)!r} exists. Choose another path, or pass "
                "overwrite=True."
            )
        if path.is_dir() and not is_saved_model(path) and any(path.iterdir()):
            raise ValueError(
                f"{str(path)!r} is a folder, but not that of a SavedModel: "
                "what is in it would be lost. Choose another path."
            )
    require_folder(path)


def _check(subject, path, data, quantize):
    model = subject.model
    is_litert = path.suffix == ".tflite"
    if quantize is not None:
        check_option("quantize", quantize, ("dynamic", "int8"))
        if not is_litert:
            raise ValueError(
                f"quantize={quantize!r} is for LiteRT: {str(path)!r} has to "
                "end in .tflite, or leave quantize out."
            )
    if not subject.is_keras_3 and not is_litert:
        raise ValueError(
            f"{model.name!r} is a model of tf_keras, which is exported to "
            ".tflite only. Call model.export(folder) for a SavedModel."
        )
    is_open = any(None in x.shape[1:] for x in subject.inputs)
    if is_litert and is_open and data is None:
        raise ValueError(
            f"An input of {model.name!r} has an open size "
            f"({[tuple(x.shape) for x in subject.inputs]}), and a file for "
            "LiteRT has fixed sizes. Pass data= with inputs of the size that "
            "the device has."
        )
    if quantize == "int8":
        _check_int8(subject, data)


def _check_int8(subject, data):
    if data is None and not any(map(wrapper_of_tfmot, subject.layers)):
        raise ValueError(
            'quantize="int8" needs data=, some hundred inputs like those on '
            "the device, to find the ranges of all values. "
            'quantize="dynamic" needs none.'
        )
    for layer in subject.layers:
        # TensorFlow's converter ends the process where it calibrates a loop.
        if getattr(layer, "unroll", None) is False:
            raise ValueError(
                f'quantize="int8" cannot follow the loop of {layer.name!r} '
                f"({type(layer).__name__}). Make the layer with unroll=True, "
                'or pass quantize="dynamic".'
            )


def _cannot_run(subjects, path, error):
    """Why a file that was written cannot be run; of half precision is said."""
    half = {
        layer.compute_dtype
        for subject in subjects
        for layer in subject.layers
        if getattr(layer, "compute_dtype", None) in ("float16", "bfloat16")
    }
    advice = ""
    if half:
        advice = (
            f" It computes in {', '.join(sorted(half))}: make it with the "
            'dtype policy "float32", and give it these weights.'
        )
    words = " ".join(str(error).split())[:200]
    return (
        f"{subjects[-1].model.name!r} was converted, but what came out cannot "
        f"be run, so {str(path)!r} was not written.{advice}\n{words}"
    )


# --- what was written -------------------------------------------------------


def _measured(written: list[tuple]) -> list[ExportedFile]:
    """What was written of each (subject, path, samples)."""
    runs = [runtimes.runner(path, x.output_names) for x, path, _ in written]
    times = [None] * len(runs)
    if None not in runs:
        first = [next(x.one_by_one(samples)) for x, _, samples in written]
        times = runtimes.milliseconds(list(map(functools.partial, runs, first)))
    return [
        ExportedFile(
            subject.model.name,
            str(path),
            subject.model.count_params(),
            _multiply_adds(subject),
            _size(path),
            time,
            *_agreement(subject, [x[:COMPARED] for x in samples], run),
        )
        for (subject, path, samples), run, time in zip(
            written, runs, times, strict=True
        )
    ]


def _agreement(subject, samples, run) -> tuple[float | None, float | None]:
    """`difference` and `same_class` of what the file returns for samples."""
    if run is None:
        return None, None
    wanted = subject.predict(samples)
    found = zip(*map(run, subject.one_by_one(samples)), strict=True)
    given = [np.concatenate(each).astype("float64") for each in found]
    same_class = None
    if len(wanted) == 1 and wanted[0].ndim == 2 and wanted[0].shape[1] > 1:
        pairs = wanted[0].argmax(-1) == given[0].argmax(-1)
        same_class = float(pairs.mean())
    return difference(wanted, given), same_class


def _multiply_adds(subject):
    try:
        return trace(stock(subject.model)).multiply_adds()
    except (TypeError, ValueError):  # A model of tf_keras, or quantized.
        return None


def _size(path):
    files = path, *path.rglob("*")
    return sum(x.stat().st_size for x in files if x.is_file())


def _advice_on_widths(model, beside):
    """Names the layers whose widths became no multiples of eight."""
    if beside is None or not isinstance(model, keras.Model):
        return ""
    odd = [
        f"{name}: {after.units}"
        for name, (before, after) in sizes_of(beside, model).layers.items()
        if after is not None
        and (before is None or before.units != after.units)
        and after.units % MULTIPLE
    ]
    if not odd:
        return ""
    return (
        f"{len(odd)} layers have a number of units that is no multiple of "
        f"{MULTIPLE} ({listed(odd, 4)}), and many runtimes compute {MULTIPLE} "
        f"channels at a time: plan with round_to={MULTIPLE}.\n"
    )
