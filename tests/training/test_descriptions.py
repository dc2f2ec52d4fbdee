"""Words that say what a computation began with."""

import functools
import json

import keras
import numpy as np
import pytest
import scipy.sparse
from keras import layers

from keras_redundancy.training import descriptions
from keras_redundancy.training.descriptions import (
    describe,
    differences,
    words_of_model,
)


def scaled(by):
    return lambda x: x * by


VALUES = {
    "none": None,
    "number": 0.1,
    "array": np.arange(6.0).reshape(2, 3),
    "other dtype": np.arange(6.0, dtype="float32").reshape(2, 3),
    "other shape": np.arange(6.0),
    "other content": np.arange(6.0)[::-1].reshape(2, 3),
    "strings": np.array(["a", "b"], object),
    "sparse": scipy.sparse.csr_matrix(np.eye(3)),
    "other sparse": scipy.sparse.csr_matrix(2 * np.eye(3)),
    "list": [1, "two", (3.0, None)],
    "function": scaled,
    "lambda": lambda x: 2 * x,
    "other lambda": lambda x: 3 * x,
    "nested lambda": lambda x: map(lambda y: 2 * y, x),
    "other nested lambda": lambda x: map(lambda y: 3 * y, x),
    "partial": functools.partial(scaled, by=2),
    "other partial": functools.partial(scaled, by=3),
    "optimizer": keras.optimizers.SGD(0.1),
    "other rate": keras.optimizers.SGD(0.2),
    "generator": (x for x in ()),
    "object": object(),
}


def test_values_that_differ_have_other_words():
    words = [json.dumps(describe(value)) for value in VALUES.values()]
    assert len(set(words)) == len(VALUES)
    assert not any(" at 0x" in word for word in words)


def test_what_is_made_anew_has_the_same_words():
    for make in (
        lambda: keras.optimizers.Adam(1e-3, weight_decay=0.1),
        lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        lambda: {"x": np.ones((3, 2)), "of": [object(), scaled(2)]},
        lambda: keras.ops.ones((2, 3)),
    ):
        assert describe(make()) == describe(make())
    tensor = describe(keras.ops.ones((2, 3)))
    assert tensor == describe(np.ones((2, 3), "float32"))


def test_words_come_back_from_json():
    words = describe(VALUES)
    assert differences(json.loads(json.dumps(words)), words) == []


def test_some_rows_of_large_arrays_are_looked_at(monkeypatch):
    monkeypatch.setattr(descriptions, "MOST_BYTES", 80)
    x = np.zeros((100, 5))
    before = describe(x)
    assert describe(np.zeros((101, 5))) != before
    assert describe(x + 1) != before
    x[-1] = 1  # The first and the last are among them.
    assert describe(x) != before


def model(rate=0.1, name=None, seed=None, units=3):
    keras.utils.set_random_seed(0)
    found = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(units, name=name),
            layers.Dropout(rate, seed=seed),
            layers.Lambda(lambda x: 2 * x),
        ]
    )
    found.compile("sgd", "mse")
    return found


def test_names_and_seeds_do_not_tell_models_apart():
    before = words_of_model(model())
    assert words_of_model(model(name="other", seed=3)) == before


@pytest.mark.parametrize(
    ("options", "said"), [({"rate": 0.2}, "layers"), ({"units": 4}, "weights")]
)
def test_models_that_differ(options, said):
    found = differences(
        words_of_model(model()), words_of_model(model(**options))
    )
    assert any(words.startswith(f"{said} was ") for words in found)


def test_differences_name_each_part():
    before = {"a": {"b": 1, "c": "x"}, "d": [1, 2]}
    now = {"a": {"b": 2, "c": "x"}, "d": [1, 2], "e": "y" * 99}
    assert differences(before, now) == [
        "a['b'] was 1, is 2",
        f"e was not given, is {'y' * 57}...",
    ]
