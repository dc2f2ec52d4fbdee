"""Calls of `fit` with cuts in between are one to all who look on."""

import keras
import numpy as np
import pytest

from tests.fit_and_prune_run import data, network, run


class Recorder(keras.callbacks.Callback):
    """Notes what `fit` tells it."""

    def __init__(self):
        super().__init__()
        self.told, self.sizes = [], []

    def on_train_begin(self, logs=None):
        self.told.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(epoch)
        self.sizes.append(self.model.count_params())

    def on_train_end(self, logs=None):
        self.told.append("end")


def test_to_callbacks_it_is_one_fit():
    recorder = Recorder()
    seen = {}

    def rate(epoch, now):
        seen[epoch] = now
        return now * 0.5

    callbacks = [recorder, keras.callbacks.LearningRateScheduler(rate)]
    found = run(network(), callbacks=callbacks, initial_epoch=1, epochs=6)
    assert recorder.told == ["begin", 1, 2, 3, 4, 5, "end"]
    assert recorder.sizes == found.history.history["parameters"]
    assert len(set(recorder.sizes)) > 1
    assert found.history.epoch == [1, 2, 3, 4, 5]
    assert all(len(x) == 5 for x in found.history.history.values())
    rates = [seen[epoch] for epoch in sorted(seen)]
    np.testing.assert_allclose(rates, 1e-2 * 0.5 ** np.arange(5), rtol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="reads its event files"
)
def test_steps_of_tensorboard_go_on(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator

    board = keras.callbacks.TensorBoard(tmp_path, update_freq=1)
    run(network(), callbacks=[board], epochs=4)
    events = event_accumulator.EventAccumulator(
        str(tmp_path / "train"), size_guidance={"tensors": 0}
    )
    events.Reload()
    for tag, steps in (
        ("epoch_loss", range(4)),
        ("epoch_parameters", range(4)),
        ("batch_loss", range(1, 33)),
    ):
        found = [event.step for event in events.Tensors(tag)]
        assert found == list(steps), tag


@pytest.mark.parametrize("how", ["none", "the same", "averaging"])
def test_without_cuts_it_is_fit(how):
    """Also where `fit` ends after each epoch, and would average weights."""
    optimizer = keras.optimizers.Adam(1e-3, use_ema=how == "averaging")
    model = network(optimizer=optimizer)
    options = {"epochs": 4, "batch_size": 64, "verbose": 0, "shuffle": False}
    keras.utils.set_random_seed(5)
    found = run(
        model,
        shuffle=False,
        epochs=4,
        floor=0.0,
        start=1,
        prune=lambda model: None if how == "none" else model,
    )
    assert found.cuts == ()
    keras.utils.set_random_seed(5)
    history = model.fit(*data(), **options).history
    np.testing.assert_allclose(
        found.history.history["loss"], history["loss"], rtol=1e-4
    )
