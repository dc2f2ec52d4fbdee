"""How widely cosines and norms are spread."""

import numpy as np
import pytest
from scipy import stats

from keras_redundancy.numbers import similarity
from keras_redundancy.numbers.spread import cosine_kurtosis, norm_spread


@pytest.mark.parametrize("block", [7, similarity.BLOCK_ELEMENTS])
def test_kurtosis_is_that_of_all_pairs(block, monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", block)
    W = np.random.default_rng(0).normal(size=(9, 20)).astype("float32")
    W[:, 5] = 2 * W[:, 3]  # duplicates make the tail
    cosines = similarity.cosine_similarity(W)[np.triu_indices(20, 1)]
    expected = stats.kurtosis(cosines.astype(float), fisher=False)
    assert cosine_kurtosis(W) == pytest.approx(expected, rel=1e-5)


def test_there_is_no_kurtosis_of_equal_cosines():
    assert cosine_kurtosis(np.eye(4)) is None
    assert cosine_kurtosis(np.ones((3, 2))) is None


def test_norms_of_all_and_within_clusters():
    W = np.array([[3.0, 1, 2, 0], [0, 0, 0, 5]])
    assert norm_spread(W) == pytest.approx(
        np.std([3, 1, 2, 5]) / np.mean([3, 1, 2, 5])
    )
    # The fourth is alone.
    within = norm_spread(W, np.array([0, 0, 0, 1]))
    assert within == pytest.approx(np.std([3, 1, 2]) / 2)
    assert norm_spread(W, np.arange(4)) == 0
    with pytest.raises(ValueError, match="W has 4 units"):
        norm_spread(W, np.arange(3))
