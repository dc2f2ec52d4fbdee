"""What does clustering the filters of VGG-16 cost?

Times `cluster_filters` on kernel matrices of the shapes of VGG-16's 13
convolutions, against the bare products ``W.T @ W`` that any comparison of all
pairs needs, and against SciPy's own route (`pdist`, `linkage`, `fcluster`).
Checks that the clusters are SciPy's.

    python examples/benchmarks/clustering.py
    python examples/benchmarks/clustering.py --quick
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from keras_redundancy.numbers.clustering import cluster_filters

VGG16_SHAPES = [
    (27, 64),
    (576, 64),
    (576, 128),
    (1152, 128),
    (1152, 256),
    (2304, 256),
    (2304, 256),
    (2304, 512),
    *[(4608, 512)] * 5,
]
TAUS = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999999)


def random_filters(rng, z, n):
    return rng.standard_normal((z, n))


def common_direction(rng, z, n):
    return rng.standard_normal((z, n)) + rng.standard_normal((z, 1))


def low_rank(rng, z, n):
    rank = max(2, n // 16)
    signal = rng.standard_normal((z, rank)) @ rng.standard_normal((rank, n))
    return signal / np.sqrt(rank) + 0.1 * rng.standard_normal((z, n))


def planted_clusters(rng, z, n):
    centres = rng.standard_normal((z, max(2, n // 8)))
    member_of = rng.integers(0, centres.shape[1], n)
    spread = rng.uniform(0.1, 1, n)
    return centres[:, member_of] + spread * rng.standard_normal((z, n))


def star(rng, z, n):
    """Filters around one hub, at many different distances from it."""
    spread = np.geomspace(0.05, 10, n)
    return rng.standard_normal((z, 1)) + spread * rng.standard_normal((z, n))


KINDS: dict[str, Callable] = {
    "random": random_filters,
    "common direction": common_direction,
    "low rank + noise": low_rank,
    "planted clusters": planted_clusters,
    "star": star,
}


def products(matrices: list[np.ndarray]) -> None:
    for matrix in matrices:
        matrix.T @ matrix


def clusters_of(matrices: list[np.ndarray], tau: float) -> list[np.ndarray]:
    return [cluster_filters(matrix, tau) for matrix in matrices]


def seconds(task: Callable) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def are_same(labels: np.ndarray, others: np.ndarray) -> bool:
    """Whether two labellings split the units alike."""
    pairs = np.unique(np.stack([labels, others]), axis=1)
    counts = {pairs.shape[1], len(set(labels)), len(set(others))}
    return len(counts) == 1


def report_kind(kind: str, repeats: int) -> list[float]:
    """Print a table for one kind of filters; return the ratios."""
    rng = np.random.default_rng(0)
    matrices = [
        KINDS[kind](rng, z, n).astype(np.float32) for z, n in VGG16_SHAPES
    ]
    start = time.perf_counter()
    trees = [linkage(pdist(m.T, "cosine"), "average") for m in matrices]
    scipy_time = time.perf_counter() - start
    ratios = []
    print(f"\n{kind}: SciPy {scipy_time * 1e3:.0f} ms", flush=True)
    print("      tau  clusters  products      ours  ratio  vs SciPy  same")
    for tau in TAUS:
        labels = clusters_of(matrices, tau)
        cuts = [fcluster(tree, 1 - tau, "distance") for tree in trees]
        same = all(map(are_same, labels, cuts))
        bare, ours = [], []
        for _ in range(repeats):
            bare.append(seconds(lambda: products(matrices)))
            ours.append(seconds(lambda tau=tau: clusters_of(matrices, tau)))
        bare_median, median = statistics.median(bare), statistics.median(ours)
        ratios.append(median / bare_median)
        clusters = sum(len(set(found)) for found in labels)
        print(
            f"{tau:9g}  {clusters:8d}  {bare_median * 1e3:5.1f} ms"
            f"  {median * 1e3:5.1f} ms  {ratios[-1]:5.2f}"
            f"  {scipy_time / median:7.1f}x  {'yes' if same else 'NO'}",
            flush=True,
        )
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--quick", action="store_true", help="one kind, once")
    arguments = parser.parse_args()
    kinds = arguments.kind or list(KINDS)
    if arguments.quick:
        kinds = kinds[-1:]
    repeats = 1 if arguments.quick else arguments.repeats
    ratios = [ratio for kind in kinds for ratio in report_kind(kind, repeats)]
    print(
        f"\nTime over that of the bare products: median "
        f"{statistics.median(ratios):.2f}, worst {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
