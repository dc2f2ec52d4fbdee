import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from tests.building.test_optimizer_state import states
from tests.fit_and_prune_run import data, network, run


def test_the_smallest_model_that_held_the_floor():
    model = network(run_eagerly=False)
    before, state = model.get_weights(), states(model.optimizer)
    found = run(model, epochs=8, floor=0.8)
    assert len(found.cuts) >= 2
    assert found.model.count_params() < model.count_params()
    assert found.value >= found.floor == 0.8
    x, y = data(256, seed=1)
    _, accuracy = found.model.evaluate(x, y, verbose=0)
    assert accuracy == pytest.approx(found.value, abs=1e-6)
    held = [
        size
        for size, value in zip(
            found.history.history["parameters"],
            found.history.history["val_accuracy"],
            strict=True,
        )
        if value >= 0.8
    ]
    assert found.model.count_params() == min(held)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(states(model.optimizer), state, strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_says_what_it_did():
    found = run(network(), epochs=5)
    assert [cut.epoch for cut in found.cuts] == [2, 3, 4]
    text = str(found)
    assert f"{found.cuts[0].before:,}" in text
    assert f"{found.cuts[0].before:,}" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["cuts"][0]["epoch"] == 2
    assert "val_accuracy" in text
    assert "ended because there were no more than 5 epochs" in text
    values = found.history.history["val_accuracy"]
    assert [cut.value for cut in found.cuts] == values[1:4]
    assert all(cut.rebuild > 0 for cut in found.cuts)
    assert all(cut.retrace > 0 for cut in found.cuts)
    for epoch, words in ((2, "0 of the 3"), (4, "2 of the 3")):
        best = dataclasses.replace(found, epoch=epoch)
        assert f"the model has {words} cuts: after" in str(best)
    assert "did not reach" not in str(dataclasses.replace(found, epoch=5))


def test_a_schedule_of_options_is_used_up():
    found = run(
        network(),
        prune=[{"ratio": 0.5, "layers": "one"}, {"ratio": 0.25}],
        floor=0.0,
    )
    assert len(found.cuts) == 2
    assert [x.units for x in found.model.layers if hasattr(x, "units")] == [
        9,
        12,
        3,
    ]


def test_noise_outputs_stay_while_it_is_trained():
    found = run(
        network(noise=True),
        floor=0.0,
        prune=lambda model: kr.merge_correlated(
            model, data()[0], count=5, optimizer=True
        ),
    )
    assert len(found.cuts) == 4
    assert all(cut.before > cut.after for cut in found.cuts)
    names = [layer.name for layer in found.model.layers]
    assert "noise" not in names
    sizes = found.history.history["parameters"]
    assert sizes[0] == kr.strip(network(noise=True)).count_params()
    assert found.model.count_params() == sizes[-1]


def test_every_and_max_drop():
    found = run(network(), floor=None, max_drop=0.3, every=2, epochs=7)
    assert [cut.epoch for cut in found.cuts] == [2, 4, 6]
    top = max(found.history.history["val_accuracy"][:2])
    assert found.floor == pytest.approx(top - 0.3)


def test_a_loss_is_held_from_above():
    found = run(network(), monitor="val_loss", floor=0.9, epochs=8)
    assert found.value <= 0.9
    assert found.cuts


def test_a_floor_that_is_never_reached():
    with pytest.warns(UserWarning, match="val_accuracy never held the floor"):
        found = run(network(), floor=1.1, patience=1, epochs=9)
    assert found.history.epoch == [0, 1, 2]
    assert found.reason == "val_accuracy stayed below 1.1 for 2 epochs"
    assert found.model.count_params() == network().count_params()


def test_patience_ends_it_after_too_deep_a_cut():
    found = run(
        network(),
        prune={"ratio": 0.95, "absorb": "drop"},
        floor=0.8,
        start=5,
        patience=0,
        epochs=20,
    )
    assert "stayed below 0.8 for 1 epochs" in found.reason
    assert found.value >= 0.8


def test_it_ends_where_no_more_can_go():
    prune = {"target": {"params": 0.4}, "min_units": 4}
    found = run(network(), prune=prune, floor=0.0, start=1, epochs=20)
    assert found.reason.startswith("no more units can be removed: ")
    assert len(found.history.epoch) < 20
    assert found.cuts


def test_a_callback_may_end_it():
    stopping = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9)
    found = run(network(), callbacks=[stopping])
    assert found.reason == "a callback ended the training"
    assert len(found.history.epoch) == 2


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, number):
        x, y = data()
        part = slice(number * 64, number * 64 + 64)
        return x[part], y[part]


