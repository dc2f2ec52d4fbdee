"""Is mending ever worse on fresh samples than leaving it out?

    python examples/benchmarks/mending.py
    python examples/benchmarks/mending.py --ratio 0.6 --seeds 3

Networks of random weights, whose outputs are pooled, flattened or at every
position, are cut with few large images up to many small ones as `data=`.
Images are smooth noise, so that neighbouring positions are alike. The error is
that of the outputs on fresh images, as a share of their variance, without and
with mending. The last column is what mending multiplies it by: a value above 1
is a defect.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

# How many images there are, and how large they are.
DATA = ((8, 64), (32, 48), (128, 32), (1024, 16), (8192, 8))
FRESH = 256
HEADER = ("network", "images", "size", "not mended", "mended", "ratio")


def body(x, normalized):
    for width, stride in ((16, 1), (24, 2), (32, 1)):
        x = layers.Conv2D(width, 3, stride, "same")(x)
        x = layers.BatchNormalization()(x) if normalized else x
        x = layers.ReLU()(x)
    return x


def pooled(size, normalized=True):
    inputs = keras.Input((size, size, 3))
    x = layers.GlobalAveragePooling2D()(body(inputs, normalized))
    x = layers.Dense(32, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def flattened(size):
    inputs = keras.Input((size, size, 3))
    x = layers.AveragePooling2D(size // 4)(body(inputs, False))
    x = layers.Dense(32, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def dense_output(size):
    inputs = keras.Input((size, size, 3))
    x = layers.UpSampling2D()(body(inputs, True))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(4, 1)(x))


def depthwise(size):
    inputs = keras.Input((size, size, 3))
    x = body(inputs, True)
    for stride in (2, 1):
        x = layers.DepthwiseConv2D(3, stride, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Conv2D(32, 1)(layers.ReLU()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


NETWORKS = {
    "pooled": pooled,
    "pooled, no norm": lambda size: pooled(size, False),
    "flattened": flattened,
    "at every position": dense_output,
    "depthwise, pooled": depthwise,
}


def images(count, size, rng):
    """Smooth noise: coarse noise enlarged, with finer noise on top."""
    coarse = rng.normal(size=(count, size // 4, size // 4, 3))
    fine = rng.normal(size=(count, size, size, 3))
    smooth = coarse.repeat(4, axis=1).repeat(4, axis=2) + 0.3 * fine
    return smooth.astype("float32")


def relative_error(small, wanted, fresh):
    found = small.predict(fresh, verbose=0)
    return float(np.square(found - wanted).mean() / wanted.var(axis=0).mean())


def measure(name, count, size, ratio, seed):
    """(error without mending, error with it)."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = NETWORKS[name](size)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.beta.assign(0.5 * rng.normal(size=layer.beta.shape))
    fresh = images(FRESH, size, rng)
    wanted = model.predict(fresh, verbose=0)
    known = kr.calibrate(model, images(count, size, rng))
    return [
        relative_error(
            kr.prune(model, ratio=ratio, data=known, mend=mend), wanted, fresh
        )
        for mend in (False, True)
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ratio", type=float, default=0.4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS
    )
    args = parser.parse_args()
    rows = []
    for name in args.networks:
        for count, size in DATA:
            errors = [
                measure(name, count, size, args.ratio, seed)
                for seed in range(args.seeds)
            ]
            bare, mended = np.mean(errors, axis=0).tolist()
            rows.append((name, count, size, bare, mended, mended / bare))
            print(*rows[-1], flush=True)
    title = f"ratio = {args.ratio:g}: errors on {FRESH} fresh images"
    print(Table(title, HEADER, rows))


if __name__ == "__main__":
    main()
