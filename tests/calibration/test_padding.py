"""Positions that are padded do not count in the moments, nor in the fits."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr

RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(2, 7, 40)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    x = layers.Embedding(20, 8)(ids)
    attended = keras.ops.cast(mask[:, None], "bool")
    x = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=attended)
    x = layers.Dense(3)(layers.Dense(12, "relu", name="wide")(x))
    return keras.Model({"token_ids": ids, "padding_mask": mask}, x)


@pytest.fixture(scope="module")
def twice():
    """The same data, with other tokens at padded positions."""
    data = {
        "token_ids": RANDOM.integers(1, 20, (40, 7)),
        "padding_mask": (np.arange(7) < LENGTHS[:, None]).astype("int32"),
    }
    other = data["token_ids"].copy()
    other[data["padding_mask"] == 0] = 0
    return data, data | {"token_ids": other}


def test_padded_positions_do_not_count(model, twice):
    def means(data):
        views = kr.calibrate(model, data).statistics.views.values()
        found = [view for each in views for view in each]
        return [(x.moments.count, x.moments.mean) for x in found]

    for wanted, found in zip(*map(means, twice), strict=True):
        assert wanted[0] == found[0] == LENGTHS.sum()
        np.testing.assert_allclose(wanted[1], found[1], atol=1e-6)


def test_kernels_are_not_fitted_to_padded_positions(model, twice):
    weights = [
        kr.prune(model, ratio=0.5, data=data).get_weights() for data in twice
    ]
    for wanted, found in zip(*weights, strict=True):
        np.testing.assert_allclose(wanted, found, atol=1e-5)


@pytest.fixture(scope="module")
def masked():
    keras.utils.set_random_seed(0)
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True)(ids)
    x = layers.Dense(12, "relu", name="wide")(x)
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, "relu")(x))
    return keras.Model(ids, layers.Dense(3)(x))


def padded(length):
    ids = np.random.default_rng(1).integers(1, 20, (40, 7))
    ids[np.arange(7) >= LENGTHS[:, None]] = 0
    return np.pad(ids, [(0, 0), (0, length - 7)])


def test_masks_of_keras_count(masked):
    def means(data):
        views = kr.calibrate(masked, data).statistics.views.values()
        found = [view for each in views for view in each]
        return [(x.moments.count, x.moments.mean) for x in found]

    found = zip(*map(means, (padded(7), padded(12))), strict=True)
    counts = set()
    for one, other in found:
        assert one[0] == other[0]
        counts.add(int(one[0]))
        np.testing.assert_allclose(one[1], other[1], atol=1e-6)
    assert counts == {LENGTHS.sum(), 40}


def test_kernels_are_not_fitted_where_keras_masks(masked):
    weights = [
        kr.prune(masked, ratio=0.5, data=padded(n)).get_weights()
        for n in (7, 12)
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


class OfManyLengths(keras.utils.PyDataset):
    """Batches of other lengths, each with few positions that count."""

    def __init__(self, padded_with):
        super().__init__()
        self.padded_with = padded_with

    def __len__(self):
        return 6

    def __getitem__(self, number):
        rng, length = np.random.default_rng(number), 10 + 2 * number
        mask = np.arange(length) < rng.integers(1, 4, (20, 1))
        ids = np.where(mask, rng.integers(1, 20, mask.shape), self.padded_with)
        return ({"token_ids": ids, "padding_mask": mask.astype("int32")},)


def test_padded_positions_do_not_count_in_batches_of_many_lengths(model):
    def means(padded_with):
        data = OfManyLengths(padded_with)
        views = kr.calibrate(model, data).statistics.views.values()
        found = [view for each in views for view in each]
        return [(x.moments.count, x.moments.mean) for x in found]

    for wanted, found in zip(means(1), means(2), strict=True):
        assert wanted[0] == found[0] > 0
        np.testing.assert_allclose(wanted[1], found[1], atol=1e-6)


def test_a_mask_that_is_not_given_masks_nothing():
    inputs = keras.Input((5, 4), name="x")
    mask = keras.Input((5,), name="padding_mask", optional=True)
    x = layers.Dense(8)(layers.Dense(12, "relu")(inputs))
    model = keras.Model([inputs, mask], layers.Dense(2)(OfMask()(x, mask)))
    data = [RANDOM.normal(size=(20, 5, 4)).astype("float32"), None]
    views = kr.calibrate(model, data).statistics.views.values()
    assert {x.moments.count for each in views for x in each} == {100}


class OfMask(layers.Layer):
    """Sets what is padded to 0, if there is a mask."""

    def call(self, x, mask=None):
        return x if mask is None else x * mask[..., None]

    def compute_output_spec(self, x, mask=None):
        return keras.KerasTensor(x.shape, x.dtype)
