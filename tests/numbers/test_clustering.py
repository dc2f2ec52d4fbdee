"""Clusters of filters, against SciPy and against their definition."""

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy.cluster.hierarchy import fcluster, linkage as scipy_linkage
from scipy.spatial.distance import pdist

from keras_redundancy.numbers import agglomeration, clustering, similarity
from keras_redundancy.numbers.clustering import cluster_filters

LINKAGES = ["average", "complete", "single"]
REPRODUCIBLE = settings(deadline=None, derandomize=True, max_examples=60)


def labels_in_order(labels):
    seen = {}
    return [seen.setdefault(label, len(seen)) for label in labels]


def scipy_tree(W, linkage):
    return scipy_linkage(pdist(np.asarray(W, float).T, "cosine"), linkage)


def scipy_clusters(W, tau, linkage):
    tree = scipy_tree(W, linkage)
    return labels_in_order(fcluster(tree, 1 - tau + 1e-9, "distance"))


def filters_around_centres(rng, z, n, dtype=np.float64):
    """Filters in clusters of several widths, some of them in pairs."""
    centres = rng.standard_normal((z, max(1, n // 4)))
    W = centres[:, rng.integers(0, centres.shape[1], n)]
    W = W + rng.uniform(0, 1.5, n) * rng.standard_normal((z, n))
    return W.astype(dtype)


def plant_duplicates(rng, W, count):
    """Copies of columns of `W` after its own, at other scales."""
    sources = rng.integers(0, W.shape[1], count)
    scales = rng.choice([1, 1, 0.37, 100], count)
    copies = W[:, sources] * scales
    return np.hstack([W, copies.astype(W.dtype)]), sources


@st.composite
def kernels(draw, dtypes=(np.float32, np.float64)):
    """A kernel matrix with duplicates, and where their originals are."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z, n = draw(st.integers(2, 40)), draw(st.integers(2, 60))
    dtype = draw(st.sampled_from(dtypes))
    W = filters_around_centres(rng, z, n, dtype)
    return plant_duplicates(rng, W, draw(st.integers(0, 6)))


@pytest.fixture
def lower_limits(monkeypatch):
    """Make small layers take the ways of wide ones."""

    def lower(dense=1, scipy_units=1, chain_units=0, block=64, shared=4):
        monkeypatch.setattr(clustering, "DENSE_UNITS", dense)
        monkeypatch.setattr(agglomeration, "LINKAGE_UNITS", scipy_units)
        size = chain_units**2 * 8
        monkeypatch.setattr(agglomeration, "CHAIN_BYTES", size)
        monkeypatch.setattr(agglomeration, "UNITS_PER_CALL", shared)
        monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", block)

    return lower


def is_clear_cut(tree, tau, margin=1e-4):
    """Whether rounding can neither move a merge nor swap two of them."""
    heights = np.sort(tree[:, 2])
    gaps = np.diff(heights[heights > margin])
    return np.abs(heights - (1 - tau)).min() > margin and (gaps > 2e-6).all()


@given(kernel=kernels(), tau=st.floats(0.02, 0.98))
@pytest.mark.parametrize("linkage", LINKAGES)
@REPRODUCIBLE
def test_clusters_are_those_of_scipy(linkage, kernel, tau):
    W, _ = kernel
    assume(is_clear_cut(scipy_tree(W, linkage), tau))
    found = cluster_filters(W, tau, linkage)
    assert found.dtype.kind == "i"
    assert found.tolist() == scipy_clusters(W, tau, linkage)


@given(kernel=kernels(), tau=st.floats(0.02, 1))
@REPRODUCIBLE
def test_duplicates_always_share_a_cluster(kernel, tau):
    W, sources = kernel
    for linkage in LINKAGES:
        labels = cluster_filters(W, tau, linkage)
        copies = labels[W.shape[1] - len(sources) :]
        np.testing.assert_array_equal(copies, labels[sources])


@pytest.mark.parametrize("tau", [0.999999, 1.0])
@pytest.mark.parametrize("kind", ["normal", "constant", "signs", "heavy"])
@pytest.mark.parametrize("z", [4, 576, 25088])
def test_duplicates_are_found_and_others_are_not(z, kind, tau):
    rng = np.random.default_rng(z)
    n = 24
    W = {
        "normal": lambda: rng.standard_normal((z, n)),
        "constant": lambda: np.ones((z, 1)),
        "signs": lambda: np.sign(rng.standard_normal((z, 1))),
        "heavy": lambda: rng.standard_cauchy((z, n)),
    }[kind]().astype(np.float32)
    n = W.shape[1]
    W = np.hstack([W, W, W])
    W[:, n:] *= rng.uniform(0.01, 10, 2 * n).astype(np.float32)
    expected = np.tile(np.arange(n), 3)
    for linkage in LINKAGES:
        labels = cluster_filters(W, tau, linkage)
        np.testing.assert_array_equal(labels, expected)


def test_near_duplicates_are_told_apart_in_float32():
    # Similarities of 1 - 2e-6 and 1 - 5e-7, near float32's own rounding.
    W = np.zeros((500, 3), np.float32)
    W[0] = 1
    W[1] = [0, 2e-3, 3e-3]
    assert cluster_filters(W, 1 - 1e-6, "single").tolist() == [0, 1, 1]
    assert cluster_filters(W, 1 - 3e-6, "single").tolist() == [0, 0, 0]
    assert cluster_filters(W, 1.0).tolist() == [0, 1, 2]


def average_similarity(S, first, second):
    return S[np.ix_(first, second)].mean()


def smallest_similarity(S, first, second):
    return S[np.ix_(first, second)].min()


def can_be_built(S, members, tau, between):
    """Whether greedy merges at or above `tau` build a cluster.

    Greedy in one order: the closest pair first, as all the algorithms do, up
    to ties. All orders of ties are tried for up to a few.
    """
    stack = [tuple((int(unit),) for unit in members)]
    seen = set()
    while stack:
        parts = stack.pop()
        if len(parts) == 1:
            return True
        if parts in seen or len(seen) > 3000:
            continue
        seen.add(parts)
        pairs = [
            (between(S, parts[i], parts[j]), i, j)
            for i in range(len(parts))
            for j in range(i)
        ]
        best = max(pairs)[0]
        if best < tau - 1e-9:
            continue
        for value, i, j in pairs:
            if value >= best - 1e-9:
                rest = [p for k, p in enumerate(parts) if k not in (i, j)]
                joined = tuple(sorted(parts[i] + parts[j]))
                stack.append(tuple(sorted([*rest, joined])))
    return False


@given(
    seed=st.integers(0, 2**32 - 1),
    z=st.integers(2, 4),
    n=st.integers(2, 14),
    tau=st.sampled_from([0.25, 0.5, 0.6, 0.75, 0.9]),
    is_wide=st.booleans(),
)
@pytest.mark.parametrize(
    ("linkage", "between"),
    [("average", average_similarity), ("complete", smallest_similarity)],
)
@REPRODUCIBLE
def test_ties_are_broken_validly(linkage, between, seed, z, n, tau, is_wide):
    W = np.random.default_rng(seed).integers(-1, 2, (z, n)).astype(float)
    W = W[:, W.any(axis=0)]
    assume(W.shape[1] > 0)
    with pytest.MonkeyPatch.context() as patch:
        if is_wide:
            patch.setattr(clustering, "DENSE_UNITS", 1)
            patch.setattr(agglomeration, "LINKAGE_UNITS", 1)
            patch.setattr(agglomeration, "CHAIN_BYTES", 8 * 9)
        labels = cluster_filters(W, tau, linkage)
    S = similarity.cosine_similarity(W)
    members = [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]
    for index, first in enumerate(members):
        assert can_be_built(S, first, tau, between)
        for second in members[:index]:
            assert between(S, first, second) < tau + 1e-9


@given(
    seed=st.integers(0, 2**32 - 1),
    z=st.integers(2, 4),
    n=st.integers(2, 30),
    tau=st.sampled_from([0.25, 0.5, 0.6, 0.75, 0.9, 1.0]),
)
@REPRODUCIBLE
def test_single_linkage_is_scipys_even_with_ties(seed, z, n, tau):
    W = np.random.default_rng(seed).integers(-1, 2, (z, n)).astype(float)
    W = W[:, W.any(axis=0)]
    assume(W.shape[1] > 1)
    found = cluster_filters(W, tau, "single")
    assert found.tolist() == scipy_clusters(W, tau, "single")


@given(kernel=kernels(), zeros=st.integers(1, 3), tau=st.floats(1e-9, 1))
@pytest.mark.parametrize("is_wide", [False, True])
@REPRODUCIBLE
def test_zero_filters_form_their_own_cluster(is_wide, kernel, zeros, tau):
    W, _ = kernel
    where = np.linspace(0, W.shape[1], zeros).astype(int)
    with_zeros = np.insert(W, where, 0, axis=1)
    is_zero = ~with_zeros.any(axis=0)
    with pytest.MonkeyPatch.context() as patch:
        if is_wide:
            patch.setattr(clustering, "DENSE_UNITS", 1)
        labels = cluster_filters(with_zeros, tau)
        expected = cluster_filters(W, tau)
    assert len(set(labels[is_zero])) == 1
    assert set(labels[is_zero]).isdisjoint(labels[~is_zero])
    assert labels_in_order(labels[~is_zero]) == expected.tolist()


@given(kernel=kernels(dtypes=[np.float64]), tau=st.floats(0.02, 1))
@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"scipy_units": 10**4}, id="components"),
        pytest.param({"chain_units": 10**4}, id="chain"),
        pytest.param({"chain_units": 5}, id="rounds then chain"),
        pytest.param({"chain_units": 0}, id="rounds"),
        pytest.param({"block": 10**6, "chain_units": 9}, id="one block"),
    ],
)
@settings(
    REPRODUCIBLE,
    max_examples=25,
    suppress_health_check=["function_scoped_fixture"],
)
def test_wide_layers_cluster_like_others(
    lower_limits, limits, linkage, kernel, tau
):
    W, _ = kernel
    assume(tau == 1 or is_clear_cut(scipy_tree(W, linkage), tau))
    lower_limits(dense=10**6, scipy_units=10**6)
    expected = cluster_filters(W, tau, linkage)
    lower_limits(**limits)
    np.testing.assert_array_equal(cluster_filters(W, tau, linkage), expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 60),
    tau=st.floats(0.8, 1),
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("linkage", LINKAGES)
@settings(REPRODUCIBLE, max_examples=25)
def test_sketches_change_no_clusters(linkage, dtype, seed, n, tau):
    rng = np.random.default_rng(seed)
    W = filters_around_centres(rng, 400, n, dtype)
    W[:, ::3] *= 10.0 ** rng.integers(-3, 3, n)[::3]
    W, _ = plant_duplicates(rng, W, 6)
    assume(tau > 0.999 or is_clear_cut(scipy_tree(W, linkage), tau))
    expected = cluster_filters(W, tau, linkage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustering, "SKETCHED_UNITS", 1)
        patch.setattr(clustering, "SKETCHED_SHARE", 1)
        assert clustering._cluster_by_sketches(W, tau, linkage) is not None
        found = cluster_filters(W, tau, linkage)
    np.testing.assert_array_equal(found, expected)


def test_every_way_of_wide_layers_is_taken(lower_limits, monkeypatch):
    taken = set()
    for name in ("cut_by_chain", "cut_by_means", "cut_dendrogram"):
        original = getattr(agglomeration, name)

        def note(*arguments, name=name, original=original):
            taken.add(name)
            return original(*arguments)

        monkeypatch.setattr(agglomeration, name, note)
    lower_limits(scipy_units=6)
    rng = np.random.default_rng(0)
    W = np.zeros((30, 40))
    W[:15, :30] = rng.standard_normal((15, 30))
    W[15:, 30:] = filters_around_centres(rng, 15, 10)
    # Three filters in a row, the ends of which are far apart.
    for linkage in LINKAGES:
        cluster_filters(W, 0.05, linkage)
    row = np.array([[1, 1, 0.0], [0, 1, 1]])
    assert cluster_filters(row, 0.7).tolist() == [0, 0, 1]
    assert taken == {"cut_by_chain", "cut_by_means", "cut_dendrogram"}


def test_star_of_filters_in_rounds(lower_limits):
    rng = np.random.default_rng(1)
    W = rng.standard_normal((50, 1))
    W = W + np.geomspace(0.05, 10, 60) * rng.standard_normal((50, 60))
    for tau in (0.1, 0.5, 0.9):
        lower_limits(chain_units=0)
        labels = cluster_filters(W, tau)
        assert labels.tolist() == scipy_clusters(W, tau, "average")


def test_smallest_layers():
    assert cluster_filters([[2.0]], 0.5).tolist() == [0]
    assert cluster_filters([[0.0]], 0.5).tolist() == [0]
    assert cluster_filters([[1], [2]], 1).tolist() == [0]
    assert cluster_filters([[1.0, -1, 0, 3, -5]], 1).tolist() == [
        *[0, 1, 2, 0, 1]
    ]
    assert cluster_filters(np.eye(3), 1e-9).tolist() == [0, 1, 2]


def test_tau_is_inclusive():
    W = np.array([[1, 1.0], [0, np.sqrt(3)]])
    for dtype in (np.float32, np.float64):
        assert cluster_filters(W.astype(dtype), 0.5).tolist() == [0, 0]
        assert cluster_filters(W.astype(dtype), 0.50001).tolist() == [0, 1]
    assert cluster_filters(W, np.float32(0.5)).tolist() == [0, 0]


@pytest.mark.parametrize("tau", [0.5, 1])
def test_kernel_is_not_modified(lower_limits, tau):
    W = filters_around_centres(np.random.default_rng(0), 10, 30, np.float32)
    before = W.copy()
    cluster_filters(W, tau)
    lower_limits()
    cluster_filters(W, tau)
    np.testing.assert_array_equal(W, before)


@pytest.mark.parametrize("tau", [0, -0.5, 1.0001, np.nan, np.inf, 2])
def test_tau_out_of_range_is_refused(tau):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        cluster_filters(np.eye(2), tau)


@pytest.mark.parametrize("tau", [True, np.True_, "0.9", None, 1j, [0.9]])
def test_tau_that_is_no_number_is_refused(tau):
    with pytest.raises(TypeError, match=r"\(0, 1\]"):
        cluster_filters(np.eye(2), tau)


@pytest.mark.parametrize("linkage", ["ward", None, "Average"])
def test_unknown_linkage_is_refused(linkage):
    message = "'average', 'complete', 'single'"
    with pytest.raises(ValueError, match=message):
        cluster_filters(np.eye(2), 0.9, linkage)


@pytest.mark.parametrize("is_wide", [False, True])
def test_broken_filters_are_named(lower_limits, is_wide):
    if is_wide:
        lower_limits(block=2)
    W = np.ones((2, 7))
    W[0, 5] = np.nan
    with pytest.raises(ValueError, match="units 5 hold NaN or infinity"):
        cluster_filters(W, 0.9)


def test_wrong_matrices_are_named():
    with pytest.raises(ValueError, match=r"W has shape \(3,\)"):
        cluster_filters(np.ones(3), 0.9)
    with pytest.raises(TypeError, match=r"W has dtype <U1"):
        cluster_filters([["a"]], 0.9)
    with pytest.raises(ValueError, match="nothing to compare"):
        cluster_filters(np.ones((3, 0)), 0.9)
