"""TensorFlow's functions that layers call on symbols."""

import keras
import numpy as np
import pytest

from keras_redundancy._keras.tf_functions import tf_functions_recorded
from tests import models

BY_TENSORFLOW = keras.backend.backend() == "tensorflow"
pytestmark = pytest.mark.skipif(not BY_TENSORFLOW, reason="TensorFlow only")


@pytest.mark.parametrize(
    "options", [{"axis": 1}, {"batch_dims": 2}, {"batch_dims": 1, "axis": 2}]
)
def test_gather_is_recorded(options):
    import tensorflow as tf

    rng, before = np.random.default_rng(0), tf.gather
    x, y = keras.Input((4, 5)), keras.Input((4, 3), dtype="int32")
    arrays = [rng.normal(size=(2, 4, 5)), rng.integers(0, 4, (2, 4, 3))]
    with tf_functions_recorded():
        if options.get("batch_dims") == 1:
            with pytest.raises(NotImplementedError, match="batch_dims=1"):
                tf.gather(x, y, **options)
            return
        model = keras.Model([x, y], tf.gather(x, y, **options))
        wanted = tf.gather(*arrays, **options)
    found = models.numpy(model(arrays))
    np.testing.assert_allclose(found, models.numpy(wanted), rtol=1e-6)
    assert tf.gather is before
