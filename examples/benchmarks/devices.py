"""How large and how fast is a pruned network in the formats for devices?

    python examples/benchmarks/devices.py --networks mobilenet --targets .onnx

Networks with random weights are exported whole, and with half of their
multiply-adds, once with any number of units and once with multiples of eight
(`round_to=8`). All three files run in turn on this machine, one sample at a
time. `difference` is that from Keras, as a share of the largest output. Needs
`pip install ".[deploy]"`.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import accuracy
import quickstart

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table


def mobilenet():
    """MobileNetV2 whose BatchNormalization has the statistics of its inputs.

    With those it is made with, activations vanish from layer to layer, and
    int8 has nothing to tell apart.
    """
    shape = (96, 96, 3)
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=shape, classifier_activation=None
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(1).normal(size=(32, *shape)), training=True)
    return model


NETWORKS = {
    "quickstart": lambda: quickstart.build((28, 28, 1), (32, 64, 128)),
    "resnet": accuracy.resnet,
    "mobilenet": mobilenet,
}
TARGETS = {
    ".tflite": {"path": "x.tflite"},
    "dynamic": {"path": "x.tflite", "quantize": "dynamic"},
    "int8": {"path": "x.tflite", "quantize": "int8"},
    ".onnx": {"path": "x.onnx"},
    "SavedModel": {"path": "x"},
}
CUTS = {"half": {}, "half, round_to=8": {"round_to": 8}}
HEADER = ("network", "format", "pruned to", "params", "kB", "before")
HEADER += ("1 sample, ms", "before", "difference", "before")


def rows_of(name, targets):
    """The rows of the table for a network."""
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    shape = (32, *model.input_shape[1:])
    data = np.random.default_rng(0).normal(size=shape).astype("float32")
    for cut, options in CUTS.items():
        small = kr.prune(model, target={"flops": 0.5}, **options)
        for target in targets:
            with tempfile.TemporaryDirectory() as folder:
                given = dict(TARGETS[target], data=data, beside=model)
                path = Path(folder) / given.pop("path")
                exported = kr.deploy.export(small, path, **given)
            file, before = exported.file, exported.beside
            yield (
                *(name, target, cut, file.parameters),
                *(round(file.bytes / 1000), round(before.bytes / 1000)),
                *(file.milliseconds, before.milliseconds),
                *(f"{file.difference:.1e}", f"{before.difference:.1e}"),
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    args = parser.parse_args()
    rows = []
    for name in args.networks:
        for row in rows_of(name, args.targets):
            rows.append(row)
            print(*row, flush=True)
    title = "Pruned to half of the multiply-adds, and before"
    print(Table(title, HEADER, rows))


if __name__ == "__main__":
    main()
