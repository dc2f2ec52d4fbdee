"""What does it cost to look at activations, beside a plain forward pass?

    python examples/benchmarks/calibration.py
    python examples/benchmarks/calibration.py ResNet50 --samples 256

For each network, `calibrate` (the means and covariances of all that consumers
of prunable channels read) and `Model.predict` run in turn over the same
images, `--repeats` times, in a process of its own; times are the shortest of
them, and both include what compiling takes. `memory` is what calibrating takes
at its peak beyond what was there after a first pass over `--samples` images,
for these and for four times as many; it is measured on Linux.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from peak_memory import peak_beyond

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

BATCH = 128
SAMPLES = {"mlp": 20000, "vgg": 2048}
HEADER = (
    *("network", "images", "predict, s", "calibrate, s", "ratio"),
    *("memory, MB", "for 4 x the images, MB"),
)


def mlp():
    """784-300-100-10."""
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ]
    )


def vgg():
    """Ten convolutions of 32 to 256 filters, on 32x32 images."""
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for count, width in ((2, 32), (2, 64), (3, 128), (3, 256)):
        for _ in range(count):
            model.add(layers.Conv2D(width, 3, padding="same", use_bias=False))
            model.add(layers.BatchNormalization())
            model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10))
    return model


def network(name):
    if name in ("mlp", "vgg"):
        return globals()[name]()
    return getattr(keras.applications, name)(weights=None)


def seconds(function, *args, **kwargs):
    gc.collect()
    start = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - start


def calibrate_on(model, images):
    kr.calibrate(model, images, batch_size=BATCH)


def predict(model, images):
    """By a new model each time, so that it is compiled as often.

    Without XLA where Keras would use it by itself: that is faster here.
    """
    again = keras.Model(model.inputs, model.outputs)
    if keras.backend.backend() == "tensorflow":
        again.jit_compile = False
    again.predict(images, batch_size=BATCH, verbose=0)


def measure(name, samples, repeats):
    model = network(name)
    shape = (samples, *model.input_shape[1:])
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    times = np.array(
        [
            (
                seconds(predict, model, images),
                seconds(calibrate_on, model, images),
            )
            for _ in range(repeats)
        ]
    ).min(axis=0)
    peaks = [peak_beyond(calibrate_on, model, images)]
    images = np.concatenate([images] * 4)
    peaks.append(peak_beyond(calibrate_on, model, images))
    peaks = [None if peak is None else peak / 1e6 for peak in peaks]
    return name, samples, *times, times[1] / times[0], *peaks


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = ["mlp", "vgg", "ResNet50", "MobileNetV2", "DenseNet121"]
    parser.add_argument("names", nargs="*", metavar="NAME", default=names)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--measure", action="store_true", help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.measure:
        row = measure(args.names[0], args.samples, args.repeats)
        print(json.dumps(row, default=float))
        return
    rows = []
    for name in args.names:
        command = [sys.executable, __file__, name, "--measure"]
        samples = args.samples or SAMPLES.get(name, 256)
        command += ["--samples", samples, "--repeats", args.repeats]
        done = subprocess.run(
            list(map(str, command)), stdout=subprocess.PIPE, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: {rows[-1][4]:.2f} x predict", flush=True)
    title = f"Shortest of {args.repeats}, {keras.backend.backend()}"
    print(Table(title, HEADER, rows))


if __name__ == "__main__":
    main()
