"""Train a network, see how redundant it is, prune it, fine-tune it, save it.

    python examples/quickstart.py
    python examples/quickstart.py --dataset fashion_mnist --data FOLDER

Prunes the network by the similarity of its filters alone, at each --tau; and,
with the training images but not their labels, to each --target share of its
multiply-adds. Each smaller network is then fine-tuned for --tune epochs.

Runs on scikit-learn's handwritten digits by default, in a minute or two.
Writes the smallest model of the table to --out and opens it in a process
that cannot import keras_redundancy.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import example_data
import keras
import numpy as np
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table

WIDTHS = {
    "digits": (32, 64),
    "fashion_mnist": (32, 64, 128),
    "mnist": (32, 64, 128),
    "cifar10": (64, 128, 256),
}
EPOCHS = {"digits": 30, "fashion_mnist": 6, "mnist": 6, "cifar10": 20}
HEADER = (
    "cut by",
    "params",
    "multiply-adds",
    "1 image, ms",
    "100 images, ms",
    "acc. before, %",
    "pruned, %",
    "fine-tuned, %",
)


def build(shape, widths, classes=10):
    """A VGG-style network: two convolutions per width, then pooling."""
    x = inputs = keras.Input(shape)
    for width in widths:
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(2 * widths[-1], activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="quickstart")


def train(model, data, epochs, rate):
    """Fit with a learning rate that falls to zero; prints as it goes."""
    steps = epochs * -(-len(data[0]) // 128)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(rate, steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        *data,
        batch_size=128,
        epochs=epochs,
        verbose="auto" if sys.stdout.isatty() else 2,
    )


def accuracy(model, data):
    """Test accuracy in per cent."""
    logits = model.predict(data[0], verbose=0)
    return 100 * float((logits.argmax(axis=-1) == data[1]).mean())


def latencies(models, image, rounds=30):
    """Median milliseconds for 1 and for 100 images, the models in turn."""
    times = {}
    for size in (1, 100):
        batch = np.repeat(image[None], size, axis=0)
        for model in models:  # Trace one function at a time, and run it.
            for _ in range(5):
                model.predict_on_batch(batch)
        for _ in range(rounds):
            for number, model in enumerate(models):
                start = time.perf_counter()
                model.predict_on_batch(batch)
                took = 1000 * (time.perf_counter() - start)
                times.setdefault((number, size), []).append(took)
    return [
        tuple(float(np.median(times[number, size])) for size in (1, 100))
        for number in range(len(models))
    ]


def open_without_this_package(path, shape):
    """Load the file in a process where importing keras_redundancy fails."""
    code = (
        "import sys; sys.modules['keras_redundancy'] = None\n"
        "import keras, numpy as np\n"
        f"model = keras.models.load_model({str(path)!r})\n"
        f"image = np.zeros((1, *{shape}), 'float32')\n"
        "answer = model.predict(image, verbose=0)\n"
        "print('opened without keras_redundancy:', model.count_params(),"
        " 'parameters, answer of shape', answer.shape)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def arguments():
    """The arguments, and the data that they name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    example_data.add_arguments(parser)
    parser.add_argument("--tau", type=float, nargs="+", default=[0.5, 0.3, 0.2])
    parser.add_argument(
        "--target",
        type=float,
        nargs="*",
        default=[0.5, 0.25],
        help="shares of the multiply-adds to be left, calibrated on images",
    )
    parser.add_argument("--epochs", type=int, help="to train for")
    parser.add_argument("--tune", type=int, help="epochs to fine-tune for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("small.keras"))
    args = parser.parse_args()
    try:
        return args, example_data.load(args.dataset, args.data)
    except FileNotFoundError as error:
        parser.error(str(error))


def main():
    args, (train_data, test_data) = arguments()
    keras.utils.set_random_seed(args.seed)
    shape = train_data[0].shape[1:]
    epochs = args.epochs or EPOCHS[args.dataset]
    tune = args.tune or max(1, epochs // 5)

    print(f"Training on {len(train_data[0]):,} images of {args.dataset}")
    model = build(shape, WIDTHS[args.dataset])
    train(model, train_data, epochs, rate=2e-3)
    before = accuracy(model, test_data)
    kr.analyze(model, tau=0.5).render()

    cuts = {f"tau = {tau:g}": {"tau": tau} for tau in args.tau}
    for share in args.target:
        cuts[f"{share:.0%}, with data"] = {
            "target": {"flops": share},
            "data": train_data[0],
        }
    rows, smaller = [], []
    for cut, options in cuts.items():
        small = kr.prune(model, **options)
        pruned = accuracy(small, test_data)
        print(f"\n{cut}: {pruned:.2f} % after pruning, fine-tuning:")
        train(small, train_data, tune, rate=5e-4)
        smaller.append(small)
        rows.append((cut, small, pruned, accuracy(small, test_data)))

    print("\nMeasuring latency")
    times = latencies([model, *smaller], test_data[0][0])
    table = [
        (
            "-",
            model.count_params(),
            kr.flops(model),
            *times[0],
            before,
            None,
            None,
        )
    ] + [
        (cut, s.count_params(), kr.flops(s), *t, before, pruned, tuned)
        for (cut, s, pruned, tuned), t in zip(rows, times[1:], strict=True)
    ]
    title = (
        f"{args.dataset}, test set, seed {args.seed}, {epochs} epochs, "
        f"{tune} to fine-tune"
    )
    print(f"\n{Table(title, HEADER, table)}")

    smaller[-1].save(args.out)
    size = args.out.stat().st_size / 1e6
    print(f"saved {args.out} ({size:.2f} MB with the optimizer's state)")
    open_without_this_package(args.out, shape)


if __name__ == "__main__":
    main()
