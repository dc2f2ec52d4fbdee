"""What do very wide layers cost, in time and in memory?

Clusters layers whose similarity matrix would be too large to hold. Each case
runs in a process of its own, so that its peak memory is its own; the peak
includes Python, the packages and the layer itself.

    python examples/benchmarks/wide_layers.py
    python examples/benchmarks/wide_layers.py --quick
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

# Name: units, weights of a unit, kind of filters, tau.
CASES = {
    "planted": (16_384, 4_096, "planted", 0.8),
    "giant": (16_384, 4_096, "random", 0.01),
    "giant hub": (16_384, 4_096, "common direction", 0.3),
    "wider": (65_536, 1_024, "planted", 0.8),
}
QUICK_CASES = {
    "planted": (6_144, 512, "planted", 0.8),
    "giant": (9_000, 256, "random", 0.01),
}


def filters(kind: str, z: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A float32 kernel matrix ``(z, n)`` and the planted cluster of each."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((z, n), np.float32)
    planted = np.arange(n)
    if kind == "planted":
        # Similarity to the others of a cluster of four: 0.88 on average.
        planted = rng.permutation(n) // 4
        for row in W:
            row *= 0.36
            row += rng.standard_normal(n // 4, np.float32)[planted]
    elif kind == "common direction":
        W += rng.standard_normal((z, 1), np.float32)
    return W, planted


def run_case(n: int, z: int, kind: str, tau: float) -> None:
    """Cluster one layer in this process and print a row of the table."""
    from keras_redundancy.numbers.clustering import cluster_filters

    W, planted = filters(kind, z, n)
    start = time.perf_counter()
    labels = cluster_filters(W, tau)
    seconds = time.perf_counter() - start
    clusters = labels.max() + 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    verdict = ""
    if kind == "planted":
        pairs = np.unique(np.stack([labels, planted]), axis=1).shape[1]
        is_right = pairs == clusters == planted.max() + 1
        verdict = "as planted" if is_right else "NOT AS PLANTED"
    print(
        f"{clusters:8d}  {seconds:7.1f} s  {peak / 1e9:5.2f} GB  {verdict}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small layers")
    parser.add_argument("--case", help="run only this one, in this process")
    arguments = parser.parse_args()
    cases = QUICK_CASES if arguments.quick else CASES
    if arguments.case:
        run_case(*cases[arguments.case])
        return
    print("case        units  weights   tau  clusters       time      peak")
    for name, (n, z, _, tau) in cases.items():
        print(f"{name:10s} {n:6d}  {z:7d}  {tau:4g}", end="  ", flush=True)
        command = [sys.executable, __file__, "--case", name]
        if arguments.quick:
            command.append("--quick")
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
