"""What `Model.predict` takes is taken as data, and data without an end."""

import itertools

import keras
import numpy as np
import pytest
import scipy.sparse
from keras import layers

import keras_redundancy as kr
from keras_redundancy.calibration import data as data_module
from keras_redundancy.calibration.data import Samples, batches
from tests import models

X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
needs_text = pytest.mark.skipif(
    not ON_TENSORFLOW, reason="TensorFlow alone has tensors of text"
)


def net(inputs, x):
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    x = layers.Dense(3, name="top")(x)
    return models.randomized(keras.Model(inputs, x))


def one_input(**options):
    inputs = keras.Input((6,), name="x", **options)
    return net(inputs, inputs)


def two_inputs(structure=dict):
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    inputs = {"a": a, "b": b} if structure is dict else structure([a, b])
    return net(inputs, layers.Concatenate()([a, b]))


def arrays_of(model, data, **options):
    """All that the model is given, an array for each input."""
    found = list(batches(model, Samples(data, **options), 16))
    return [
        None if parts[0] is None else np.concatenate(parts)
        for parts in zip(*found, strict=True)
    ]


def assert_given(model, data, *expected):
    found = arrays_of(model, data)
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)


# --- tf.data without a known length -----------------------------------------


def tf_data(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(x)


def from_generator(x):
    import tensorflow as tf

    return tf.data.Dataset.from_generator(
        lambda: iter(np.split(x, 3)),
        output_signature=tf.TensorSpec((None, 6)),
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
    assert len(said) == 1
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


# --- sparse, text, None -----------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        scipy.sparse.csr_matrix,
        scipy.sparse.csr_array,
        scipy.sparse.coo_matrix,
        lambda x: (scipy.sparse.csr_array(part) for part in np.split(x, 3)),
    ],
    ids=["csr_matrix", "csr_array", "coo_matrix", "generator"],
)
def test_sparse_matrices(kind, sparse):
    x = np.where(X > 0.5, X, 0)
    model = one_input(sparse=sparse)
    assert_given(model, kind(x), x)
    models.assert_same_function(
        kr.prune(model, ratio=0.5, data=kind(x), batch_size=16),
        kr.prune(model, ratio=0.5, data=x, batch_size=16),
        x,
    )


def text_model(shape=()):
    vectorize = layers.TextVectorization(
        output_sequence_length=3, vocabulary=["a", "b", "c", "d"]
    )
    inputs = keras.Input(shape, dtype="string")
    x = layers.Embedding(6, 5)(vectorize(inputs))
    return net(inputs, layers.GlobalAveragePooling1D()(x))


def text():
    letters = np.random.default_rng(0).choice(list("abcd"), (40, 3))
    return [" ".join(row) for row in letters]


TEXT_KINDS = {
    "array": np.asarray,
    "objects": lambda x: np.asarray(x, object),
    "bytes": lambda x: np.asarray([word.encode() for word in x]),
    "tensor": keras.ops.convert_to_tensor,
    "tf.data": lambda x: tf_data(x).batch(16),
    "generator": lambda x: (np.asarray(x[i::2]) for i in range(2)),
}


@needs_text
@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_text(kind):
    model = text_model()
    tensor = keras.ops.convert_to_tensor(text())
    known = kr.calibrate(model, TEXT_KINDS[kind](text()))
    (kernel,) = (
        axis
        for axis in known.graph.axes
        if axis.layer.name == "top" and id(axis) in known.statistics.views
    )
    (view,) = known.statistics.views[id(kernel)]
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)
    rows = hidden.predict(tensor, verbose=0)
    np.testing.assert_allclose(view.moments.mean, rows.mean(0), atol=1e-5)
    assert kr.prune(model, ratio=0.5, data=known).count_params() < (
        model.count_params()
    )


@needs_text
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_latency_of_a_model_of_text(shape):
    model = text_model(shape)
    assert kr.plan(model, target={"latency": 1.0}).latency <= 1


@needs_text
def test_categories_beside_numbers():
    kind = keras.Input((1,), dtype="string", name="kind")
    size = keras.Input((6,), name="size")
    lookup = layers.StringLookup(vocabulary=["x", "y"], output_mode="one_hot")
    x = layers.Concatenate()([lookup(kind), size])
    model = net({"kind": kind, "size": size}, x)
    table = {
        "kind": np.asarray([["x"], ["y"], ["z"]] * 16),
        "size": X,
        "id": np.asarray(["no input"] * 48),
    }
    known = kr.calibrate(model, table)
    assert known.statistics.samples == 48
    assert kr.prune(model, ratio=0.5, data=known).get_layer("hidden").units == 4


@needs_text
def test_a_feature_space():
    space = keras.utils.FeatureSpace(
        features={"kind": "string_categorical", "size": "float"},
        output_mode="concat",
    )
    table = {"kind": np.asarray(list("xyzx") * 12), "size": X[:, 0]}
    space.adapt(tf_data(table).batch(16))
    encoded = space.get_encoded_features()
    model = net(space.get_inputs(), encoded)
    small = kr.prune(model, ratio=0.5, data=tf_data(table).batch(16))
    assert small.get_layer("hidden").units == 4


class Sum(layers.Layer):
    """The sum of both inputs; the second is optional."""

    def call(self, x, y=None):
        return x if y is None else x + y

    def compute_output_spec(self, x, y=None):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.parametrize("is_first", [False, True])
