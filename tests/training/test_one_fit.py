"""Calls of `fit` with cuts in between are one to all who look on."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.training.batches import Batches
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
    np.testing.assert_allclose(rates, 2e-2 * 0.5 ** np.arange(5), rtol=1e-5)


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
        ("batch_loss", range(1, 17)),
    ):
        found = [event.step for event in events.Tensors(tag)]
        assert found == list(steps), tag


@pytest.mark.parametrize("how", ["none", "the same", "averaging"])
def test_without_cuts_it_is_fit(how):
    """Also where `fit` ends after each epoch, and would average weights."""
    optimizer = keras.optimizers.Adam(1e-3, use_ema=how == "averaging")
    model = network(optimizer=optimizer, run_eagerly=False)
    options = {"epochs": 4, "batch_size": 128, "verbose": 0, "shuffle": False}
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


# --- data that is read once -------------------------------------------------


def counter(size):
    """A model whose kernel says how often each feature was trained on."""
    model = keras.Sequential(
        [
            keras.Input((size,)),
            layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    optimizer = keras.optimizers.SGD(1.0)
    model.compile(optimizer, negative)
    return model


def negative(y, prediction):
    return -prediction


def counted(batches, size, checkpoint=None, **options):
    """(How often each feature was trained on, what `fit_and_prune` found)."""
    found = kr.fit_and_prune(
        counter(size),
        batches,
        prune=lambda model: model,
        monitor="loss",
        floor=9.0,
        verbose=0,
        checkpoint=checkpoint,
        **options,
    )
    (kernel,) = found.model.get_weights()
    return kernel[:, 0].tolist(), found


def one_by_one(size):
    """As many batches as features, each of one of them."""
    for row in np.eye(size, dtype="float32"):
        yield row[None], np.zeros((1, 1), "float32")


# What Keras says where it was not told how many batches there are.
ENDED = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@ENDED
def test_each_batch_of_a_generator_is_used_once():
    counts, _ = counted(one_by_one(10), 10, epochs=1)
    assert counts == [1] * 10


@pytest.mark.parametrize("keeps", [True, False])
def test_a_generator_goes_on_after_cuts(keeps, tmp_path):
    options = {"epochs": 9, "steps_per_epoch": 3}
    if keeps:
        options["checkpoint"] = tmp_path
    counts, found = counted(one_by_one(12), 12, **options)
    assert counts == [1] * 12
    assert found.history.epoch == [0, 1, 2, 3]
    assert found.reason == "the data had no more batches"


@ENDED
def test_batches_that_do_not_exist_are_not_begun():
    begun = []
    noting = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: begun.append(batch)
    )
    counted(one_by_one(5), 5, epochs=1, callbacks=[noting])
    assert begun == list(range(5))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="needs TensorFlow"
)
def test_a_dataset_goes_on_after_cuts():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(np.eye(4, dtype="float32"))
    dataset = dataset.batch(1).map(lambda x: (x, tf.zeros((1, 1))))
    counts, found = counted(dataset, 4, epochs=4, steps_per_epoch=3)
    assert counts == [3] * 4
    assert found.history.epoch == [0, 1, 2, 3]


class OneByOne(keras.utils.PyDataset):
    def __len__(self):
        return 8

    def __getitem__(self, number):
        return np.eye(8, dtype="float32")[[number]], np.zeros((1, 1))


def of_eight(kind):
    if kind is None:
        data = {"y": np.zeros((8, 1)), "batch_size": 1}
        return np.eye(8, dtype="float32"), data
    return kind(), {}


@pytest.mark.parametrize("kind", [None, OneByOne])
def test_epochs_that_would_see_the_same_batches(kind):
    x, options = of_eight(kind)
    options |= {"shuffle": False, "epochs": 4}
    with pytest.raises(ValueError, match="steps_per_epoch=3 is less than"):
        counted(x, 8, steps_per_epoch=3, **options)
    counts, _ = counted(x, 8, steps_per_epoch=8, **options)
    assert counts == [4] * 8


@pytest.mark.parametrize("kind", [None, OneByOne])
def test_each_epoch_is_shuffled_in_another_way(kind):
    x, options = of_eight(kind)
    keras.utils.set_random_seed(0)
    counts, _ = counted(x, 8, epochs=6, steps_per_epoch=1, **options)
    assert np.count_nonzero(counts) > 1


def test_what_was_read_but_not_used_is_given_again():
    batches = Batches(iter(range(7)))
    first = batches.rest()
    assert [next(first) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert [batches.use(1) for _ in range(3)] == [True] * 3
    second = batches.rest()
    assert next(second) == 3
    assert list(first) == [5, 6]
    assert list(second) == [4, 5, 6]
    assert not batches.have_ended()
    assert [batches.use(2) for _ in range(3)] == [True, True, False]
    assert batches.have_ended()


def test_a_generator_without_batches_is_an_error_of_keras():
    with pytest.raises(ValueError, match="must yield at least one batch"):
        counted(iter_of_none(), 4, epochs=1)


def iter_of_none():
    yield from ()


@pytest.mark.parametrize("kind", ["array", "sequence", "generator"])
def test_a_model_that_fit_would_build(kind):
    model = keras.Sequential(
        [
            layers.Dense(12, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = data(32)
    given = {
        "array": (x, y),
        "sequence": (InBatches(), None),
        "generator": (((x, y) for _ in range(2)), None),
    }[kind]
    found = kr.fit_and_prune(
        model,
        *given,
        prune={"ratio": 0.5},
        epochs=2,
        monitor="loss",
        floor=99.0,
        verbose=0,
        steps_per_epoch=1,
    )
    assert found.model.input_shape == (None, 8)
    assert found.model.layers[0].units == 6
    assert model.layers[0].units == 12


class InBatches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, number):
        return data(32)
