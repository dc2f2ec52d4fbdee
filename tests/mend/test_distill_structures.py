"""Distilling models with several inputs and outputs, text, and labels."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.mend.label_loss import LabelLoss
from tests import models
from tests.mend.networks import classifier, logits

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(96, 8)).astype("float32")
CLASSES = RANDOM.integers(3, size=96)
VALUES = X[:, :1] + 3
QUICK = {"epochs": 1, "batch_size": 32, "verbose": 0}
TEXT = np.array([["a"], ["b"], ["c"]] * 32)
LOSSES = ["sparse_categorical_crossentropy", "mse"]


def distilled(model, data, labels=None, **options):
    small = kr.prune(model, ratio=0.3)
    return kr.distill(small, model, data, labels, **QUICK | options)


def with_outputs(structure, loss, loss_weights=None):
    """A model with classes "p" and values "q", or only the first."""
    inputs = keras.Input((8,))
    x = layers.Dense(9, activation="relu")(inputs)
    made = {
        "p": layers.Dense(3, activation="softmax", name="p")(x),
        "q": layers.Dense(1, name="q")(x),
    }
    outputs = keras.tree.map_structure(made.get, structure)
    model = models.randomized(keras.Model(inputs, outputs))
    model.compile("sgd", loss, loss_weights)
    return model


# The outputs, their losses, and the labels, each as `Model.fit` takes it.
STRUCTURES = {
    "lists": (["p", "q"], LOSSES, [CLASSES, VALUES]),
    "tuples": (("p", "q"), tuple(LOSSES), (CLASSES, VALUES)),
    "labels by name": (["p", "q"], LOSSES, {"q": VALUES, "p": CLASSES}),
    "mappings": (
        {"y": "p", "a": "q"},
        {"y": LOSSES[0], "a": LOSSES[1]},
        {"y": CLASSES, "a": VALUES},
    ),
    "a mapping of one": ({"z": "p"}, {"z": LOSSES[0]}, {"z": CLASSES}),
    "one output by name": ("p", {"p": LOSSES[0]}, CLASSES),
    "nested": ({"z": ["p", "p"]}, LOSSES[0], {"z": [CLASSES, CLASSES]}),
    "an output without loss": (["p", "q"], [None, "mse"], [CLASSES, VALUES]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_labels_of_all_structures_are_learned(name):
    structure, loss, labels = STRUCTURES[name]
    model = with_outputs(structure, loss)
    options = {"learning_rate": 0.05, "epochs": 4, "held_out": 0}
    errors = [
        _loss_of_labels(found, labels)
        for found in (
            distilled(model, X, **options),
            distilled(model, X, labels, label_weight=0.9, **options),
        )
    ]
    assert errors[1] < 0.95 * errors[0]


def _loss_of_labels(model, labels, sample_weight=None):
    outputs = model.predict(X, verbose=0)
    found = LabelLoss(model)(labels, outputs, sample_weight)
    return float(models.numpy(found))


@pytest.mark.parametrize("weights", [None, [0.5, 2.0]])
@pytest.mark.parametrize("name", ["lists", "tuples", "labels by name"])
def test_the_loss_of_labels_is_that_of_fit(name, weights):
    structure, loss, labels = STRUCTURES[name]
    model = with_outputs(structure, loss, weights)
    wanted = model.evaluate(X, labels, verbose=0, return_dict=True)["loss"]
    assert _loss_of_labels(model, labels) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["lists", "tuples", "mappings"])
@pytest.mark.parametrize("of_each", [False, True])
def test_sample_weights_count_as_in_fit(name, of_each):
    structure, loss, labels = STRUCTURES[name]
    model = with_outputs(structure, loss)
    weights = np.linspace(0, 1, 96).astype("float32")
    if of_each:
        weights = keras.tree.map_structure(
            lambda y: weights * (1 + (y is VALUES)), labels
        )
    wanted = model.evaluate(
        X,
        labels,
        sample_weight=weights,
        batch_size=96,
        verbose=0,
        return_dict=True,
    )["loss"]
    found = _loss_of_labels(model, labels, weights)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert found != pytest.approx(_loss_of_labels(model, labels), rel=1e-2)


def test_sample_weights_come_with_datasets():
    tf = pytest.importorskip("tensorflow")
    model = with_outputs(["p", "q"], [None, "mse"])
    weights = np.repeat([1.0, 0.0], 48).astype("float32")
    changed = np.where(weights[:, None] > 0, VALUES, 1e3)
    found = [
        distilled(
            model,
            tf.data.Dataset.from_tensor_slices((X, y, weights)).batch(32),
            True,
            batch_size=None,
        )
        for y in (VALUES, changed.astype("float32"))
    ]
    for one, other in zip(*(x.get_weights() for x in found), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_sample_weights_of_other_outputs_are_refused():
    model = with_outputs(["p", "q"], "mse")
    weights = [np.ones(96)] * 3
    with pytest.raises(ValueError, match="3 arrays of sample weights, but"):
        _loss_of_labels(model, [VALUES, VALUES], weights)


def absolute(labels, outputs):
    return keras.ops.mean(keras.ops.abs(labels - outputs), axis=-1)


@pytest.mark.parametrize("loss", ["mae", keras.losses.Huber(), absolute])
@pytest.mark.parametrize("labels", [VALUES, VALUES[:, 0]])
def test_losses_of_one_output(loss, labels):
    """Also those that would compare each label with each output."""
    model = models.randomized(
        keras.Sequential([keras.Input((8,)), layers.Dense(9), layers.Dense(1)])
    )
    model.compile("sgd", loss)
    wanted = model.evaluate(X, labels, verbose=0, return_dict=True)["loss"]
    assert _loss_of_labels(model, labels) == pytest.approx(wanted, rel=1e-4)
    distilled(model, X, labels)


@pytest.mark.parametrize("labels", [VALUES, [VALUES], {"q": VALUES}])
def test_outputs_without_loss_need_no_labels(labels):
    model = with_outputs(["p", "q"], [None, "mse"])
    given = LabelLoss(model).needed(labels)
    assert len(given) == 1
    assert given[0] is VALUES
    distilled(model, X, labels)


@pytest.mark.parametrize("name", ["lists", "labels by name", "mappings"])
def test_labels_come_with_datasets(name):
    tf = pytest.importorskip("tensorflow")
    structure, loss, labels = STRUCTURES[name]
    model = with_outputs(structure, loss)
    labels = keras.tree.lists_to_tuples(labels)
    data = tf.data.Dataset.from_tensor_slices((X, labels)).batch(32)
    options = {"batch_size": None, "validation_data": data}
    found = distilled(model, data, True, **options)
    without = distilled(model, data, **options)
    assert not np.allclose(found.get_weights()[0], without.get_weights()[0])


BAD_LABELS = {
    "too few": (CLASSES, r"an array of shape \(96,\), but .* are 'p', 'q'"),
    "other names": ({"p": CLASSES, "z": VALUES}, "a mapping of 'p', 'z'"),
    "numbers": ([0] * 96, "a list of 96"),
    "no samples": ([CLASSES, 3], "labels has no entries for 96 samples"),
    "fewer samples": ([CLASSES, VALUES[:5]], "labels has 5 entries"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_that_do_not_fit(name):
    labels, message = BAD_LABELS[name]
    model = with_outputs(["p", "q"], LOSSES)
    with pytest.raises(ValueError, match=message):
        kr.distill(model, model, X, labels, **QUICK)


def test_a_dataset_without_labels():
    tf = pytest.importorskip("tensorflow")
    model = with_outputs(["p", "q"], LOSSES)
    data = tf.data.Dataset.from_tensor_slices(X).batch(32)
    with pytest.raises(ValueError, match="its batches hold none"):
        kr.distill(model, model, data, True, epochs=1, verbose=0)


# --- several inputs, and text -----------------------------------------------


def with_inputs():
    inputs = [keras.Input((8,), name=name) for name in ("a", "b")]
    x = layers.Dense(9, activation="relu")(layers.Concatenate()(inputs))
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    model.compile("sgd", "mse")
    return model


INPUTS = {
    "list": [X, X + 1],
    "tuple": (X, X + 1),
    "mapping": {"b": X + 1, "a": X},
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(
    ("labels", "held_out"), [(None, 0.3), (X[:, :2], 0), (X[:, :2], 0.3)]
)
def test_inputs_come_in_a_list(name, labels, held_out):
    model = with_inputs()
    seen = []

    def changed(x):
        seen.append([float(a.mean()) for a in x])
        return [x[0], x[1]]

    options = {"held_out": held_out, "augment": changed}
    found = distilled(model, INPUTS[name], labels, **options)
    assert found.predict(INPUTS["list"], verbose=0).shape == (96, 2)
    # The second input is the greater one.
    assert all(a < b for a, b in seen)


def test_a_list_of_one_input():
    inputs = keras.Input((8,))
    x = layers.Dense(9, activation="relu")(inputs)
    model = models.randomized(keras.Model([inputs], layers.Dense(2)(x)))
    for data, change in ([X], None), (X, layers.GaussianNoise(0.1)):
        found = distilled(model, data, augment=change)
        assert found.predict(data, verbose=0).shape == (96, 2)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(9, activation="relu")
        self.top = layers.Dense(2)

    def call(self, x):
        return {"z": self.top(self.hidden(x[0])), "a": self.hidden(x[1])}


def test_a_subclassed_model_with_lists_and_mappings():
    model = Subclassed()
    model(INPUTS["list"])
    small = kr.functional(model)
    small.compile("sgd", {"z": "mse", "a": "mse"})
    labels = {"z": X[:, :2], "a": np.ones((96, 9))}
    found = kr.distill(small, model, INPUTS["list"], labels, **QUICK)
    answers = found.predict(INPUTS["list"], verbose=0)
    shapes = {name: y.shape for name, y in answers.items()}
    assert shapes == {"z": (96, 2), "a": (96, 9)}


def test_prune_distils_a_model_with_a_list_of_inputs():
    found = kr.prune(
        with_inputs(),
        ratio=0.3,
        data=INPUTS["list"],
        mend=kr.Distill(epochs=1),
    )
    assert found.predict(INPUTS["list"], verbose=0).shape == (96, 2)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Models of text."
)
@pytest.mark.parametrize("held_out", [0, 0.3])
@pytest.mark.parametrize("dtype", [None, object, "tensor"])
def test_text_in_arrays(dtype, held_out):
    inputs = keras.Input((1,), dtype="string")
    x = layers.StringLookup(vocabulary=["a", "b", "c"])(inputs)
    x = layers.Flatten()(layers.Embedding(4, 8)(x))
    x = layers.Dense(9, activation="relu")(x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    tensor = keras.ops.convert_to_tensor(TEXT, dtype="string")
    data = tensor if dtype == "tensor" else TEXT.astype(dtype or TEXT.dtype)
    small = kr.prune(model, ratio=0.5)
    options = QUICK | {"epochs": 9, "learning_rate": 0.05}
    found = kr.distill(small, model, data, held_out=held_out, **options)
    errors = [
        np.square(m.predict(tensor, verbose=0) - model(tensor)).mean()
        for m in (small, found)
    ]
    assert errors[1] < 0.8 * errors[0]


# --- features, callbacks and augment ----------------------------------------


def sequential():
    hidden = layers.Dense(12, activation="relu", name="hidden")
    stack = [keras.Input((8,)), hidden, layers.Dense(2)]
    return models.randomized(keras.Sequential(stack))


def test_features_of_a_sequential_model():
    model = sequential()
    found = distilled(model, X, features=["hidden"])
    assert isinstance(found, keras.Sequential)
    mend = kr.Distill(epochs=1, features=["hidden"])
    kr.prune(model, ratio=0.3, data=X, mend=mend)
    with pytest.raises(ValueError, match=r"2 layers, among them 'hidden'"):
        distilled(model, X, features=["hiden"])


@pytest.mark.parametrize(
    "options",
    [{}, {"features": ["hidden"]}, {"batch_statistics": True}, {"labels": 0}],
)
def test_a_checkpoint_of_the_distiller_holds_the_student(options, tmp_path):
    model, path = logits(), tmp_path / "distiller.keras"
    data = models.random_inputs(model, batch=96)
    options = QUICK | options | {"held_out": 0}
    if "labels" in options:
        options["labels"] = CLASSES
    small = kr.prune(model, ratio=0.3)
    callbacks = [keras.callbacks.ModelCheckpoint(path)]
    found = kr.distill(small, model, data, callbacks=callbacks, **options)
    loaded = keras.models.load_model(path)
    student = loaded.student.get_weights()
    for a, b in zip(student, found.get_weights(), strict=False):
        np.testing.assert_array_equal(a, b)
    teacher, count = loaded.teacher.get_weights(), len(model.weights)
    for a, b in zip(teacher[:count], model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.batch_statistics == options.get("batch_statistics", False)


BAD_CHANGES = {
    "another shape": (lambda x: x[:, :3], r"an array of shape \(\d+, 3\)"),
    "nothing": (lambda x: None, "returned None"),
    "fewer samples": (lambda x: x[:3], r"an array of shape \(3, 12\)"),
    "a list": (lambda x: [x], r"arrays of shapes \[\(\d+, 12\)\]"),
    "text": (lambda x: "x", "returned 'x'"),
}


@pytest.mark.parametrize("name", BAD_CHANGES)
def test_augment_returns_what_does_not_fit(name):
    change, message = BAD_CHANGES[name]
    model = classifier()
    data = models.random_inputs(model, batch=64)
    with pytest.raises(ValueError, match=rf"augment was given .*{message}"):
        kr.distill(model, model, data, augment=change, **QUICK)