def test_data_in_batches(capsys):
    found = kr.fit_and_prune(
        network(),
        Batches(),
        prune={"ratio": 0.3},
        epochs=3,
        floor=0.0,
        validation_data=data(64, seed=1),
    )
    printed = capsys.readouterr().out
    assert len(found.cuts) == 2
    assert "Epoch 3/3" in printed
    assert "4/4" in printed
    assert "Cut after epoch 1: " in printed


# --- epochs without a number ------------------------------------------------


@pytest.mark.parametrize("frequency", [2, [2, 4]])
def test_cuts_wait_for_validation(frequency):
    found = run(network(), epochs=5, start=1, validation_freq=frequency)
    assert [cut.epoch for cut in found.cuts] == [2, 4]
    values = found.history.history["val_accuracy"]
    assert [cut.value for cut in found.cuts] == values
    assert found.epoch in (2, 4)
    assert len(found.history.history["loss"]) == 5


def test_epochs_without_validation_do_not_miss_the_floor():
    with pytest.warns(UserWarning, match="never held the floor of 1.1"):
        found = run(
            network(), epochs=6, floor=1.1, patience=1, validation_freq=2
        )
    assert found.reason == "val_accuracy stayed below 1.1 for 2 epochs"
    assert len(found.history.epoch) == 4


def test_a_monitor_that_never_comes_is_said_at_the_first_validation():
    seen = Sizes()
    with pytest.raises(ValueError, match="'val_f1' is not in the logs"):
        run(network(), monitor="val_f1", validation_freq=2, callbacks=[seen])
    assert len(seen.found) == 2


class Sizes(keras.callbacks.Callback):
    """Notes the size of the model after each epoch; changes the logs."""

    def __init__(self, change=lambda epoch, logs: None):
        super().__init__()
        self.found, self._change = [], change

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(self.model.count_params())
        self._change(epoch, logs)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_the_floor_is_of_epochs_with_a_number(value):
    def change(epoch, logs):
        if epoch in (0, 3):
            logs["val_accuracy"] = value

    found = run(
        network(),
        epochs=6,
        start=1,
        floor=None,
        max_drop=0.9,
        callbacks=[Sizes(change)],
    )
    second = found.history.history["val_accuracy"][1]
    assert found.floor == pytest.approx(second - 0.9)
    assert [cut.epoch for cut in found.cuts] == [2, 3, 5]


def test_what_is_never_a_number():
    def change(epoch, logs):
        logs["val_accuracy"] = np.nan

    with pytest.warns(UserWarning, match=r"or not finite, in all 3 epochs\."):
        found = run(
            network(),
            epochs=9,
            start=1,
            floor=None,
            patience=2,
            callbacks=[Sizes(change)],
        )
    assert found.reason == "val_accuracy was not finite for 3 epochs"
    assert (found.value, found.floor, found.cuts) == (None, None, ())
    assert "val_accuracy unknown" in str(found)


def test_logs_may_hold_arrays():
    def change(epoch, logs):
        logs["per_class"] = np.arange(3.0)

    found = run(network(), epochs=2, start=1, callbacks=[Sizes(change)])
    assert len(found.cuts) == 1
    np.testing.assert_array_equal(
        found.history.history["per_class"], [[0, 1, 2]] * 2
    )
    with pytest.raises(ValueError, match=r"array of shape \(3,\) in the logs"):
        run(network(), monitor="per_class", callbacks=[Sizes(change)])


# --- bad input --------------------------------------------------------------


