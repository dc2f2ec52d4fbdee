"""What `Model.predict` takes is taken as data."""

import keras
import numpy as np
import pytest
import scipy.sparse
from keras import layers

import keras_redundancy as kr
from keras_redundancy.planning import latency
from tests import models
from tests.calibration.inputs import (
    X,
    arrays_of,
    assert_given,
    needs_text,
    net,
    one_input,
    tf_data,
    two_inputs,
)

# Keras has no sparse tensors on PyTorch: it makes dense ones of matrices.
SPARSE = [False] + [True] * (keras.backend.backend() != "torch")

# --- sparse, text, None -----------------------------------------------------


@pytest.mark.parametrize("sparse", SPARSE)
@pytest.mark.parametrize(
    "kind",
    [
        scipy.sparse.csr_matrix,
        scipy.sparse.csr_array,
        scipy.sparse.coo_matrix,
        pytest.param(
            lambda x: (scipy.sparse.csr_array(part) for part in np.split(x, 3)),
            marks=pytest.mark.skipif(
                keras.backend.backend() == "torch",
                reason="Keras makes no batches of these on PyTorch",
            ),
        ),
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
def test_a_model_of_text_is_timed(shape, monkeypatch):
    monkeypatch.setattr(latency, "LEAST_SECONDS", 0.0)
    model = text_model(shape)
    share = latency.Stopwatch(model, batch_size=16).race_with(model)()
    assert 0 < share < np.inf


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


@pytest.mark.parametrize("wrong", [-1, 9, 40])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_numbers_of_words_that_an_embedding_does_not_know(dtype, wrong):
    inputs = keras.Input((6,), dtype=dtype, name="words")
    x = keras.layers.Embedding(9, 4, name="vectors")(inputs)
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    data = np.arange(96).reshape(16, 6) % 9
    kr.calibrate(model, data)
    data[12, 3] = wrong
    words = (
        f"number {wrong} in batch 1 .* 'words', .* 'vectors' .* 0 to 8 alone"
    )
    with pytest.raises(ValueError, match=words):
        kr.calibrate(model, data, batch_size=8)
