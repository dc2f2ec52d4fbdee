"""Data of unknown length, without an end, and the first steps of it."""

import itertools

import keras
import numpy as np
import pytest

import keras_redundancy as kr
from keras_redundancy.calibration import data as data_module
from keras_redundancy.mend.training_data import gathered
from tests import models
from tests.calibration.inputs import (
    X,
    arrays_of,
    assert_given,
    from_generator,
    one_input,
    tf_data,
)


@pytest.mark.parametrize(
    "kind",
    [
        lambda x: tf_data(x).filter(lambda row: row[0] < 99).batch(16),
        lambda x: tf_data(x).batch(12).unbatch().batch(16),
        lambda x: tf_data(x).batch(16).ignore_errors(),
        lambda x: tf_data((x, x)).filter(lambda a, b: a[0] < 99).batch(16),
        from_generator,
    ],
    ids=["filter", "unbatch", "ignore_errors", "targets", "from_generator"],
)
def test_tf_data_of_unknown_length(kind):
    model = one_input()
    assert_given(model, kind(X), X)
    small = kr.prune(model, ratio=0.25, data=kind(X))
    models.assert_same_function(
        small, kr.prune(model, ratio=0.25, data=X, batch_size=16)
    )


def endless():
    while True:
        yield X[:16]


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, number):
        return X[:16], X[:16]


ENDLESS = {
    "repeat": lambda: tf_data(X).batch(16).repeat(),
    "PyDataset": Endless,
    "PyDataset with threads": lambda: Endless(workers=2),
    "cycle": lambda: itertools.cycle([X[:16]]),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_data_without_an_end_need_steps(kind):
    model = one_input()
    for function in (
        lambda **o: kr.plan(model, ratio=0.5, **o),
        lambda **o: kr.calibrate(model, **o),
        lambda **o: kr.merge_correlated(model, count=2, **o),
    ):
        with pytest.raises(ValueError, match=r"without an end.*steps="):
            function(data=ENDLESS[kind]())
    assert len(arrays_of(model, ENDLESS[kind](), steps=5)[0]) == 80
    known = kr.calibrate(model, ENDLESS[kind](), steps=5)
    assert known.statistics.samples == 80
    assert kr.prune(model, ratio=0.5, data=known).layers[1].units == 4


def test_as_many_steps_as_are_asked_for():
    model = one_input()
    for data in (X, tf_data(X).batch(16), iter([X[:16], X[16:32], X[32:]])):
        (found,) = arrays_of(model, data, steps=2)
        np.testing.assert_array_equal(found, X[:32])
    (found,) = arrays_of(model, X, steps=99)
    np.testing.assert_array_equal(found, X)
    taken = kr.prune(model, ratio=0.5, data=X, steps=2, batch_size=16)
    models.assert_same_function(
        taken, kr.prune(model, ratio=0.5, data=X[:32], batch_size=16)
    )
    small = kr.merge_correlated(model, endless(), count=3, steps=2)
    assert small.layers[1].units == 5


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        (lambda x: x, 1),
        (lambda x: tf_data(x).batch(20), 2),
        (lambda x: iter(np.split(x, 4)), 2),
    ],
    ids=["arrays", "tf.data", "generator"],
)
def test_steps_mean_the_same_samples_in_all_passes(kind, steps):
    """Gradients and distillation read batches of other sizes."""
    hidden = keras.layers.Dense(8, activation="relu")
    # Of one number, noise has the square 1: nothing is left to chance.
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(1)])
    data = np.concatenate([X, X[:32]])
    known, wanted = (
        kr.calibrate(model, samples, batch_size=40, **options)
        for samples, options in (
            (kind(data), {"steps": steps}),
            (data[:40], {}),
        )
    )
    assert known.statistics.samples == 40
    for size in (16, 64):
        (found,) = gathered(model, known.data, None, size)
        np.testing.assert_array_equal(found, data[:40])
    removal = [
        next(iter(x.sensitivities.values())).to_removal for x in (known, wanted)
    ]
    np.testing.assert_allclose(*removal, rtol=1e-4, atol=1e-6)


def test_steps_of_a_generator_leave_the_rest_in_it():
    parts = iter(np.split(X, 6))
    assert len(arrays_of(one_input(), parts, steps=4)[0]) == 32
    np.testing.assert_array_equal(next(parts), X[32:40])


@pytest.mark.parametrize(
    "kind",
    [
        endless,
        lambda: tf_data(X).repeat().filter(lambda row: row[0] < 99).batch(16),
    ],
    ids=["generator", "filter"],
)
def test_what_may_have_no_end_is_bounded(kind, monkeypatch):
    """It is said once, however often one goes over it."""
    monkeypatch.setattr(data_module, "MOST_SAMPLES", 40)
    model = one_input()
    with pytest.warns(UserWarning, match="first 48 samples.*steps=") as said:
        small = kr.prune(model, ratio=0.5, data=kind(), rounds=2)
    assert sum(x.category is UserWarning for x in said) == 1
    assert small.layers[1].units == 4


def test_data_that_end_in_time_are_used_without_a_word(monkeypatch):
    monkeypatch.setattr(data_module, "MOST_SAMPLES", 48)
    for data in (iter(np.split(X, 3)), from_generator(X)):
        assert_given(one_input(), data, X)


def test_steps_that_count_nothing():
    model = one_input()
    known = kr.calibrate(model, X)
    for data, words in ((None, "data is None"), (known, "a calibration")):
        with pytest.raises(ValueError, match=f"steps=2.*{words}"):
            kr.plan(model, ratio=0.5, data=data, steps=2)
    with pytest.raises(ValueError, match="a calibration"):
        kr.merge_correlated(model, known, count=1, steps=2)
    for steps in (0, 1.5, True):
        with pytest.raises(ValueError, match="steps must be an integer"):
            kr.calibrate(model, X, steps=steps)


def test_steps_of_data_that_are_cut_on_again_and_again():
    model = one_input()

    def evaluate(model):
        return float(model.count_params())

    options = {"data": endless(), "steps": 3, "verbose": False}
    found = kr.sensitivity(model, evaluate, ratios=[0.5], **options)
    (trial,) = found.trials[next(iter(found.trials))]
    assert trial.score == 43
    methods = {"greedy": {"select": "greedy", "rounds": 0}}
    found = kr.compare(model, evaluate, methods, shares=[0.5], **options)
    assert found.trials["greedy"][0].flops <= 0.5
