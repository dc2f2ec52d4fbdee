"""Values that JSON cannot hold become such that it can."""

import json

import keras
import numpy as np
import pytest

from keras_redundancy._shared.plain import plain


class Own:
    def __repr__(self):
        return "an object"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (3, 3),
        ("words", "words"),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (np.array(True), True),
        ((1, [np.int64(2)]), [1, [2]]),
        ({1: np.zeros(2)}, {"1": [0.0, 0.0]}),
        (Own(), "an object"),
    ],
)
def test_plain_values(value, expected):
    found = plain(value)
    assert found == expected
    assert json.loads(json.dumps(found)) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tensors(dtype):
    tensor = keras.ops.convert_to_tensor([[0.5, 2.0]], dtype)
    assert json.dumps(plain({"x": tensor})) == '{"x": [[0.5, 2.0]]}'
