"""A smaller model is trained to answer as the original one does."""

import itertools
import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration.outputs import outputs_of
from keras_redundancy.mend import distilling
from keras_redundancy.mend.distilling import Training, arrays_for
from keras_redundancy.mend.features import with_features
from tests import models
from tests.mend.networks import (
    QUICK,
    Numbered,
    classifier,
    convolutions,
    ends_in,
    logits,
    noisy,
    several,
)

# Each with the share of its error that is left at most.
MAKERS = (
    (classifier, 0.7),
    (logits, 0.7),
    (several, 0.9),
    (convolutions, 0.8),
    (noisy, 0.8),
)


def samples(model, seed=0, batch=640):
    return models.random_inputs(model, seed=seed, batch=batch)


def cut(model, data, **options):
    options = {"ratio": 0.5, "data": data, "rounds": 0} | options
    return kr.prune(model, **options)


def errors(model, data, *others):
    """For each of the others, how far its answers are from the model's."""
    wanted = models.outputs(model, data)
    outputs = outputs_of(model, None, wanted)
    return [
        sum(
            float(output.difference(*both, 1.0))
            for output, *both in zip(
                outputs, wanted, models.outputs(other, data), strict=True
            )
        )
        for other in others
    ]


def state(model):
    """All that must not change."""
    values = [models.numpy(v).copy() for v in model.variables]
    if model.compiled:
        values += [models.numpy(v).copy() for v in model.optimizer.variables]
    flags = [layer.trainable for layer in model.layers]
    return values, flags, model.to_json()


