"""What inputs of a regression are multiplied by."""

import numpy as np

from keras_redundancy.numbers.regression import scales


def test_variances_that_rounding_made_negative_count_as_none():
    np.testing.assert_array_equal(scales(np.array([0.0, -1e-20])), [0, 0])
    assert np.isfinite(scales(np.array([1.0, -1e-20]))).all()
