"""Run exported files: LiteRT, ONNX and SavedModel."""

import importlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

LEAST_RUNS, LEAST_SECONDS = 20, 0.5

Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


def runner(path: Path, outputs: tuple[str, ...]) -> Run | None:
    """A function that runs a file on arrays by the names of its inputs.

    Args:
        path: the file, or the folder of a SavedModel.
        outputs: the names of the outputs that the function returns.

    Returns:
        The function; None where the runtime is not installed.
    """
    return RUNNERS[path.suffix](str(path), outputs)


def _litert(path, outputs):
    try:
        module = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        module = importlib.import_module("tensorflow").lite
    with warnings.catch_warnings():
        # TensorFlow's own interpreter warns that it will be removed.
        warnings.simplefilter("ignore")
        interpreter = module.Interpreter(path)
    signature = interpreter.get_signature_runner()

    def run(inputs, interpreter=interpreter):  # It has to stay alive.
        found = signature(**inputs)
        return [found[name] for name in outputs]

    return run


def _onnx(path, outputs):
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path)
    # The names are other ones, the order is the same.
    return lambda inputs: session.run(None, inputs)


def _saved_model(path, outputs):
    tensorflow = importlib.import_module("tensorflow")
    loaded = tensorflow.saved_model.load(path)
    signature = loaded.signatures["serving_default"]

    def run(inputs, loaded=loaded):  # It has to stay alive.
        tensors = {k: tensorflow.constant(x) for k, x in inputs.items()}
        found = signature(**tensors)
        return [found[name].numpy() for name in outputs]

    return run


RUNNERS = {".tflite": _litert, ".onnx": _onnx, "": _saved_model}


def milliseconds(runs: list[Callable[[], object]]) -> list[float]:
    """The median time of each function; they run in turn."""
    times = [[] for _ in runs]
    for run in runs:
        run()
    end = time.perf_counter() + LEAST_SECONDS * len(runs)
    while len(times[0]) < LEAST_RUNS or time.perf_counter() < end:
        for run, own in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            own.append(1000 * (time.perf_counter() - start))
    return [float(np.median(own)) for own in times]