def assert_same_state(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[1] == other[1]
    assert json.loads(one[2]) == json.loads(other[2])


@pytest.mark.parametrize(("make", "most"), MAKERS)
def test_it_gains_on_fresh_samples_and_changes_neither_model(make, most):
    model = make()
    data, fresh = samples(model), samples(model, seed=1)
    small = cut(model, data)
    before = state(model), state(small)
    found = kr.distill(small, model, data, **QUICK)
    assert_same_state(before[0], state(model))
    assert_same_state(before[1], state(small))
    started, ended = errors(model, fresh, small, found)
    assert ended < most * started
    assert models.widths(kr.plan(found, ratio=0)) == models.widths(
        kr.plan(small, ratio=0)
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(16, activation="relu")
        self.top = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.top(self.hidden(x))


def test_a_subclassed_model_teaches():
    data = samples(classifier(), batch=320)
    model = Subclassed()
    model(data[:1])
    small = cut(models.randomized(model), data)
    found = kr.distill(small, model, data, **QUICK)
    started, ended = (
        np.square(x.predict(data, verbose=0) - model.predict(data, verbose=0))
        for x in (small, found)
    )
    assert ended.mean() < 0.8 * started.mean()
    with pytest.raises(TypeError, match=r"kr\.functional\(model\) returns"):
        kr.factorize(model)


def test_prune_distils_by_itself():
    model = logits()
    data, fresh = samples(model), samples(model, seed=1)
    small = cut(model, data)
    options = {name: x for name, x in QUICK.items() if name != "verbose"}
    plan = kr.plan(
        model, ratio=0.5, data=data, mend=kr.Distill(rounds=0, **options)
    )
    found = plan.apply()
    expected = kr.distill(small, model, data, **QUICK)
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    started, ended = errors(model, fresh, small, found)
    assert ended < 0.8 * started


def test_what_comes_back_is_compiled_saved_and_trained(tmp_path):
    model = logits()
    data = samples(model)
    small = cut(model, data)
    found = kr.distill(small, model, data, **QUICK)
    assert isinstance(found.optimizer, keras.optimizers.SGD)
    assert found.optimizer.get_config() == model.optimizer.get_config()
    assert not int(found.optimizer.iterations)
    found.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    models.assert_same_function(found, loaded, data)
    labels = np.arange(len(data)) % 3
    scores = loaded.fit(data, labels, verbose=0).history
    assert np.isfinite(scores["loss"]).all()


def test_frozen_layers_keep_their_weights():
    model = classifier()
    data = samples(model)
    small = cut(model, data)
    next(x for x in small.layers if x.weights).trainable = False
    found = kr.distill(small, model, data, **QUICK)
    same = [
        np.array_equal(a, b)
        for a, b in zip(found.get_weights(), small.get_weights(), strict=True)
    ]
    assert same == [True, True, False, False, False, False]
    assert [x.trainable for x in found.layers] == [
        x.trainable for x in small.layers
    ]


def test_no_epoch_may_be_worse_than_the_start():
    model = classifier()
    data = samples(model)
    small = cut(model, data)
    options = QUICK | {"learning_rate": 10.0, "patience": 2}
    seen = Epochs()
    found = kr.distill(small, model, data, **options, callbacks=[seen])
    for a, b in zip(found.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(seen.losses) == 2
    # By default all epochs count: the rate is high in the first ones only.
    options = QUICK | {"learning_rate": 10.0, "epochs": 7}
    kr.distill(small, model, data, **options, callbacks=[seen])
    assert len(seen.losses) == 2 + 7


class Epochs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"])


def test_a_loss_that_is_no_number_ends_training():
    # Some devices make 0 of ReLU(NaN).
    model = ends_in(layers.Dense(16, "tanh"), layers.Dense(3))
    data = samples(model)
    small = cut(model, data)
    seen, calls = Epochs(), itertools.count(1)

    def spoilt(x):
        """The fourth epoch of 18 batches ends in NaN."""
        return x * np.nan if next(calls) > 60 else x

    options = QUICK | {"augment": spoilt, "callbacks": [seen]}
    with pytest.warns(UserWarning, match="NaN or infinite in epoch 4 of"):
        found = kr.distill(small, model, data, **options)
    assert len(seen.losses) == 4
    assert all(np.isfinite(x).all() for x in found.get_weights())
    started, ended = errors(model, samples(model, seed=1), small, found)
    assert ended < started


def test_labels_are_learned():
    """The labels are not what the model says: another network made them."""
    model = logits()
    data, fresh = samples(model), samples(model, seed=1)
    small = cut(model, data)
    truth = models.randomized(models.mlp(), seed=5)
    right = [models.outputs(truth, x)[0].argmax(axis=1) for x in (data, fresh)]

    def accuracy(found):
        return (
            models.outputs(found, fresh)[0].argmax(axis=1) == right[1]
        ).mean()

    without, with_labels = (
        accuracy(kr.distill(small, model, data, labels, **QUICK, **options))
        for labels, options in ((None, {}), (right[0], {"label_weight": 0.9}))
    )
    assert with_labels > without + 0.1


@pytest.mark.parametrize("by_batch", [False, True])
def test_statistics_stay_or_follow_the_batches(by_batch):
    model = convolutions()
    norm = model.layers[2]
    data = samples(model)
    (read,) = models.outputs(keras.Model(model.input, norm.input), data)
    norm.moving_mean.assign(read.mean((0, 1, 2)))
    norm.moving_variance.assign(read.var((0, 1, 2)))
    small = cut(model, data)
    options = QUICK | {"batch_statistics": by_batch}
    found = kr.distill(small, model, data, **options)
    before, after = (
        models.numpy(m.layers[2].moving_mean) for m in (small, found)
    )
    assert np.array_equal(before, after) != by_batch
    started, ended = errors(model, samples(model, seed=1), small, found)
    assert ended < 0.8 * started


def test_features_of_layers_are_learned():
    model = convolutions()
    data, fresh = samples(model), samples(model, seed=1)
    small = cut(model, data)
    names = [layer.name for layer in model.layers[3:5]]
    errors = []
    for features in ((), names):
        found = kr.distill(small, model, data, **QUICK, features=features)
        teacher, student, kinds = with_features(model, found, names, [data])
        assert student.output_shape == teacher.output_shape
        outputs = [models.outputs(m, fresh)[1:] for m in (teacher, student)]
        errors.append(
            [
                float(kind.difference(*pair, 1.0))
                for kind, *pair in zip(kinds, *outputs, strict=True)
            ]
        )
    assert (np.array(errors[1]) < 0.95 * np.array(errors[0])).all()


# --- what data may be -------------------------------------------------------


def as_tf_data(x, y):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(32)


def as_generator(x, y):
    return (x[i : i + 32] for i in range(0, len(x), 32))


@pytest.mark.parametrize("kind", [Numbered, as_tf_data, as_generator])
def test_all_kinds_of_data_train(kind):
    model = logits()
    x, fresh = samples(model), samples(model, seed=1)
    small = cut(model, x)
    data = kind(x, np.full(len(x), 2))
    options = QUICK | {"batch_size": 32 if kind is as_generator else None}
    found = kr.distill(small, model, data, **options)
    started, ended = errors(model, fresh, small, found)
    assert ended < 0.8 * started


def test_datasets_bring_labels_and_validation():
    model = logits()
    x, other = samples(model), samples(model, seed=1, batch=96)
    small = cut(model, x)
    data, validation = (Numbered(a, np.full(len(a), 2)) for a in (x, other))
    options = QUICK | {"batch_size": None, "labels": True, "label_weight": 0.9}
    found = kr.distill(
        small, model, data, validation_data=validation, **options
    )
    shares = [
        (models.outputs(m, other)[0].argmax(axis=1) == 2).mean()
        for m in (small, found)
    ]
    assert shares[0] < 0.7 < shares[1]


@pytest.mark.parametrize(("count", "size"), [(20, 18), (100, 64)])
def test_a_batch_has_no_more_samples_than_there_are(count, size):
    data = np.zeros((count, 12), "float32")
    training = Training(held_out=0.1)
    found = arrays_for(logits(), data, training)
    assert found.steps == 1
    assert [len(x) for x in found.batches[0]] == [size]


def test_inputs_are_changed_for_training_alone():
    model = convolutions()
    data = samples(model, batch=320)
    small = cut(model, data)
    seen = []

    def mirrored(x):
        seen.append(x.shape)
        return x[:, :, ::-1]

    layer = layers.RandomFlip("horizontal", seed=0)
    for augment in (mirrored, layer):
        found = kr.distill(small, model, data, **QUICK, augment=augment)
        started, ended = errors(model, samples(model, seed=1), small, found)
        assert ended < started
    # A tenth is held out, and batches are whole.
    assert set(seen) == {(32, 8, 8, 2)}
    assert len(seen) >= QUICK["epochs"] * (288 // 32)


def test_the_object_shows_what_it_was_made_with():
    made = kr.Distill(epochs=16, rounds=0)
    assert repr(made) == "Distill(epochs=16, rounds=0)"
    assert kr.Distill.from_config(made.get_config()) == made
    assert isinstance(made, distilling.Training)
