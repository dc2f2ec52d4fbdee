"""A smaller model is trained to answer as the original one does."""

import itertools
import json

import keras
import numpy as np
import pytest
from keras import layers, losses

import keras_redundancy as kr
from keras_redundancy.mend import distilling
from keras_redundancy.mend.outputs import outputs_of
from tests import models

# Small models learn at a greater rate than the default one.
QUICK = {"epochs": 15, "learning_rate": 5e-3, "batch_size": 32, "verbose": 0}


def classifier():
    return models.randomized(models.mlp())


def logits():
    inputs = keras.Input((12,))
    x = layers.Dense(16, activation="relu", name="hidden")(inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    model.compile(
        keras.optimizers.SGD(0.1),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def several():
    """Two inputs by name; probabilities and values by name."""
    a, b = keras.Input((6,), name="a"), keras.Input((8,), name="b")
    x = layers.Concatenate()([a, b])
    x = layers.Dense(20, activation="relu", name="hidden")(x)
    outputs = {
        "share": layers.Dense(1, activation="sigmoid")(x),
        "value": layers.Dense(4)(x),
    }
    return models.randomized(keras.Model({"a": a, "b": b}, outputs))


def convolutions():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(12, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return models.randomized(keras.Model(inputs, layers.Dense(3)(x)))


def noisy():
    inputs = x = keras.Input((20,))
    for units in (40, 30):
        x = layers.Dropout(0.5)(layers.Dense(units)(x))
        x = layers.GaussianNoise(1.0)(layers.ReLU()(x))
    return models.randomized(keras.Model(inputs, layers.Dense(5)(x)))


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


# --- what data may be -------------------------------------------------------


class Numbered(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // 32

    def __getitem__(self, number):
        chosen = slice(32 * number, 32 * (number + 1))
        return self.x[chosen], self.y[chosen]


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
    found = kr.distill(small, model, data, **QUICK)
    started, ended = errors(model, fresh, small, found)
    assert ended < 0.8 * started


def test_datasets_bring_labels_and_validation():
    model = logits()
    x, other = samples(model), samples(model, seed=1, batch=96)
    small = cut(model, x)
    data, validation = (Numbered(a, np.full(len(a), 2)) for a in (x, other))
    options = QUICK | {"labels": True, "label_weight": 0.9}
    found = kr.distill(
        small, model, data, validation_data=validation, **options
    )
    shares = [
        (models.outputs(m, other)[0].argmax(axis=1) == 2).mean()
        for m in (small, found)
    ]
    assert shares[0] < 0.7 < shares[1]


def test_inputs_are_changed_for_training_alone():
    model = convolutions()
    data = samples(model)
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


# --- what cannot work -------------------------------------------------------


def other_outputs():
    inputs = keras.Input((12,))
    return keras.Model(inputs, layers.Dense(4)(inputs))


def frozen():
    small = classifier()
    small.trainable = False
    return small


def ends_in(*ends, loss=None):
    inputs = x = keras.Input((12,))
    for layer in ends:
        x = layer(x)
    model = models.randomized(keras.Model(inputs, x))
    if loss:
        model.compile("sgd", loss)
    return model


X = np.random.default_rng(0).normal(size=(100, 12)).astype("float32")
BAD = {
    "other outputs": (classifier, other_outputs, {}, "outputs of shapes"),
    "other inputs": (
        lambda: ends_in(layers.Reshape((12, 1)), layers.Flatten()),
        lambda: keras.Sequential([keras.Input((9,)), layers.Dense(12)]),
        {},
        "inputs of shapes",
    ),
    "all frozen": (classifier, frozen, {}, "no trainable weights"),
    "no probabilities": (
        lambda: ends_in(layers.Dense(3), loss="categorical_crossentropy"),
        None,
        {},
        "categorical_crossentropy, a loss for probabilities",
    ),
    "a softmax of one": (
        lambda: ends_in(layers.Dense(1)),
        None,
        {"outputs": "softmax"},
        "whose softmax is always 1",
    ),
    "another kind": (
        classifier,
        None,
        {"outputs": "sigmoid"},
        "made by a softmax, but outputs='sigmoid'",
    ),
    "no kind": (classifier, None, {"outputs": "logits"}, "is not known"),
    "kinds of two": (
        classifier,
        None,
        {"outputs": ["values", "values"]},
        "2 outputs",
    ),
    "less than a batch": (
        classifier,
        None,
        {"batch_size": 91},
        "batch_size=91 is more than the 90 samples",
    ),
    "no data": (classifier, None, {"data": X[:0]}, "empty"),
    "data that does not fit": (
        classifier,
        None,
        {"data": X[:, :5]},
        "the model takes",
    ),
    "NaN": (classifier, None, {"data": X * np.nan}, "holds NaN"),
    "no loss": (classifier, None, {"labels": X[:, 0]}, "with no loss"),
    "too few labels": (logits, None, {"labels": X[:50, 0]}, "50 entries"),
    "labels of arrays": (
        logits,
        None,
        {"labels": True},
        "the labels themselves",
    ),
    "labels of datasets": (
        logits,
        None,
        {"labels": X[:, 0], "data": Numbered(X, X)},
        "labels=True",
    ),
    "changed datasets": (
        classifier,
        None,
        {"augment": np.sin, "data": Numbered(X, X)},
        "augment= changes arrays",
    ),
    "validation beside arrays": (
        classifier,
        None,
        {"validation_data": X},
        "held_out= is held out",
    ),
    "epochs": (classifier, None, {"epochs": 0}, "epochs must be"),
    "rate": (classifier, None, {"learning_rate": -1.0}, "learning_rate"),
    "temperature": (classifier, None, {"temperature": 0}, "temperature"),
    "share held out": (classifier, None, {"held_out": 1.0}, "held_out"),
    "endless": (
        classifier,
        None,
        {"data": itertools.cycle([X])},
        "without an end",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    make_model, make_small, options, message = BAD[name]
    model = make_model()
    small = make_small() if make_small else model
    options = {"data": X, "verbose": 0} | options
    with pytest.raises(ValueError, match=message):
        kr.distill(small, model, **options)


def test_what_is_no_function():
    with pytest.raises(TypeError, match="augment is a function"):
        kr.Distill(augment=3)
    with pytest.raises(ValueError, match="would have no effect"):
        kr.prune(classifier(), 0.9, mend=kr.Distill())


def test_the_object_shows_what_it_was_made_with():
    made = kr.Distill(epochs=16, rounds=0)
    assert repr(made) == "Distill(epochs=16, rounds=0)"
    assert kr.Distill.from_config(made.get_config()) == made
    assert isinstance(made, distilling.Training)