def test_none_for_an_optional_input(is_first):
    x = keras.Input((6,), name="x")
    y = keras.Input((6,), name="y", optional=True)
    inputs = [y, x] if is_first else [x, y]
    model = net(inputs, Sum()(x, y))
    without = one_input()
    without.set_weights(model.get_weights())
    for data in (
        [None, X] if is_first else [X, None],
        {"x": X, "y": None},
        iter([(([None, X] if is_first else [X, None]),)]),
    ):
        small = kr.prune(model, ratio=0.5, data=data)
        expected = kr.prune(without, ratio=0.5, data=X)
        for a, b in zip(small.weights, expected.weights, strict=True):
            np.testing.assert_allclose(
                models.numpy(a), models.numpy(b), atol=1e-5
            )
    with pytest.raises(ValueError, match="the model takes"):
        kr.prune(without, ratio=0.5, data={"x": None})


# --- structures -------------------------------------------------------------


@pytest.mark.parametrize("structure", [dict, list, tuple])
def test_dictionaries_with_more_than_the_model_reads(structure):
    model, left, right = two_inputs(structure), X, X[:, :4]
    table = {"A": np.arange(48), "a": left, "b": right, "z": ["no"] * 48}
    table["z"] = np.asarray(table["z"])
    assert_given(model, table, left, right)
    rows = {k: v for k, v in table.items() if k != "z"}
    assert_given(model, tf_data(rows).batch(16), left, right)
    assert_given(model, tf_data((rows, left)).batch(16), left, right)
    assert_given(model, iter([(rows, left)]), left, right)


def test_dictionaries_inside_of_lists():
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    model = net([{"a": a}, b], layers.Concatenate()([a, b]))
    data = [{"a": X, "id": np.arange(48)}, X[:, :4]]
    assert_given(model, data, X, X[:, :4])


@pytest.mark.parametrize("structure", [list, tuple, dict])
def test_a_single_input_in_a_structure(structure):
    x = keras.Input((6,), name="x")
    inputs = {"x": x} if structure is dict else structure([x])
    model = net(inputs, x)
    for data in (X, [X], {"x": X, "id": X}, tf_data(X).batch(16), iter([X])):
        assert_given(model, data, X)
    small = kr.prune(model, ratio=0.5, data=X)
    assert small.get_layer("hidden").units == 4


@pytest.mark.parametrize(
    "data",
    [
        [X, X[:, :4], X],
        {"a": X, "c": X[:, :4]},
        {"a": X, "b": X},
        [X[:, :4], X],
        X,
        {"a": None, "b": None},
    ],
    ids=["three", "a name", "a width", "the order", "one", "none"],
)
@pytest.mark.parametrize("structure", [dict, list])
def test_what_does_not_fit_two_inputs(structure, data):
    with pytest.raises(ValueError, match=r"takes \(None, 6\), \(None, 4\)"):
        arrays_of(two_inputs(structure), data)


# --- open input sizes -------------------------------------------------------


def images(size=None, width=12):
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(width, 3, activation="relu")(inputs)
    return models.randomized(keras.Model(inputs, layers.Conv2D(2, 3)(x)))


def test_flops_are_counted_on_the_data():
    """On the shape of the first batch, where there are several."""
    opened, fixed = images(), images(10)
    data = np.random.default_rng(0).normal(size=(32, 10, 10, 3))
    larger = np.random.default_rng(0).normal(size=(32, 14, 14, 3))
    options = {"target": {"flops": 0.5}, "rounds": 0}
    expected = kr.plan(fixed, data=data, **options).flops
    for given in (
        data,
        kr.calibrate(opened, data),
        iter([data, larger]),
        Samples(data).data,
    ):
        plan = kr.plan(opened, data=given, **options)
        assert plan.flops == expected
        small = plan.apply()
        assert kr.flops(small, input_shape=(10, 10, 3)) == expected[1]
    without_statistics = {"select": "l1", "absorb": "merge"}
    for given in (data, iter([data, larger])):
        plan = kr.plan(opened, data=given, **options, **without_statistics)
        assert plan.flops[0] == expected[0]
    plan = kr.plan(opened, data=data, input_shape=(14, 14, 3), **options)
    assert plan.flops[0] == kr.flops(images(14))


def test_flops_on_a_shape_without_data():
    opened, fixed = images(), images(10)
    target = {"target": {"flops": 0.5}}
    plan = kr.plan(opened, **target, input_shape=(10, 10, 3))
    assert plan.flops == kr.plan(fixed, **target).flops
    with pytest.raises(ValueError, match=r"input_shape=.*or data="):
        kr.plan(opened, **target)
    with pytest.raises(ValueError, match="is not the shape"):
        kr.plan(fixed, **target, input_shape=(12, 12, 3))


def test_the_latency_of_a_model_with_open_sizes():
    model = images(width=64)
    data = np.random.default_rng(0).normal(size=(16, 24, 24, 3))
    for given in ({"data": data, "rounds": 0}, {"input_shape": (24, 24, 3)}):
        plan = kr.plan(model, target={"latency": 1.0}, batch_size=16, **given)
        assert plan.latency <= 1
    with pytest.raises(ValueError, match=r"input_shape=.*or data="):
        kr.plan(model, target={"latency": 0.9})


def test_trials_of_a_model_with_open_sizes():
    model = images()
    data = np.random.default_rng(0).normal(size=(16, 10, 10, 3))
    scores = iter(range(100, 0, -1))

    def evaluate(model):
        return float(next(scores))

    options = {"data": data, "rounds": 0, "verbose": False}
    found = kr.sensitivity(model, evaluate, ratios=[0.5], **options)
    trials = next(iter(found.trials.values()))
    assert trials[0].flops == pytest.approx(0.5)
    methods = {
        "l1": {"select": "l1"},
        "of ones own": lambda model, share: images(width=6),
    }
    found = kr.compare(model, evaluate, methods, shares=[0.5], **options)
    for trials in found.trials.values():
        assert trials[0].flops == pytest.approx(0.5)
