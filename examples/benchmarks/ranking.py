"""What does ranking the units of a space by what is computed from them cost?

Times `rank_by_outputs` on spaces of the sizes of well-known networks, against
the bare products C W of every reader's covariance and kernel, without which
no unit can be judged. Both are taken in turn, and the least of several times
counts, so that the ratio says little of what else the machine does. Both run in
one thread, as everything does that the package computes with NumPy.

    python examples/benchmarks/ranking.py
    python examples/benchmarks/ranking.py --quick
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from keras_redundancy._shared.threads import one_thread
from keras_redundancy.numbers.ranking import (
    Readout,
    rank_by_outputs,
    reading_factor,
)

# Units, readers, outputs of each.
SPACES = {
    "ResNet50, last stream": (2048, 4, 512),
    "ResNet50, third stream": (1024, 6, 256),
    "MobileNetV2, expanded": (960, 1, 160),
    "VGG16, 3x3 kernel": (512, 1, 9 * 512),
    "ConvNeXtTiny, stage 3": (384, 9, 1536),
    "DenseNet121, growth": (32, 24, 128),
}


def independent(rng, rows, n):
    return rng.standard_normal((rows, n))


def behind_relu(rng, rows, n):
    """Combinations of few directions, and noise, behind a ReLU."""
    rank = max(n // 8, 2)
    directions = rng.standard_normal((rank, n)) / np.sqrt(rank)
    x = rng.standard_normal((rows, rank)) @ directions
    return np.maximum(x + 0.3 * rng.standard_normal((rows, n)), 0)


def decaying(rng, rows, n):
    """Variances that fall like 1 / k^2, as those of images do."""
    turn = np.linalg.qr(rng.standard_normal((n, n)))[0]
    x = rng.standard_normal((rows, n)) * n / np.arange(1, n + 1)
    return np.maximum(x @ turn + 0.3, 0)


KINDS: dict[str, Callable] = {
    "independent": independent,
    "behind ReLU": behind_relu,
    "decaying": decaying,
}


def readers_of(kind: str, n: int, readers: int, outputs: int) -> list[Readout]:
    """What `readers` compute from n units, with random kernels."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(readers):
        x = KINDS[kind](rng, 2 * n, n)
        x -= x.mean(axis=0)
        kernel = rng.standard_normal((n, outputs))
        found.append(Readout(x.T @ x / len(x), reading_factor([kernel])))
    return found


def seconds(task: Callable) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def products(readers: list[Readout]) -> None:
    for reader in readers:
        reader.covariance @ reader.weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument(
        "--quick", action="store_true", help="the smallest one, once"
    )
    arguments = parser.parse_args()
    repeats = 1 if arguments.quick else arguments.repeats
    print("space                   activations    products   ranking   ratio")
    for name, space in SPACES.items():
        if arguments.quick and space[0] > 128:
            continue
        for kind in arguments.kind or KINDS:
            readers, bare, ours = readers_of(kind, *space), [], []
            with one_thread():
                for _ in range(repeats):
                    bare.append(seconds(lambda r=readers: products(r)))
                    ours.append(seconds(lambda r=readers: rank_by_outputs(r)))
            least, time_taken = min(bare), min(ours)
            print(
                f"{name:24}{kind:12}{least * 1e3:9.1f} ms{time_taken:8.2f} s"
                f"{time_taken / least:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
