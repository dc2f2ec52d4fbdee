"""Positions that are padded do not count in the moments."""

import keras
import numpy as np
from keras import layers

import keras_redundancy as kr

RANDOM = np.random.default_rng(0)


def test_padded_positions_do_not_count():
    keras.utils.set_random_seed(0)
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    x = layers.Embedding(20, 8)(ids)
    attended = keras.ops.cast(mask[:, None], "bool")
    x = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=attended)
    x = layers.Dense(3)(layers.Dense(12, "relu", name="wide")(x))
    model = keras.Model({"token_ids": ids, "padding_mask": mask}, x)
    lengths = RANDOM.integers(2, 7, 40)
    data = {
        "token_ids": RANDOM.integers(1, 20, (40, 7)),
        "padding_mask": (np.arange(7) < lengths[:, None]).astype("int32"),
    }

    def means(data):
        views = kr.calibrate(model, data).statistics.views.values()
        found = [view for each in views for view in each]
        return [(x.moments.count, x.moments.mean) for x in found]

    wanted = means(data)
    other = data["token_ids"].copy()
    other[data["padding_mask"] == 0] = 0
    found = means(data | {"token_ids": other})
    for (count, mean), (its_count, its_mean) in zip(wanted, found, strict=True):
        assert count == its_count == lengths.sum()
        np.testing.assert_allclose(mean, its_mean, atol=1e-6)
