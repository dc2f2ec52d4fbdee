"""What does it cost to prune with data, beside a forward pass?

    python examples/benchmarks/data_pruning.py
    python examples/benchmarks/data_pruning.py MobileNetV2 --samples 256

For each network, of random weights, in a process of its own:
`kr.prune(model, target={"flops": 0.5}, data=images)`, step by step, beside
`Model.predict` of the same images by a model that is compiled already, the
median of runs before and after. `rank` is choosing what goes, `build` the
smaller model as it is before it is mended. `memory` is what all of it takes at
its peak beyond what was there before, measured on Linux; `used` the samples
that mending had room for.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from peak_memory import peak_beyond

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

NAMES = (
    *("quickstart", "ResNet50", "VGG16", "DenseNet121"),
    *("MobileNetV2", "EfficientNetB0", "ConvNeXtTiny"),
)
REPEATS = 3  # Of `predict`, before pruning and once more after it.
STEPS = ("predict", "calibrate", "rank", "build", "mend")
HEADER = (
    *("network", "images", "used", *(f"{step}, s" for step in STEPS)),
    *("total, s", "total / predict", "memory, MB"),
)


def network(name):
    if name != "quickstart":
        return getattr(keras.applications, name)(weights=None)
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import quickstart

    widths = quickstart.WIDTHS["fashion_mnist"]
    return quickstart.build((28, 28, 1), widths)


def prune(model, images, target, times):
    """The smaller model's plan; `times` gets the seconds of each step."""

    def timed(step, function, *args, **options):
        start = time.perf_counter()
        result = function(*args, **options)
        times[step] = time.perf_counter() - start
        return result

    known = timed("calibrate", kr.calibrate, model, images)
    plan = timed("rank", kr.plan, model, target=target, data=known)
    bare = dataclasses.replace(plan, repair=None)
    timed("build", bare.apply)
    timed("mend", plan.apply)
    times["mend"] -= times["build"]
    return plan


def seconds_of_predict(model, images):
    """The seconds of each of a few runs: on a shared machine they differ."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        model.predict(images, verbose=0)
        found.append(time.perf_counter() - start)
    return found


def measure(name, samples, share):
    model = network(name)
    shape = (samples, *model.input_shape[1:])
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    times, plans = {}, []
    model.predict(images, verbose=0)
    predicts = seconds_of_predict(model, images)
    peak = peak_beyond(
        lambda: plans.append(prune(model, images, {"flops": share}, times))
    )
    predict = np.median(predicts + seconds_of_predict(model, images))
    used = plans[0].repair.used
    total = sum(times.values())
    peak = None if peak is None else peak / 1e6
    seconds = predict, *(times[step] for step in STEPS[1:])
    return name, samples, used, *seconds, total, total / predict, peak


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        (name,) = args.names
        print(json.dumps(measure(name, args.samples, args.flops)))
        return
    rows = []
    for name in args.names:
        options = "--samples", str(args.samples), "--flops", str(args.flops)
        command = [sys.executable, __file__, name, "--here", *options]
        done = subprocess.run(
            command, check=True, text=True, stdout=subprocess.PIPE
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    title = f"{100 * (1 - args.flops):.0f} % of multiply-adds cut, with data"
    print(Table(title, HEADER, rows))


if __name__ == "__main__":
    main()
