"""Progress bars: who draws them, and how far they go."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy._shared.progress import progress, showing, tracked
from tests import models


def test_a_bar_is_drawn_in_a_block_that_shows_bars(capsys):
    assert list(tracked("abc", "letter")) == list("abc")
    assert not capsys.readouterr().out
    with showing(True):
        list(tracked("abc", "letter"))
        with showing(False):
            list(tracked("de", "letter"))
    drawn = capsys.readouterr().out
    assert "3/3" in drawn
    assert "2/2" not in drawn


def test_a_bar_of_an_unknown_count_ends_at_the_count(capsys):
    with progress(True, None, "batch") as done:
        for _ in range(5):
            done()
    assert "5/5" in capsys.readouterr().out.split("\r")[-1]


@pytest.mark.parametrize("how", [{"ratio": 0.4}, {"target": {"flops": 0.5}}])
def test_all_that_takes_long_has_a_bar(how, capsys):
    """Batches of the calibration, spaces, and layers that are mended."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu")(inputs)
    x = layers.Dense(9, activation="relu")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    data = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    options = {"data": data, "batch_size": 10, **how}
    kr.prune(model, **options)
    assert not capsys.readouterr().out
    kr.prune(model, **options, verbose=True)
    drawn = capsys.readouterr().out
    for step in ("batch", "space", "layer"):
        assert f"s/{step}" in drawn
    kr.calibrate(model, data, batch_size=10, verbose=True)
    assert "5/5" in capsys.readouterr().out
