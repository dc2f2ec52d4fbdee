"""What does training for low rank cost, beside a plain training step?

    python examples/benchmarks/low_rank.py
    python examples/benchmarks/low_rank.py --no-xla --repeats 5

Trains an MLP 784-500-500-500-500-10 with Adam on random images in batches of
128: as it is; with RaRe as a `kernel_regularizer` of `Dense` layers; of
`FactorizedDense` layers, which keep the closest pairs; and these with
`DynamicLowRank`, at first, when about a third of the weights are fused, and
when the layers have shrunk by them. All in turn, --repeats times, --steps steps
each; a ratio is the median of those to the plain network in the same turn.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

BATCH = 128
SHARED = 0.18  # Of rows and of columns: a third of the weights.


def network(width, count):
    hidden = [layers.Dense(width, activation="relu") for _ in range(count)]
    return keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10)])


def regularized(width, count):
    return kr.apply_rare(network(width, count), 20.0)


def factorized(width, count):
    return kr.factorize(regularized(width, count))


def fused(width, count):
    """As after some training: vectors are made parallel and joined."""
    model = factorized(width, count)
    for layer in model.layers:
        kernel = np.array(keras.ops.convert_to_numpy(layer.kernel))
        for axis, side in enumerate(("input", "unit")):
            if side in layer.sides:
                vectors = np.moveaxis(kernel, axis, 0)
                count = int(SHARED * len(vectors))
                vectors[:count] = vectors[-count:]
        layer.kernel.assign(kernel)
        layer.fuse_parallel(to_square=False)
    return model


# How each is made, and the arguments of the callback that fuses it.
KINDS = {
    "plain": (network, None),
    "Dense, RaRe": (regularized, None),
    "FactorizedDense, RaRe": (factorized, None),
    "the same, DynamicLowRank": (factorized, {}),
    "the same, a third fused": (fused, {}),
    "the same, shrunk": (fused, {"shrink": 0.2}),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=4)
    parser.add_argument("--no-xla", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.steps * BATCH, 784)).astype("float32")
    labels = rng.integers(0, 10, len(images))

    def fit(model, options, count):
        callbacks = []
        if options is not None:
            callbacks.append(kr.callbacks.DynamicLowRank(**options))
        start = time.perf_counter()
        model.fit(
            images[: count * BATCH],
            labels[: count * BATCH],
            batch_size=BATCH,
            callbacks=callbacks,
            verbose=0,
        )
        return (time.perf_counter() - start) / count

    made = {}
    for name, (make, options) in KINDS.items():
        keras.utils.set_random_seed(0)
        model = make(args.width, args.hidden)
        model.compile(
            "adam",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=not args.no_xla,
        )
        made[name] = model, options
        for _ in range(2):  # The second time with what has shrunk.
            fit(model, options, 2)
    took = {name: [] for name in made}
    for _ in range(args.repeats):
        for name, (model, options) in made.items():
            took[name].append(fit(model, options, args.steps))
    rows = [
        [
            name,
            f"{1000 * np.median(times):.2f}",
            f"{np.median(np.divide(times, took['plain'])):.2f}",
        ]
        for name, times in took.items()
    ]
    compiler = "without XLA" if args.no_xla else "with XLA"
    title = f"A training step on {keras.backend.backend()}, {compiler}"
    print(Table(title, ["", "ms", "ratio"], rows))


if __name__ == "__main__":
    main()
