"""What does `RedundancyMonitor` cost of an epoch?

    python examples/benchmarks/monitor.py
    python examples/benchmarks/monitor.py --dataset fashion_mnist --data FOLDER

Trains the quickstart's network with the monitor at its defaults, and prints
the time of an epoch, what the monitor took of it, and the share of that: the
median of the epochs but the first one.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import example_data
import keras
import numpy as np
import quickstart

import keras_redundancy as kr
from keras_redundancy._shared.tables import Table


class TimedMonitor(kr.callbacks.RedundancyMonitor):
    """Notes when epochs end, and the seconds that logging took in each."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.logged, self.ends = [], []

    def on_epoch_end(self, epoch, logs=None):
        start = time.perf_counter()
        super().on_epoch_end(epoch, logs)
        self.ends.append(time.perf_counter())
        self.logged.append(self.ends[-1] - start)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    example_data.add_arguments(parser)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    (x, y), _ = example_data.load(args.dataset, args.data)
    keras.utils.set_random_seed(0)
    model = quickstart.build(x.shape[1:], quickstart.WIDTHS[args.dataset])
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    with tempfile.TemporaryDirectory() as folder:
        monitor = TimedMonitor(folder)
        options = {"epochs": args.epochs, "callbacks": [monitor]}
        model.fit(x, y, 128, verbose=0, **options)
    epochs, logged = np.diff(monitor.ends), np.array(monitor.logged[1:])
    row = [
        f"quickstart, {args.dataset}",
        float(np.median(epochs)),
        float(np.median(logged)),
        f"{np.median(logged / (epochs - logged)):.2%}",
    ]
    header = ["network", "epoch, s", "of it the monitor, s", "share"]
    print(Table(f"On {keras.backend.backend()}", header, [row]))


if __name__ == "__main__":
    main()
