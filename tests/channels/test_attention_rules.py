"""Attention: whole heads go, scores need all query and key channels."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_redundancy as kr
from keras_redundancy.channels import Role
from tests import models
from tests.rule_checks import assert_copies_go, prune


def names_and_sizes(graph):
    return {space.name: space.size for space in graph.prunable}


@pytest.mark.parametrize("options", [{}, {"use_gate": True}])
def test_planted_copies_go(options, tmp_path):
    left, right = keras.Input((5, 24)), keras.Input((7, 20))
    x = layers.Dense(16, name="x")(left)
    y = layers.Dense(13, activation="relu", name="y")(right)
    z = layers.Dense(12, name="z")(right)
    x = x + layers.MultiHeadAttention(8, 3, name="own", **options)(x, x)
    cross = layers.MultiHeadAttention(
        7, 3, value_dim=4, output_shape=16, dropout=0.1, name="cross"
    )
    x = x + cross(x, y)
    behind = layers.MultiHeadAttention(6, 4, use_bias=False, name="behind")
    x = layers.Flatten()(behind(key=z, query=x, value=y))
    model = keras.Model([left, right], layers.Dense(3, name="top")(x))
    graph = assert_copies_go(model, tmp_path)
    gate = ", gate" if options else ""
    assert names_and_sizes(graph) == {
        "x + own (attention_output) + cross (attention_output)": 16,
        "y": 13,
        "z": 12,
        f"own (query, key, value{gate})": 8,
        "cross (query, key, value)": 7,
        "behind (query, key, value)": 6,
        "behind (attention_output)": 16,
    }


def test_heads_have_a_place_in_every_projection():
    inputs = keras.Input((5, 12))
    x = layers.MultiHeadAttention(8, 3, name="mha")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    heads, _ = kr.trace(model).prunable
    found = {
        role: [(a.on.variable.path, a.on.axis) for a in heads.axes_of(role)]
        for role in Role
    }
    assert found == {
        Role.PRODUCER: [
            ("mha/query/kernel", 1),
            ("mha/key/kernel", 1),
            ("mha/value/kernel", 1),
        ],
        Role.CARRIER: [
            ("mha/query/bias", 0),
            ("mha/key/bias", 0),
            ("mha/value/bias", 0),
        ],
        Role.CONSUMER: [("mha/attention_output/kernel", 0)],
    }


@pytest.mark.parametrize("planted", ["query", "output", "both"])
def test_the_width_that_follows_the_query_is_written_where_it_must_be(planted):
    """Without an output_shape the output is as wide as the query."""
    inputs = keras.Input((5, 24))
    x = layers.Dense(10, name="query")(inputs)
    x = layers.MultiHeadAttention(4, 5, name="mha")(x, inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    query, _, output = kr.trace(model).prunable
    spaces = {"query": [query], "output": [output], "both": [query, output]}
    models.plant(model, spaces=spaces[planted])
    small = kr.prune(model, 0.9999)
    models.assert_same_function(model, small)
    width = 10 if planted == "query" else 7
    mha = small.get_layer("mha")
    assert mha.get_config()["output_shape"] in (width, (width,))
    assert mha.output.shape == (None, 5, width)
    same = kr.prune(model, 0.9999, skip=["query", "mha"])
    assert same.get_layer("mha").get_config()["output_shape"] is None


GROUPS = {
    "gate": {"use_gate": True},
    "no bias": {"use_bias": False},
    "dropout": {"dropout": 0.2},
}


@pytest.mark.parametrize("name", GROUPS)
def test_key_and_value_heads_go_with_their_query_heads(name, tmp_path):
    left, right = keras.Input((5, 24)), keras.Input((7, 20))
    x = layers.Dense(16, name="x")(left)
    y = layers.Dense(16, activation="relu", name="y")(right)
    z = layers.Dense(12, name="z")(right)
    kind = layers.GroupQueryAttention
    x = x + kind(3, 12, 4, name="own", **GROUPS[name])(x, x)
    x = kind(4, 5, 5, name="cross")(x, y, key=z, use_causal_mask=False)
    model = keras.Model([left, right], layers.Dense(3)(layers.Flatten()(x)))
    graph = assert_copies_go(model, tmp_path)
    gate = ", gate" if name == "gate" else ""
    stream = "x + own (attention_output) + y + cross (attention_output)"
    assert names_and_sizes(graph) == {
        stream: 16,
        "z": 12,
        f"own (query, key, value{gate})": 4,
        "cross (query, key, value)": 5,
    }
    own = next(s for s in graph.prunable if s.name.startswith("own"))
    query, key, *_ = own.axes_of(Role.PRODUCER)
    assert sorted(query.positions[1]) == [3, 4, 5]
    assert key.positions[1] == [1]


@pytest.mark.parametrize("grouped", [False, True])
def test_scores_have_a_channel_for_every_head(grouped):
    inputs = keras.Input((5, 24))
    x = layers.Dense(16)(inputs)
    kind = layers.MultiHeadAttention(8, 3)
    if grouped:
        kind = layers.GroupQueryAttention(3, 8, 4)
    x, scores = kind(x, x, return_attention_scores=True)
    scores = layers.Dense(3)(layers.Permute((2, 3, 1))(scores))
    x = layers.Dense(3)(layers.Flatten()(x))
    assert_copies_go(keras.Model(inputs, [x, scores]))


def test_masks_leave_heads_and_channels_alone(tmp_path):
    words = keras.Input((None,), dtype="int32")
    mask = keras.Input((None, None), dtype="bool")
    x = layers.Embedding(20, 16, mask_zero=True, name="words")(words)
    x = x + layers.MultiHeadAttention(8, 3, name="mha")(
        x, x, attention_mask=mask, use_causal_mask=True
    )
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model([words, mask], layers.Dense(3)(x))
    rng = np.random.default_rng(0)
    data = [np.array([[1, 2, 3, 0], [4, 5, 0, 0]]), rng.random((2, 4, 4)) < 0.8]
    graph = assert_copies_go(model, tmp_path, data=data)
    assert names_and_sizes(graph) == {
        "words + mha (attention_output)": 16,
        "mha (query, key, value)": 8,
    }


def test_a_mask_for_every_head_freezes_the_heads():
    inputs = keras.Input((5, 24))
    x = layers.Dense(16, name="x")(inputs)
    mask = np.random.default_rng(0).random((1, 8, 5, 5)) < 0.7
    x = layers.MultiHeadAttention(8, 3, name="mha")(x, x, attention_mask=mask)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    graph = assert_copies_go(model)
    assert names_and_sizes(graph) == {"x": 16, "mha (attention_output)": 16}
    reasons = {space.name: space.frozen for space in graph.spaces}
    assert "a mask or a bias for each" in reasons["mha (query, key, value)"]


@keras.saving.register_keras_serializable(__name__)
class Attend(layers.Layer):
    """Heads of 3 numbers, groups of which share those of keys and values.

    Args:
        mask: an argument of `keras.ops.dot_product_attention`, or None.
        of_heads: whether that is another one for each head.
    """

    def __init__(self, heads, shared, mask=None, of_heads=False, **options):
        super().__init__(**options)
        self.heads, self.shared = heads, shared
        self.mask, self.of_heads = mask, of_heads
        self.query = layers.Dense(3 * heads, name="query")
        self.key = layers.Dense(3 * shared, name="key")
        self.value = layers.Dense(3 * shared, name="value")
        self.out = layers.Dense(8, name="out")

    def build(self, shape):
        for layer in (self.query, self.key, self.value):
            layer.build(shape)
        self.out.build((*shape[:-1], 3 * self.heads))
        self.length = shape[1]

    def call(self, x):
        query, key, value = (
            keras.ops.reshape(layer(x), (-1, self.length, heads, 3))
            for layer, heads in (
                (self.query, self.heads),
                (self.key, self.shared),
                (self.value, self.shared),
            )
        )
        given = {}
        if self.mask is not None:
            heads = self.heads if self.of_heads else 1
            shape = 1, heads, self.length, self.length
            given = {self.mask: np.random.default_rng(0).random(shape) < 0.7}
        x = keras.ops.dot_product_attention(query, key, value=value, **given)
        return self.out(keras.ops.reshape(x, (-1, self.length, 3 * self.heads)))

    def get_config(self):
        own = {"heads": self.heads, "shared": self.shared}
        own |= {"mask": self.mask, "of_heads": self.of_heads}
        return super().get_config() | own


def attending(*args, **options):
    inputs = keras.Input((5, 12))
    x = Attend(*args, **options, name="own")(layers.Dense(9, name="x")(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


NO_SINGLE_HEAD = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="on TensorFlow, Keras cannot share one head of keys",
)


@pytest.mark.parametrize("mask", [None, "mask", "bias"])
def test_heads_of_an_operation_that_attends_go(mask, tmp_path):
    graph = assert_copies_go(attending(6, 6, mask), tmp_path)
    expected = {"x": 9, "own-query + own-key + own-value": 6, "own-out": 8}
    found = names_and_sizes(graph)
    assert sorted(found.values()) == sorted(expected.values())


@NO_SINGLE_HEAD
@pytest.mark.parametrize(("shared", "sizes"), [(3, [9, 3, 8]), (1, [9, 6, 8])])
def test_groups_go_where_heads_share_keys(shared, sizes, tmp_path):
    graph = assert_copies_go(attending(6, shared), tmp_path)
    assert sorted(names_and_sizes(graph).values()) == sorted(sizes)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it can")
def test_on_tensorflow_heads_that_share_keys_stay():
    graph = assert_copies_go(attending(6, 3))
    assert sorted(names_and_sizes(graph).values()) == [8, 9]
    reasons = " ".join(space.frozen or "" for space in graph.spaces)
    assert "fewer heads of keys" in reasons


@pytest.mark.parametrize("mask", ["mask", "bias"])
def test_masks_for_each_head_of_an_operation_freeze_the_heads(mask):
    graph = assert_copies_go(attending(6, 6, mask, of_heads=True))
    assert sorted(names_and_sizes(graph).values()) == [8, 9]
    reasons = " ".join(space.frozen or "" for space in graph.spaces)
    assert "a mask or a bias for each" in reasons


def test_heads_go_that_share_a_single_key():
    inputs = keras.Input((5, 12))
    x = layers.Dense(9, name="x")(inputs)
    x = layers.GroupQueryAttention(3, 6, 1, name="gqa")(x, x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert sorted(names_and_sizes(assert_copies_go(model)).values()) == [
        1,
        6,
        9,
    ]


def test_a_layer_that_is_called_twice_and_in_a_nested_model():
    inner_in = keras.Input((None, 12), name="inner_in")
    x = layers.MultiHeadAttention(6, 3, name="mha")(inner_in, inner_in)
    inner = keras.Model(inner_in, x, name="inner")
    left, right = keras.Input((5, 24)), keras.Input((7, 24))
    dense, pool = layers.Dense(12), layers.GlobalAveragePooling1D()
    x = [pool(inner(dense(side))) for side in (left, right)]
    model = keras.Model([left, right], layers.Dense(2)(layers.Concatenate()(x)))
    assert sorted(names_and_sizes(assert_copies_go(model)).values()) == [
        6,
        12,
        12,
    ]


def test_flops_count_the_four_projections():
    left, right = keras.Input((5, 12)), keras.Input((7, 20))
    mha = layers.MultiHeadAttention(4, 3, value_dim=2, output_shape=6)
    model = keras.Model([left, right], mha(left, right))
    query, key, value = 5 * 12 * 12, 7 * 20 * 12, 7 * 20 * 8
    assert kr.flops(model) == query + key + value + 5 * 8 * 6
    grouped = layers.GroupQueryAttention(3, 4, 2, use_gate=True)
    other = keras.Input((7, 12))
    model = keras.Model([left, other], grouped(left, other))
    query, key = 5 * 12 * 12, 7 * 12 * 6
    assert kr.flops(model) == 2 * query + 2 * key + 5 * 12 * 12


def test_a_report_has_a_row_for_the_heads_and_one_for_the_output():
    inputs = keras.Input((5, 12))
    x = layers.MultiHeadAttention(8, 3, name="mha")(inputs, inputs)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    models.plant(model)
    report = kr.analyze(model, 0.9999)
    heads, output, _ = report.layers
    assert (heads.layer, heads.part) == ("mha", "query, key, value")
    assert (heads.n, heads.n_r) == (8, 2)
    assert (output.layer, output.part) == ("mha", "attention_output")
    assert (output.n, output.n_r) == (12, 3)
    assert heads.parameters == model.get_layer("mha").count_params()
    assert output.parameters is output.multiply_adds is None
    assert heads.multiply_adds == kr.flops(model) - 5 * 12 * 2
    assert "(attention_output)" in str(report)


# --- scores of the channels themselves --------------------------------------


def weighted(layer, **options):
    inputs = keras.Input((5, 12))
    query, value, key = (layers.Dense(8, name=n)(inputs) for n in "qvk")
    x = layer([query, value, key], **options)
    x, *scores = x if isinstance(x, (list, tuple)) else [x]
    x = layers.Dense(3)(layers.Flatten()(x))
    return keras.Model(inputs, [x, *(layers.Dense(2)(s) for s in scores)])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (layers.Attention, {"use_scale": True, "score_mode": "concat"}),
        (layers.Attention, {"dropout": 0.1}),
        (layers.AdditiveAttention, {}),
        (layers.AdditiveAttention, {"use_scale": False}),
    ],
)
def test_values_go_through_where_queries_and_keys_stay(kind, options):
    graph = assert_copies_go(weighted(kind(**options), use_causal_mask=True))
    assert names_and_sizes(graph) == {"v": 8}
    reasons = {space.name: space.frozen for space in graph.spaces}
    assert "sums over its query and key" in reasons["q"]
    assert reasons["k"] == reasons["q"]


def test_scores_can_be_returned():
    model = weighted(layers.Attention(), return_attention_scores=True)
    assert names_and_sizes(assert_copies_go(model)) == {"v": 8}


def test_a_value_that_is_the_key_stays():
    inputs = keras.Input((5, 12))
    query, value = layers.Dense(8, name="q")(inputs), layers.Dense(8)(inputs)
    x = layers.AdditiveAttention()([query, value])
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert kr.trace(model).prunable == []


# --- what is left alone -----------------------------------------------------


@keras.saving.register_keras_serializable(__name__)
class Sharpened(layers.MultiHeadAttention):
    def _compute_attention(self, query, key, value, *args, **options):
        return super()._compute_attention(
            2.0 * query, key, value, *args, **options
        )


def constant_value(x):
    return layers.MultiHeadAttention(8, 3)(x, np.ones((4, 6, 7), "float32"))


def on_itself(layer):
    return lambda x: layer()(x, x)


UNFOLLOWED = {
    "axes": (
        on_itself(lambda: layers.MultiHeadAttention(8, 2, attention_axes=2)),
        (3, 5, 12),
        "attends over other axes",
    ),
    "rank": (
        on_itself(lambda: layers.MultiHeadAttention(8, 2)),
        (3, 5, 12),
        "attends over other axes",
    ),
    "shape": (
        on_itself(lambda: layers.MultiHeadAttention(8, 2, output_shape=(4, 5))),
        (5, 12),
        "output_shape of several axes",
    ),
    "constant": (constant_value, (5, 12), "other than tensors of the model"),
    "constant value": (
        lambda x: layers.Attention()([x, np.ones((4, 6, 16), "float32")]),
        (5, 12),
        "other than tensors of the model",
    ),
}


def test_inside_of_a_subclass_its_own_calls_are_followed():
    inputs = keras.Input((5, 12))
    x = layers.Dense(16, name="before")(inputs)
    x = layers.Flatten()(Sharpened(8, 2)(x, x))
    model = models.randomized(keras.Model(inputs, layers.Dense(3)(x)))
    sizes = [space.size for space in kr.trace(model).prunable]
    assert sorted(sizes) == [8, 16, 16]
    models.plant(model)
    small = kr.prune(model, tau=0.9999)
    assert small.count_params() < model.count_params()
    models.assert_same_function(model, small)


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_what_is_left_alone(name):
    layer, shape, reason = UNFOLLOWED[name]
    inputs = keras.Input(shape, batch_size=4)
    x = layer(layers.Dense(16, name="before")(inputs))
    x = layers.Dense(3)(layers.Flatten()(x))
    model = models.randomized(keras.Model(inputs, x))
    reasons = {space.name: space.frozen for space in kr.trace(model).spaces}
    assert reason in reasons["before"]
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)


def test_channels_on_another_axis_are_left_alone():
    inputs = keras.Input((5, 12))
    x = layers.Permute((2, 1))(layers.Dense(16, name="before")(inputs))
    x = layers.MultiHeadAttention(8, 2)(x, x)
    model = models.randomized(keras.Model(inputs, layers.Dense(2)(x)))
    assert kr.trace(model).prunable == []
    models.assert_same_function(model, prune(model, 0.1), tolerance=0)