def with_other_outputs():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(7)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"validation_data": None}, ValueError, "but there are none. Pass val"),
        ({"monitor": "val_f1"}, ValueError, "not in the logs, which have acc"),
        ({"monitor": 3}, TypeError, "has to be the name of an entry"),
        ({"prune": 0.5}, TypeError, "prune has to be a mapping of options"),
        ({"prune": {"raito": 0.5}}, TypeError, "raito"),
        (
            {"prune": lambda model: 3},
            TypeError,
            "prune returned int, but it has to return a keras.Model",
        ),
        (
            {"prune": lambda model: keras.Sequential([keras.Input((8,))])},
            ValueError,
            "a model that is not compiled",
        ),
        (
            {"prune": lambda model: with_other_outputs()},
            ValueError,
            r"outputs of shapes \[\(None, 7\)\], but it was given",
        ),
        ({"epochs": 0}, ValueError, "epochs must be an integer"),
        ({"ratio": 0.1}, TypeError, "ratio= is no argument of .* into prune="),
        ({"patience": -1}, ValueError, "patience must be an integer"),
        ({"floor": "high"}, TypeError, "floor must be a number"),
        ({"floor": float("nan")}, ValueError, "floor must be finite"),
        ({"max_drop": -1}, ValueError, "max_drop must be finite"),
        ({"mode": "most"}, ValueError, "mode='most' is not known"),
        (
            {
                "callbacks": [
                    keras.callbacks.EarlyStopping(restore_best_weights=True)
                ]
            },
            ValueError,
            "would assign the weights of a larger model to a smaller one",
        ),
        (
            {"callbacks": keras.callbacks.BackupAndRestore("x")},
            ValueError,
            "Pass checkpoint=",
        ),
    ],
)
def test_bad_input(options, error, words):
    with pytest.raises(error, match=words):
        run(network(), **options)


@pytest.mark.parametrize(
    ("prune", "words"),
    [
        ({}, "received none of them"),
        ({"ratio": 1}, "ratio is 1"),
        ({"raito": 0.5}, "Did you mean ratio="),
        ([{"ratio": 0.5}, {"ratio": 0.5, "layers": "three"}], "'three'"),
        ({"ratio": 0.5, "data": np.zeros(80)}, "data has batches of shape"),
    ],
)
def test_options_of_all_cuts_are_checked_before_training(prune, words):
    seen = Sizes()
    with pytest.raises((TypeError, ValueError), match=words):
        run(network(), prune=prune, callbacks=[seen])
    assert seen.found == []


def test_a_calibration_is_of_the_weights_before_training():
    model = network()
    known = kr.calibrate(model, data()[0])
    with pytest.raises(ValueError, match="that it has before training"):
        run(model, prune={"ratio": 0.5, "data": known})


def test_a_drop_that_allows_every_accuracy():
    with pytest.warns(UserWarning, match="max_drop=1 allows every accuracy"):
        run(network(), floor=None, max_drop=1, start=1, epochs=1)


def unbuilt():
    model = keras.Sequential([layers.Dense(6), layers.Dense(3)])
    model.compile("sgd", "mse")
    return model


def no_batches():
    yield from ()


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize(
    ("x", "y", "validation", "name"),
    [
        (None, None, data(32), "x"),
        (*data(0), data(32), "x"),
        (*data(32), data(0), "validation_data"),
    ],
)
def test_no_samples(is_built, x, y, validation, name):
    model = network() if is_built else unbuilt()
    options = {"prune": {"ratio": 0.2}, "epochs": 1}
    with pytest.raises(ValueError, match=f"^{name} holds no samples"):
        kr.fit_and_prune(model, x, y, validation_data=validation, **options)


def test_a_model_that_no_batch_builds():
    with pytest.raises(ValueError, match="x holds no samples"):
        kr.fit_and_prune(
            unbuilt(),
            no_batches(),
            prune={"ratio": 0.2},
            monitor="loss",
            epochs=1,
        )


def test_models_that_cannot_be_trained_on():
    with pytest.raises(ValueError, match="is not compiled"):
        run(keras.Sequential([keras.Input((8,)), layers.Dense(3)]))
    factorized = kr.factorize(network())
    with pytest.raises(ValueError, match="cannot go on with the layer 'one'"):
        run(factorized)
