"""Batches in pieces: how large these are, and that nothing else changes."""

import math
import types

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration import observer, pieces
from keras_redundancy.calibration.pieces import pieces_of, samples_at_once
from tests import models


def images_model(size=8, batch=None):
    inputs = keras.Input(batch_shape=(batch, size, size, 2))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    return models.randomized(keras.Model(inputs, x))


@pytest.mark.parametrize("size", [8, None])
def test_the_largest_tensor_says_how_large_pieces_are(size, monkeypatch):
    inner = images_model(size)
    inputs = keras.Input((size, size, 2))
    batch = [np.zeros((30, 8, 8, 2), "float32")]
    each = 8 * 8 * 6 * 4
    for model in (inner, keras.Model(inputs, inner(inputs))):
        for samples, wanted in ((3, 5), (14, 10), (15, 15)):
            monkeypatch.setattr(pieces, "LARGEST", samples * each)
            assert samples_at_once(model, batch) == wanted


def test_where_tensors_are_kept_all_of_them_count(monkeypatch):
    batch = [np.zeros((30, 8, 8, 2), "float32")]
    total = 4 * (8 * 8 * 2 + 8 * 8 * 6 + 6 * 6 * 4 + 4)
    for samples, wanted in ((3, 5), (14, 10), (15, 15)):
        monkeypatch.setattr(pieces, "KEPT", samples * total)
        assert samples_at_once(images_model(), batch, keeps_all=True) == wanted


def test_batches_of_a_fixed_size_stay_whole(monkeypatch):
    monkeypatch.setattr(pieces, "LARGEST", 1)
    batch = [np.zeros((10, 8, 8, 2), "float32")]
    assert samples_at_once(images_model(batch=10), batch) == math.inf
    assert list(pieces_of(batch, math.inf)) == [batch]


@pytest.mark.parametrize(
    ("size", "wanted"), [(9, [9]), (10, [5, 5]), (19, [5, 5, 9])]
)
def test_no_piece_is_smaller_than_was_said(size, wanted):
    x = np.arange(size)
    found = list(pieces_of([x, None], 5))
    assert [len(a) for a, _ in found] == wanted
    np.testing.assert_array_equal(np.concatenate([a for a, _ in found]), x)
    assert all(b is None for _, b in found)


@pytest.mark.parametrize("batch_size", [64, 23])
def test_moments_are_those_of_whole_batches(batch_size, monkeypatch):
    """The same samples are held out, at the same positions."""
    model = images_model(size=20)
    data = models.random_inputs(model, batch=64)
    run, seen = observer._keras.predict_on_replicas, []

    def noted(model, parts):
        seen.extend(len(inputs[0]) for inputs in parts)
        return run(model, parts)

    monkeypatch.setattr(observer._keras, "predict_on_replicas", noted)
    whole = kr.calibrate(model, data, batch_size=batch_size)
    assert max(seen) == batch_size
    seen.clear()
    monkeypatch.setattr(pieces, "LARGEST", 5 * 20 * 20 * 6 * 4)
    cut = kr.calibrate(model, data, batch_size=batch_size)
    assert max(seen) < 10
    for one, other in zip(*(views_of(x) for x in (whole, cut)), strict=True):
        for side in ("fitted", "held_out"):
            a, b = getattr(one.divided, side), getattr(other.divided, side)
            assert a.count == b.count
            np.testing.assert_allclose(a.mean, b.mean, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(
                a.covariance, b.covariance, rtol=1e-3, atol=1e-6
            )


def views_of(known):
    return [view for of in known.statistics.views.values() for view in of]


@pytest.mark.parametrize(
    ("samples", "batches", "most", "returned", "is_short"),
    [
        (64, 2, 100, 0, True),
        (320, 10, 100, 0, False),
        (100, 4, 10, 0, True),  # ten pieces of large images
        (110, 4, 10, 0, False),
        (300, 1, 10, 0, False),
        (320, 10, 100, 2**26, True),  # large statistics
    ],
)
def test_when_compiling_does_not_pay(
    samples, batches, most, returned, is_short
):
    run = types.SimpleNamespace(samples=samples, returned=returned)
    first = [[np.zeros(samples // batches)]] * min(batches, 3)
    assert observer._is_short(run, first, most) is is_short
